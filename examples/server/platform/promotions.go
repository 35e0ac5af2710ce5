package platform

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/promote"
)

// PromotionRequest asks for a version in an environment.
type PromotionRequest struct {
	Cluster     string `json:"cluster"`
	Environment string `json:"environment"`
	Version     string `json:"version"`
	Expect      string `json:"expect,omitempty"` // the digest that the caller believes is current, "none" for nothing; empty does not check
	Actor       string `json:"actor"`
	Reason      string `json:"reason,omitempty"`
}

// Promote deploys the version to the environment when every gate agrees. It returns when the instances serve.
func (p *Platform) Promote(ctx context.Context, request PromotionRequest) (promote.Deployment, error) {
	expect, err := parseExpect(request.Expect)
	if err != nil {
		return promote.Deployment{}, err
	}
	defer p.Events.Bump()
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
func (p *Platform) Rollback(ctx context.Context, request RollbackRequest) (promote.Deployment, error) {
	digest, err := promote.ParseDigest(request.Digest)
	if err != nil {
		return promote.Deployment{}, invalid("%v", err)
	}
	expect, err := parseExpect(request.Expect)
	if err != nil {
		return promote.Deployment{}, err
	}
	defer p.Events.Bump()
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

// RestartInstance replaces one instance: another of the same image starts on a free port, takes over the traffic without
// a reload of Nginx, and the old one ends after its requests under way. It returns the new one.
func (p *Platform) RestartInstance(ctx context.Context, id string) (instance.Instance, error) {
	defer p.taskLocks.lock("instance " + id)()
	active, err := p.activeInstances()
	if err != nil {
		return instance.Instance{}, err
	}
	for _, old := range active {
		if old.ID != id {
			continue
		}
		spec := old.Spec
		spec.ID = nextID(id)
		i, err := p.instances.Start(ctx, spec)
		if err != nil {
			return instance.Instance{}, err
		}
		p.settleMu.Lock()
		p.replaced[id] = true
		p.settleMu.Unlock()
		defer p.Events.Bump()
		return i, p.settle(ctx)
	}
	return instance.Instance{}, fmt.Errorf("instance %q: %w", id, ErrNotFound)
}

var replacement = regexp.MustCompile(`^(.*?)(?:r(\d+))?$`)

// nextID names the replacement of an instance: "web-1", "web-1r1", "web-1r2".
func nextID(id string) string {
	parts := replacement.FindStringSubmatch(id)
	n, _ := strconv.Atoi(parts[2]) // empty for the first
	return parts[1] + "r" + strconv.Itoa(n+1)
}

func (p *Platform) activeInstances() ([]instance.Instance, error) {
	p.settleMu.Lock()
	defer p.settleMu.Unlock()
	active, _, err := p.split()
	return active, err
}
