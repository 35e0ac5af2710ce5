package platform

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/sluice-deploy/sluice/examples/server/instance"
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

// serving is, for one target, the highest generation that was asked for and the one that serves; 0 serves nothing.
type serving struct {
	Target promote.Target `json:"target"`
	Seen   uint64         `json:"seen"`
	Active uint64         `json:"active"`
}

func key(t promote.Target) string { return t.Cluster + "/" + t.Environment + "/" + t.Task }

func targetOf(i instance.Instance) promote.Target {
	return promote.Target{Cluster: i.Labels[labelCluster], Environment: i.Labels[labelEnvironment], Task: i.Labels[labelTask]}
}

func generationOf(i instance.Instance) uint64 {
	n, _ := strconv.ParseUint(i.Labels[labelGeneration], 10, 64) // written by deployer.start
	return n
}

// deployer carries out promote's decisions: new instances first, then the routes, then the old instances go.
type deployer struct{ p *Platform }

var _ promote.Deployer = deployer{}

// Deploy starts the instances of d, gives them the target's traffic and ends those of earlier generations.
func (d deployer) Deploy(ctx context.Context, deployment promote.Deployment) error {
	if err := d.see(deployment, false); err != nil {
		return err
	}
	if err := d.start(ctx, deployment); err != nil {
		return err
	}
	if err := d.see(deployment, true); err != nil {
		return err
	}
	return d.p.settle(ctx)
}

// Remove takes the target out of the routes and ends its instances.
func (d deployer) Remove(ctx context.Context, deployment promote.Deployment) error {
	if err := d.see(deployment, false); err != nil {
		return err
	}
	_, err := d.p.serving.update(key(deployment.Target), func(s serving) (serving, error) {
		s.Active = 0
		return s, nil
	})
	if err != nil {
		return err
	}
	return d.p.settle(ctx)
}

// see writes down the generation, as seen or as the one that serves, and fences off an earlier one.
func (d deployer) see(deployment promote.Deployment, active bool) error {
	_, err := d.p.serving.update(key(deployment.Target), func(s serving) (serving, error) {
		if deployment.Generation < s.Seen {
			return s, fmt.Errorf("generation %d of %s: %d was seen: %w", deployment.Generation, key(deployment.Target), s.Seen, promote.ErrFenced)
		}
		s.Target, s.Seen = deployment.Target, deployment.Generation
		if active {
			s.Active = deployment.Generation
		}
		return s, nil
	})
	return err
}

func (d deployer) start(ctx context.Context, deployment promote.Deployment) error {
	count := max(1, d.p.config.Instances[deployment.Environment])
	var started []string
	for n := range count {
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

func (d deployer) spec(deployment promote.Deployment, n int) instance.Spec {
	id := deployment.Cluster + "-" + deployment.Environment
	if deployment.Task != "" {
		id += "-" + deployment.Task
	}
	return instance.Spec{
		ID:    fmt.Sprintf("%s-g%d-%d", id, deployment.Generation, n+1),
		Image: deployment.Image(),
		Env: []string{
			"DEPLOY_ENV=" + deployment.Environment,
			"CLUSTER_NAME=" + deployment.Cluster,
			"IMAGE_DIGEST=" + string(deployment.Digest),
		},
		Labels: map[string]string{
			labelCluster: deployment.Cluster, labelEnvironment: deployment.Environment, labelTask: deployment.Task,
			labelVersion: deployment.Version, labelDigest: string(deployment.Digest),
			labelGeneration: strconv.FormatUint(deployment.Generation, 10),
		},
	}
}
