package platform

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
)

// ReviewRequest is the verdict of a person on a version in an environment.
type ReviewRequest struct {
	Cluster     string `json:"cluster"`
	Environment string `json:"environment"`
	Task        string `json:"task,omitempty"`
	Version     string `json:"version"`
	Approve     bool   `json:"approve"` // false rejects it
	Actor       string `json:"actor"`
	Reason      string `json:"reason,omitempty"`
}

// Review writes a review down. The approvals that an environment needs are in Config.Rules.
func (p *Platform) Review(ctx context.Context, r ReviewRequest) error {
	return p.promoter.Review(ctx, promote.Review{
		Target:  promote.Target{Cluster: r.Cluster, Environment: r.Environment, Task: r.Task},
		Version: r.Version, Approve: r.Approve, Actor: r.Actor, Reason: r.Reason,
	})
}

// Explanation is everything that stands between a promotion and its start.
type Explanation struct {
	Passes bool `json:"passes"` // the promotion would begin now
	// Opens is when it passes with nothing done about it; absent when that is now or not known.
	Opens time.Time `json:"opens,omitzero"`
	// Conflict is why the target is not as expected, or which change is under way there.
	Conflict string  `json:"conflict,omitempty"`
	Unmet    []Unmet `json:"unmet"`
}

// Unmet is a gate that does not let a promotion pass.
type Unmet struct {
	Gate    string   `json:"gate"`
	Reasons []string `json:"reasons"`
	Missing []string `json:"missing,omitempty"` // files that have to be there first
	Need    int      `json:"need,omitempty"`    // approvals
	Have    int      `json:"have,omitempty"`
	Who     []string `json:"who,omitempty"` // the people who may give those that are missing
	// Until is when this gate opens with nothing done about it.
	Until time.Time `json:"until,omitzero"`
}

// Explain asks every gate about a promotion and changes nothing. An empty Expect does not compare.
func (p *Platform) Explain(ctx context.Context, request PromotionRequest) (Explanation, error) {
	if request.Expect == "" {
		request.Expect = string(promote.Any)
	}
	asked, err := request.promotion()
	if err != nil {
		return Explanation{}, err
	}
	e, err := p.promoter.Explain(ctx, asked)
	if err != nil {
		return Explanation{}, err
	}
	answer := Explanation{Passes: e.Passes(), Opens: e.Opens}
	if e.Conflict != nil {
		answer.Conflict = e.Conflict.Error()
	}
	answer.Unmet = unmet(e.Gates)
	return answer, nil
}

func unmet(gates []promote.GateRefusal) []Unmet {
	list := []Unmet{}
	for _, g := range gates {
		list = append(list, Unmet{Gate: g.Gate, Reasons: g.Reasons, Missing: g.Missing,
			Need: g.Need, Have: g.Have, Who: g.Who, Until: g.Until})
	}
	return list
}

// FreezeRequest asks that environments stay as they are for a time.
type FreezeRequest struct {
	Environments []string  `json:"environments,omitempty"` // none: all
	From         time.Time `json:"from,omitzero"`          // absent: now
	Until        time.Time `json:"until"`
	Rollbacks    bool      `json:"rollbacks,omitempty"` // holds rollbacks up, too
	Actor        string    `json:"actor"`
	Reason       string    `json:"reason"`
}

// Freeze is a freeze and its number.
type Freeze struct {
	ID string `json:"id"`
	FreezeRequest
}

func (f Freeze) freeze() promote.Freeze {
	return promote.Freeze{Reason: f.Reason, Environments: f.Environments, From: f.From,
		Until: f.Until, Rollbacks: f.Rollbacks}
}

// Freeze holds changes up from now on, or from a later time on.
func (p *Platform) Freeze(request FreezeRequest) (Freeze, error) {
	if request.From.IsZero() {
		request.From = time.Now().UTC().Round(0)
	}
	f := Freeze{FreezeRequest: request}
	if err := checkNames(checkActor(request.Actor)); err != nil {
		return Freeze{}, err
	}
	if strings.TrimSpace(request.Reason) == "" || len(request.Reason) > 4096 {
		return Freeze{}, invalid("reason: want why, in up to 4096 bytes")
	}
	gate := promote.FreezeGate{Freezes: []promote.Freeze{f.freeze()}}
	if err := gate.Validate(p.pipeline); err != nil {
		return Freeze{}, fmt.Errorf("freeze: %w", err)
	}
	n, err := p.freezes.next()
	if err != nil {
		return Freeze{}, err
	}
	f.ID = fmt.Sprintf("f%06d", n)
	p.config.Logger.Info("freeze", "freeze", f.ID, "actor", f.Actor, "reason", f.Reason)
	defer p.Events.Bump()
	return p.freezes.update(f.ID, func(Freeze) (Freeze, error) { return f, nil })
}

// Freezes returns the freezes that are not over, oldest first. Those of Config.Rules are not in it.
func (p *Platform) Freezes() ([]Freeze, error) {
	all, err := p.freezes.list()
	list := []Freeze{}
	for _, f := range all {
		if f.Until.After(time.Now()) {
			list = append(list, f)
		}
	}
	return list, err
}

// Thaw ends a freeze and returns it.
func (p *Platform) Thaw(id, actor string) (Freeze, error) {
	if err := checkNames(checkActor(actor)); err != nil {
		return Freeze{}, err
	}
	f, err := p.freezes.update(id, func(f Freeze) (Freeze, error) {
		now := time.Now().UTC().Round(0)
		if !f.Until.After(now) {
			return f, fmt.Errorf("freeze %s: there is none, or it is over: %w", names.Quote(id),
				ErrNotFound)
		}
		f.Until = now
		return f, nil
	})
	if err == nil {
		p.config.Logger.Info("thaw", "freeze", id, "actor", actor)
		p.Events.Bump()
	}
	return f, err
}

// frozen is the gate of the freezes that people have asked for.
type frozen struct{ p *Platform }

var _ promote.Gate = frozen{}

// Name returns "freeze".
func (frozen) Name() string { return promote.FreezeGate{}.Name() }

// Check implements promote.Gate.
func (g frozen) Check(ctx context.Context, c promote.Change) error {
	list, err := g.p.Freezes()
	if err != nil {
		return err
	}
	var gate promote.FreezeGate
	for _, f := range list {
		gate.Freezes = append(gate.Freezes, f.freeze())
	}
	return gate.Check(ctx, c)
}
