package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/promote"
)

// PromotionRequest asks for a version in an environment.
type PromotionRequest struct {
	Cluster     string `json:"cluster"`
	Environment string `json:"environment"`
	Version     string `json:"version"`
	// the digest that the caller believes is current, "none" for nothing, or "any"; it must not be
	// empty
	Expect string `json:"expect"`
	Actor  string `json:"actor"`
	Reason string `json:"reason,omitempty"`
	// a request with the key of an earlier one of the cluster is that one again, and has to ask for
	// the same: see promote.Request
	Key string `json:"key,omitempty"`
	// for the gates and the journal, such as a ticket: see promote.Request
	Facts map[string]string `json:"facts,omitempty"`
}

func (r PromotionRequest) promotion() (promote.Request, error) {
	expect, err := parseExpect(r.Expect)
	return promote.Request{
		Target:  promote.Target{Cluster: r.Cluster, Environment: r.Environment},
		Version: r.Version, Expect: expect, Key: r.Key, Actor: r.Actor, Reason: r.Reason,
		Facts: r.Facts,
	}, err
}

// Promote deploys the version to the environment when every gate agrees. It returns when the
// instances serve. A caller that goes away before that has cancelled nothing: the promotion goes
// on.
func (p *Platform) Promote(ctx context.Context, request PromotionRequest) (promote.Deployment,
	error) {
	return p.promote(ctx, request.promotion)
}

// promote admits the promotion that asked asks for, and follows it to its end.
func (p *Platform) promote(ctx context.Context, asked func() (promote.Request, error)) (
	promote.Deployment, error) {
	request, err := asked()
	if err != nil {
		return promote.Deployment{}, err
	}
	end, err := p.begin(ctx)
	if err != nil {
		return promote.Deployment{}, err
	}
	defer end()
	return p.promoter.Promote(ctx, request)
}

// RollbackRequest asks for an earlier digest of an environment.
type RollbackRequest struct {
	Cluster     string `json:"cluster"`
	Environment string `json:"environment"`
	Digest      string `json:"digest"`
	Expect      string `json:"expect"` // as in PromotionRequest
	Actor       string `json:"actor"`
	Reason      string `json:"reason,omitempty"`
	Key         string `json:"key,omitempty"` // as in PromotionRequest
}

func (r RollbackRequest) rollback() (promote.RollbackRequest, error) {
	digest, err := promote.ParseDigest(r.Digest)
	if err != nil {
		return promote.RollbackRequest{}, invalid("%v", err)
	}
	expect, err := parseExpect(r.Expect)
	return promote.RollbackRequest{
		Target: promote.Target{Cluster: r.Cluster, Environment: r.Environment},
		Digest: digest, Expect: expect, Key: r.Key, Actor: r.Actor, Reason: r.Reason,
	}, err
}

// Rollback puts an earlier digest of this environment back. As with Promote, a caller that goes
// away cancels nothing.
func (p *Platform) Rollback(ctx context.Context, request RollbackRequest) (promote.Deployment,
	error) {
	asked, err := request.rollback()
	if err != nil {
		return promote.Deployment{}, err
	}
	end, err := p.begin(ctx)
	if err != nil {
		return promote.Deployment{}, err
	}
	defer end()
	return p.promoter.Rollback(ctx, asked)
}

func parseExpect(expect string) (promote.Digest, error) {
	switch promote.Digest(expect) {
	case "":
		return "", invalid("expect: empty: want the digest that is current, %q for nothing, or %q",
			promote.None, promote.Any)
	case promote.Any, promote.None:
		return promote.Digest(expect), nil
	}
	digest, err := promote.ParseDigest(expect)
	if err != nil {
		return "", invalid("expect: %v", err)
	}
	return digest, nil
}

// RestartInstance replaces one instance: another of the same image starts on a free port, takes
// over the traffic without a reload of Nginx, and the old one ends after its requests in flight. It
// returns the new one. The journal says that the actor asked, before anything is done, and once
// more when it did not succeed.
func (p *Platform) RestartInstance(ctx context.Context, id, actor string) (instance.Instance,
	error) {
	end, err := p.begin(ctx)
	if err != nil {
		return instance.Instance{}, err
	}
	defer end()
	unlock, err := p.locks.lock(ctx, "instance "+id)
	if err != nil {
		return instance.Instance{}, err
	}
	defer unlock()
	active, err := p.active(ctx)
	if err != nil {
		return instance.Instance{}, err
	}
	at := slices.IndexFunc(active, func(i instance.Instance) bool { return i.ID == id })
	if at < 0 {
		return instance.Instance{}, fmt.Errorf("instance %q: none of this id serves: %w", id,
			ErrNotFound)
	}
	note := promote.Note{Target: targetOf(active[at]), Op: "restart", Actor: actor,
		Reason: "instance " + id}
	if err := p.promoter.Note(ctx, note); err != nil {
		return instance.Instance{}, err
	}
	i, err := p.replace(ctx, active[at])
	if err != nil {
		note.Error = err.Error()
		err = errors.Join(err, p.promoter.Note(context.WithoutCancel(ctx), note))
	}
	return i, err
}

// replace starts another instance in the place of old and returns it.
func (p *Platform) replace(ctx context.Context, old instance.Instance) (instance.Instance, error) {
	before, err := p.active(ctx)
	if err == nil {
		err = p.rollout.Restart(ctx, targetOf(old), old.ID)
	}
	if err != nil {
		return instance.Instance{}, err
	}
	after, err := p.active(ctx)
	for _, i := range after {
		if targetOf(i) == targetOf(old) && !slices.ContainsFunc(before,
			func(b instance.Instance) bool { return b.ID == i.ID }) {
			return i, nil
		}
	}
	return instance.Instance{}, errors.Join(err, fmt.Errorf("instance %q: %w", old.ID, ErrNotFound))
}
