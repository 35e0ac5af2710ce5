package platform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

// The labels that an instance carries.
const (
	labelCluster     = "cluster"
	labelEnvironment = "environment"
	labelTask        = "task"
	labelVersion     = "version"
	labelDigest      = "digest"
	labelGeneration  = "generation"
	labelNumber      = "number"
)

func targetOf(i instance.Instance) promote.Target {
	return promote.Target{Cluster: i.Labels[labelCluster], Environment: i.Labels[labelEnvironment],
		Task: i.Labels[labelTask]}
}

// deployer is the rollout, which is asked only for images whose routes Nginx takes.
type deployer struct{ *rollout.Rollout }

var _ promote.Deployer = deployer{}

// Deploy implements promote.Deployer.
func (d deployer) Deploy(ctx context.Context, deployment promote.Deployment) error {
	if err := routable(deployment); err != nil {
		return fmt.Errorf("deploy to %s: %w", deployment.Target, err)
	}
	return d.Rollout.Deploy(ctx, deployment)
}

// routable returns why the agent would set the instances of the deployment aside, or nil.
func routable(d promote.Deployment) error {
	i := nginxsync.Instance{
		ID: rollout.InstanceID(d.Target, d.Generation, 1), Version: d.Version,
		Addr: netip.MustParseAddrPort("127.0.0.1:1"), // it gets one when it starts
	}
	return nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{d.Cluster: {i}},
	}.Validate()
}

// policy is how many instances a target has. They are replaced all at once.
func (p *Platform) policy(target promote.Target) rollout.Policy {
	return rollout.Policy{Count: p.config.Instances[target.Environment]}
}

// machine is the rollout.Instances of this machine.
type machine struct{ p *Platform }

var _ rollout.Instances = machine{}

// Start implements rollout.Instances.
func (m machine) Start(ctx context.Context, spec rollout.Spec) (rollout.Instance, error) {
	i, err := m.p.instances.Start(ctx, m.p.spec(spec))
	var failed *instance.StartError
	switch {
	case err == nil:
		return m.p.observed(i), nil
	case errors.As(err, &failed):
		err = &rollout.InstanceError{ID: spec.ID, Err: err, Lines: failed.Lines}
	case ctx.Err() == nil:
		err = &rollout.InstanceError{ID: spec.ID, Err: err}
	}
	return rollout.Instance{}, err
}

// Stop implements rollout.Instances.
func (m machine) Stop(ctx context.Context, id string) error {
	defer m.p.Events.Bump()
	err := m.p.instances.Stop(ctx, id)
	if errors.Is(err, instance.ErrNotFound) {
		return nil
	}
	return err
}

// List implements rollout.Instances.
func (m machine) List(ctx context.Context) ([]rollout.Instance, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var list []rollout.Instance
	for _, i := range m.p.instances.List() {
		list = append(list, m.p.observed(i))
	}
	return list, nil
}

// observed is an instance of this machine as the rollout sees it.
func (p *Platform) observed(i instance.Instance) rollout.Instance {
	generation, _ := strconv.ParseUint(i.Labels[labelGeneration], 10, 64)
	number, _ := strconv.ParseUint(i.Labels[labelNumber], 10, 64)
	repository, _, _ := strings.Cut(i.Image, "@")
	state := rollout.Down
	switch {
	case p.instances.Ready(i):
		state = rollout.Ready
	case i.Alive():
		state = rollout.Starting
	}
	return rollout.Instance{
		Spec: rollout.Spec{
			ID: i.ID, Target: targetOf(i), Generation: generation, Number: number,
			Image: rollout.Image{Version: i.Labels[labelVersion],
				Digest: promote.Digest(i.Labels[labelDigest]), Repository: repository},
		},
		Addr: i.Addr, State: state,
	}
}

func (p *Platform) spec(spec rollout.Spec) instance.Spec {
	return instance.Spec{
		ID:    spec.ID,
		Image: p.located(spec.Image.Repository) + "@" + spec.Image.Digest.String(),
		Env: []string{
			"DEPLOY_ENV=" + spec.Target.Environment,
			"CLUSTER_NAME=" + spec.Target.Cluster,
			"IMAGE_DIGEST=" + string(spec.Image.Digest),
		},
		Labels: map[string]string{
			labelCluster: spec.Target.Cluster, labelEnvironment: spec.Target.Environment,
			labelTask:    spec.Target.Task,
			labelVersion: spec.Image.Version, labelDigest: string(spec.Image.Digest),
			labelGeneration: strconv.FormatUint(spec.Generation, 10),
			labelNumber:     strconv.FormatUint(spec.Number, 10),
		},
	}
}

// active are the instances that are to serve, without those of a target whose record cannot be
// read.
func (p *Platform) active(ctx context.Context) (list []instance.Instance, err error) {
	serving, err := rollout.Serving(ctx, p.records, machine{p})
	if _, err = rollout.Unreadable(err); err != nil {
		return nil, err
	}
	for _, i := range p.instances.List() {
		if slices.ContainsFunc(serving, func(s rollout.Instance) bool { return s.ID == i.ID }) {
			list = append(list, i)
		}
	}
	return list, nil
}

// serving is the record of a target in the state of earlier versions: the highest generation that
// was asked for, and the one whose instances serve; 0 serves nothing.
type serving struct {
	Target promote.Target `json:"target"`
	Seen   uint64         `json:"seen"`
	Active uint64         `json:"active"`
}

// adopt writes a rollout's record for each target that an earlier version has left.
func (p *Platform) adopt(ctx context.Context) error {
	old, err := openRecords[serving](p.db, "serving")
	if err != nil {
		return err
	}
	list, err := old.list()
	if err != nil {
		return err
	}
	instances, err := machine{p}.List(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		_, err := p.records.Update(ctx, s.Target, func(rec rollout.Record) (rollout.Record, error) {
			if rec.Seen > 0 {
				return rec, nil
			}
			rec.Seen, rec.Revision, rec.Done = s.Seen, 1, true
			for _, i := range instances {
				if i.Target == s.Target && i.Generation == s.Active {
					rec.Image = i.Image
					rec.Serving = append(rec.Serving, i.ID)
				}
			}
			return rec, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
