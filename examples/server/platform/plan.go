package platform

import (
	"cmp"
	"context"
	"slices"

	"github.com/sluice-deploy/sluice/promote"
)

// Guarded reports whether people outside of testing see the deployments of the environment, so that
// a person confirms a change of it: production, and everything that comes after it in the pipeline.
func (p *Platform) Guarded(environment string) bool {
	at := p.pipeline.Index(environment)
	return at >= 0 && at >= p.pipeline.Index("production")
}

// Baseline is the environment that serves every cluster that no task overrides.
func (p *Platform) Baseline() string { return p.baseline() }

// Plan is the effect that a change would have at its target.
type Plan struct {
	Next    Deployment // without a time; without a version when no version has the digest
	Current Deployment // the zero value when nothing is current
}

// PlanPromotion asks every gate and returns the effect that Promote would have now. It changes
// nothing. An empty Expect does not compare.
func (p *Platform) PlanPromotion(ctx context.Context, request PromotionRequest) (Plan, error) {
	expect, err := parseExpect(cmp.Or(request.Expect, string(promote.Any)))
	if err != nil {
		return Plan{}, err
	}
	target := promote.Target{Cluster: request.Cluster, Environment: request.Environment}
	err = p.promoter.Check(ctx, promote.Request{
		Target: target, Version: request.Version, Expect: expect, Actor: request.Actor,
		Reason: request.Reason,
	})
	if err != nil {
		return Plan{}, err
	}
	return p.plan(ctx, target, func(v Version) bool { return v.Version == request.Version })
}

// PlanRollback returns the effect that Rollback would have now, unless it is refused. It changes
// nothing.
func (p *Platform) PlanRollback(ctx context.Context, request RollbackRequest) (Plan, error) {
	digest, err := promote.ParseDigest(request.Digest)
	if err != nil {
		return Plan{}, invalid("%v", err)
	}
	if p.pipeline.Index(request.Environment) < 0 {
		return Plan{}, invalid("environment %q: the pipeline has %v", request.Environment,
			p.pipeline)
	}
	target := promote.Target{Cluster: request.Cluster, Environment: request.Environment}
	plan, err := p.plan(ctx, target, func(v Version) bool { return v.Digest == string(digest) })
	plan.Next.Digest = string(digest)
	return plan, err
}

func (p *Platform) plan(ctx context.Context, target promote.Target, chosen func(Version) bool) (
	Plan, error) {
	plan := Plan{Next: Deployment{Cluster: target.Cluster, Environment: target.Environment}}
	versions, err := p.Versions(ctx, target.Cluster)
	if err != nil {
		return plan, err
	}
	if at := slices.IndexFunc(versions, chosen); at >= 0 {
		plan.Next.Version, plan.Next.Digest = versions[at].Version, versions[at].Digest
	}
	current, err := p.promoter.Current(ctx)
	for _, d := range current {
		if d.Target == target {
			plan.Current = DeploymentOf(d)
		}
	}
	return plan, err
}
