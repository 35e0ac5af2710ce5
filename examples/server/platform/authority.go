package platform

import (
	"context"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// AdoptionRequest says which version runs at a target that this platform did not deploy there.
type AdoptionRequest struct {
	Cluster     string `json:"cluster"`
	Environment string `json:"environment"`
	Task        string `json:"task,omitempty"`
	Version     string `json:"version"`
	Expect      string `json:"expect"` // as in PromotionRequest
	Actor       string `json:"actor"`  // one of Config.Adopters
	Reason      string `json:"reason"` // how the actor knows
	// why the gates are to be overridden; the actor has to be one of Config.Breakers, too
	Override string `json:"override,omitempty"`
}

// Adopt writes down that the version is live at the target, and returns the deployment. The version
// has to be bound: see BindVersion.
func (p *Platform) Adopt(ctx context.Context, r AdoptionRequest) (promote.Deployment, error) {
	expect, err := parseExpect(r.Expect)
	if err != nil {
		return promote.Deployment{}, err
	}
	end, err := p.begin(ctx)
	if err != nil {
		return promote.Deployment{}, err
	}
	defer end()
	return p.promoter.Adopt(ctx, promote.AdoptRequest{
		Target:  promote.Target{Cluster: r.Cluster, Environment: r.Environment, Task: r.Task},
		Version: r.Version, Expect: expect, Actor: r.Actor, Reason: r.Reason,
		Override: r.Override,
	})
}

// override is the promotion of a breaker, past the gates that refuse it.
func (r PromotionRequest) override() (promote.Request, error) {
	asked, err := r.promotion()
	if strings.TrimSpace(r.Reason) == "" {
		return asked, invalid("reason: empty: want why the gates are to be overridden")
	}
	asked.Override = r.Reason
	return asked, err
}

// Override is Promote for an actor out of Config.Breakers: gates that refuse do not hold it up, but
// for a quarantine. The journal has the reason and each gate that was not met; Overridden lists
// the deployments that wait for approvals afterwards.
func (p *Platform) Override(ctx context.Context, r PromotionRequest) (promote.Deployment, error) {
	return p.promote(ctx, r.override)
}

// BeginOverride is Override that returns when the promotion is in the journal.
func (p *Platform) BeginOverride(ctx context.Context, r PromotionRequest) (Change, error) {
	return p.beginPromotion(ctx, r.override)
}

// Overridden is a version that is live because gates were overridden for it, and that lacks
// approvals still.
type Overridden struct {
	Change      string    `json:"change,omitempty"` // absent: it was adopted
	Cluster     string    `json:"cluster"`
	Environment string    `json:"environment"`
	Task        string    `json:"task,omitempty"`
	Version     string    `json:"version"`
	Digest      string    `json:"digest"`
	Breaker     string    `json:"breaker"`
	At          time.Time `json:"at"`
	Note        string    `json:"note"` // why, and which gates were not met
	Missing     []Unmet   `json:"missing"`
}

// Overridden lists the deployments that wait for approvals after an override. Review gives them.
func (p *Platform) Overridden(ctx context.Context) ([]Overridden, error) {
	all, err := p.promoter.Overridden(ctx)
	list := make([]Overridden, 0, len(all))
	for _, o := range all {
		list = append(list, Overridden{Change: string(o.Change), Cluster: o.Cluster,
			Environment: o.Environment, Task: o.Task, Version: o.Version, Digest: string(o.Digest),
			Breaker: o.Breaker, At: o.At, Note: o.Note, Missing: unmet(o.Missing)})
	}
	return list, err
}

// Use is an image that has to stay in the registry, and why.
type Use struct {
	Cluster     string `json:"cluster"`
	Environment string `json:"environment"`
	Task        string `json:"task,omitempty"`
	Version     string `json:"version"`
	Digest      string `json:"digest"`
	Why         string `json:"why"`              // current, open change, rollback, approved
	Change      string `json:"change,omitempty"` // of an open change
}

// Uses lists the images that a restart, a rollback or a promotion can need.
func (p *Platform) Uses(ctx context.Context) ([]Use, error) {
	all, err := p.promoter.InUse(ctx)
	list := make([]Use, 0, len(all))
	for _, u := range all {
		list = append(list, Use{u.Cluster, u.Environment, u.Task, u.Version, string(u.Digest),
			string(u.Why), string(u.Change)})
	}
	return list, err
}
