package platform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/promote"
)

// The labels that an instance carries.
const (
	labelCluster     = "cluster"
	labelEnvironment = "environment"
	labelTask        = "task"
	labelVersion     = "version"
	labelDigest      = "digest"
	labelGeneration  = "generation"
)

// serving is, for one target, the highest generation that was asked for and the one whose instances
// serve; 0 serves nothing. Active never goes back to an earlier generation, so an instance that is
// to end is never wanted again.
type serving struct {
	Target promote.Target `json:"target"`
	Seen   uint64         `json:"seen"`
	Active uint64         `json:"active"`
}

func key(t promote.Target) string { return t.Cluster + "/" + t.Environment + "/" + t.Task }

func targetOf(i instance.Instance) promote.Target {
	return promote.Target{Cluster: i.Labels[labelCluster], Environment: i.Labels[labelEnvironment],
		Task: i.Labels[labelTask]}
}

func generationOf(i instance.Instance) uint64 {
	n, _ := strconv.ParseUint(i.Labels[labelGeneration], 10, 64) // written by deployer.start
	return n
}

// deployer carries out promote's decisions: new instances first, then the routes, then the old
// instances go.
type deployer struct{ p *Platform }

var _ promote.Deployer = deployer{}

// Deploy starts the instances of d, gives them the target's traffic and ends those of earlier
// generations. Instances that serve this very image already stay: the instances that a failed
// change puts back have never been away.
func (d deployer) Deploy(ctx context.Context, deployment promote.Deployment) error {
	if ctx.Err() != nil {
		return fmt.Errorf("deploy to %s: %w", deployment.Target, context.Cause(ctx))
	}
	seen, err := d.see(deployment)
	if err != nil {
		return err
	}
	runs, err := d.runs(deployment, seen.Active)
	if err != nil {
		return err
	}
	if !runs {
		if err := d.start(ctx, deployment); err != nil {
			return err
		}
		if err := d.activate(deployment, deployment.Generation); err != nil {
			return err
		}
	}
	return d.p.settle(ctx)
}

// Remove takes the target out of the routes and ends its instances.
func (d deployer) Remove(ctx context.Context, deployment promote.Deployment) error {
	if ctx.Err() != nil {
		return fmt.Errorf("remove from %s: %w", deployment.Target, context.Cause(ctx))
	}
	if _, err := d.see(deployment); err != nil {
		return err
	}
	if err := d.activate(deployment, 0); err != nil {
		return err
	}
	return d.p.settle(ctx)
}

// see writes the generation down and fences off an earlier one.
func (d deployer) see(deployment promote.Deployment) (serving, error) {
	return d.p.serving.update(key(deployment.Target), func(s serving) (serving, error) {
		if err := s.fence(deployment); err != nil {
			return s, err
		}
		s.Target, s.Seen = deployment.Target, deployment.Generation
		return s, nil
	})
}

// activate gives the traffic of the target to the instances of a generation.
func (d deployer) activate(deployment promote.Deployment, generation uint64) error {
	_, err := d.p.serving.update(key(deployment.Target), func(s serving) (serving, error) {
		if err := s.fence(deployment); err != nil {
			return s, err
		}
		s.Active = generation
		return s, nil
	})
	return err
}

func (s serving) fence(deployment promote.Deployment) error {
	if deployment.Generation < s.Seen {
		return fmt.Errorf("generation %d of %s: %d was seen: %w", deployment.Generation,
			key(deployment.Target), s.Seen, promote.ErrFenced)
	}
	return nil
}

// runs reports whether the instances of the generation are all that the deployment asks for, and
// alive.
func (d deployer) runs(deployment promote.Deployment, generation uint64) (bool, error) {
	active, err := d.p.active()
	if err != nil {
		return false, err
	}
	count := 0
	for _, i := range active {
		if targetOf(i) != deployment.Target || generationOf(i) != generation {
			continue
		}
		if !sameImage(i.Image, d.p.image(deployment)) ||
			i.Labels[labelVersion] != deployment.Version || !i.Alive() {
			return false, nil
		}
		count++
	}
	return count == d.count(deployment), nil
}

func (d deployer) count(deployment promote.Deployment) int {
	return max(1, d.p.config.Instances[deployment.Environment])
}

// routable returns why the agent would set the instances of the deployment aside, or nil.
func (d deployer) routable(deployment promote.Deployment) error {
	i := nginxsync.Instance{
		ID: instanceID(deployment, 0), Version: deployment.Version,
		Addr: netip.MustParseAddrPort("127.0.0.1:1"), // it gets one when it starts
	}
	return nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{deployment.Cluster: {i}},
	}.Validate()
}

func (d deployer) start(ctx context.Context, deployment promote.Deployment) error {
	if err := d.routable(deployment); err != nil {
		return fmt.Errorf("deploy to %s: %w", deployment.Target, err)
	}
	var started []string
	for n := range d.count(deployment) {
		i, err := d.p.instances.Start(ctx, d.spec(deployment, n))
		if err != nil {
			for _, id := range started {
				err = errors.Join(err, d.p.instances.Stop(context.WithoutCancel(ctx), id))
			}
			return err
		}
		started = append(started, i.ID)
	}
	return nil
}

// longestStem of an instance's id leaves room for a generation, a number and that of a replacement.
const longestStem = names.MaxInstance - len("-g18446744073709551615-1000r18446744073709551615")

// instanceID is the id of the n-th instance of a deployment, counted from 0.
func instanceID(deployment promote.Deployment, n int) string {
	id := deployment.Cluster + "-" + deployment.Environment
	if deployment.Task != "" {
		id += "-" + deployment.Task
	}
	if len(id) > longestStem {
		id = names.DNSLabel(id + "/") // cut, with a hash: no two have the same
	}
	return fmt.Sprintf("%s-g%d-%d", id, deployment.Generation, n+1)
}

func (d deployer) spec(deployment promote.Deployment, n int) instance.Spec {
	return instance.Spec{
		ID:    instanceID(deployment, n),
		Image: d.p.image(deployment),
		Env: []string{
			"DEPLOY_ENV=" + deployment.Environment,
			"CLUSTER_NAME=" + deployment.Cluster,
			"IMAGE_DIGEST=" + string(deployment.Digest),
		},
		Labels: map[string]string{
			labelCluster: deployment.Cluster, labelEnvironment: deployment.Environment,
			labelTask:    deployment.Task,
			labelVersion: deployment.Version, labelDigest: string(deployment.Digest),
			labelGeneration: strconv.FormatUint(deployment.Generation, 10),
		},
	}
}
