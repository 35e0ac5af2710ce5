package platform

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/promote"
)

// PromotionRequest asks for a version in an environment.
type PromotionRequest struct {
	Cluster     string `json:"cluster"`
	Environment string `json:"environment"`
	Version     string `json:"version"`
	// the digest that the caller believes is current, "none" for nothing; empty does not check
	Expect string `json:"expect,omitempty"`
	Actor  string `json:"actor"`
	Reason string `json:"reason,omitempty"`
}

// Promote deploys the version to the environment when every gate agrees. It returns when the
// instances serve. A caller that goes away before that has cancelled nothing: the promotion goes
// on.
func (p *Platform) Promote(ctx context.Context, request PromotionRequest) (promote.Deployment,
	error) {
	expect, err := parseExpect(request.Expect)
	if err != nil {
		return promote.Deployment{}, err
	}
	end, err := p.begin(ctx)
	if err != nil {
		return promote.Deployment{}, err
	}
	defer end()
	return p.promoter.Promote(ctx, promote.Request{
		Target:  promote.Target{Cluster: request.Cluster, Environment: request.Environment},
		Version: request.Version, Expect: expect, Actor: request.Actor, Reason: request.Reason,
	})
}

// RollbackRequest asks for an earlier digest of an environment.
type RollbackRequest struct {
	Cluster     string `json:"cluster"`
	Environment string `json:"environment"`
	Digest      string `json:"digest"`
	Expect      string `json:"expect,omitempty"` // as in PromotionRequest
	Actor       string `json:"actor"`
	Reason      string `json:"reason,omitempty"`
}

// Rollback puts an earlier digest of this environment back.
func (p *Platform) Rollback(ctx context.Context, request RollbackRequest) (promote.Deployment,
	error) {
	digest, err := promote.ParseDigest(request.Digest)
	if err != nil {
		return promote.Deployment{}, invalid("%v", err)
	}
	expect, err := parseExpect(request.Expect)
	if err != nil {
		return promote.Deployment{}, err
	}
	end, err := p.begin(ctx)
	if err != nil {
		return promote.Deployment{}, err
	}
	defer end()
	return p.promoter.Rollback(ctx, promote.RollbackRequest{
		Target: promote.Target{Cluster: request.Cluster, Environment: request.Environment},
		Digest: digest, Expect: expect, Actor: request.Actor, Reason: request.Reason,
	})
}

func parseExpect(expect string) (promote.Digest, error) {
	if expect == "" || expect == string(promote.None) {
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
	active, err := p.active()
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

// replace starts another instance in the place of old.
func (p *Platform) replace(ctx context.Context, old instance.Instance) (instance.Instance, error) {
	n, err := p.serving.next()
	if err != nil {
		return instance.Instance{}, err
	}
	spec := old.Spec
	spec.ID, spec.Image = replacementID(old.ID, n), p.relocated(spec.Image)
	p.aside.put(spec.ID, starting)
	i, err := p.instances.Start(ctx, spec)
	if err != nil {
		p.aside.remove(spec.ID)
		return instance.Instance{}, err
	}
	p.aside.replace(old.ID, spec.ID)
	return i, p.settle(ctx)
}

var replacement = regexp.MustCompile(`^(.*-\d+)r(\d+)$`)

// replacementID names the n-th replacement that this platform starts: "web-g7-1", "web-g7-1r12",
// "web-g7-1r15". No id is given twice.
func replacementID(id string, n uint64) string {
	original, _ := parseID(id)
	return original + "r" + strconv.FormatUint(n, 10)
}

// parseID returns the id of the instance that this one replaces in the end, and the number of the
// replacement, 0 for the original.
func parseID(id string) (original string, n uint64) {
	parts := replacement.FindStringSubmatch(id)
	if parts == nil {
		return id, 0
	}
	n, _ = strconv.ParseUint(parts[2], 10, 64) // written by replacementID
	return parts[1], n
}
