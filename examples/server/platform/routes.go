package platform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/vipsource"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/promote/rollout/nginxroutes"
	"github.com/sluice-deploy/sluice/vip"
)

// routes returns the instances that serve each cluster: the baseline environment's instances
// everywhere, and on the VIP of a task that task's instances for the clusters that the task is
// about. A task's cluster without an instance stays in, empty: it must not look like the baseline.
func routes(serving []rollout.Instance, leases []vip.Lease, baseline string) nginxsync.Snapshot {
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	byTarget := map[promote.Target][]nginxsync.Instance{}
	for _, i := range serving {
		entry := nginxroutes.Instance(i)
		byTarget[i.Target] = append(byTarget[i.Target], entry)
		if i.Target.Environment == baseline {
			s.Baseline[i.Target.Cluster] = append(s.Baseline[i.Target.Cluster], entry)
		}
	}
	for _, lease := range leases {
		overlay := map[string][]nginxsync.Instance{}
		for cluster := range lease.Owner.Overrides {
			overlay[cluster] = byTarget[promote.Target{Cluster: cluster,
				Environment: testEnvironment, Task: lease.Owner.Task}]
		}
		s.Overlays[lease.Addr] = overlay
	}
	return s
}

func (p *Platform) unleased(s nginxsync.Snapshot) nginxsync.Snapshot {
	if p.config.KeepBaseline {
		return s
	}
	return unleased(s, p.leases.Pools(), p.leases.List(vip.Query{States: []vip.State{vip.Cooling,
		vip.Quarantined, vip.Free}}))
}

// unleased adds the answer of Nginx on addresses of the pools without a lease: 410, and the task
// that had the address last.
func unleased(s nginxsync.Snapshot, pools []vip.Pool, ended []vip.Lease) nginxsync.Snapshot {
	s.Pools = vipsource.Pools(pools)
	s.Scopes = map[netip.Addr]nginxsync.Scope{}
	ended = slices.DeleteFunc(ended, func(l vip.Lease) bool { return l.Ended.IsZero() })
	slices.SortFunc(ended, func(a, b vip.Lease) int { return b.Ended.Compare(a.Ended) })
	for _, lease := range ended[:min(len(ended), mostEnded)] {
		s.Scopes[lease.Addr] = nginxsync.Scope{Ended: vipsource.Ended(lease)}
	}
	return s
}

// mostEnded is how many ended leases Nginx knows.
const mostEnded = 1000

// snapshot turns the instances that are to serve into the routes of Nginx, beside the live leases,
// whose bindings it writes.
func (p *Platform) snapshot(ctx context.Context, serving []rollout.Instance) (nginxsync.Snapshot,
	error) {
	leases := p.leases.List(vip.Query{States: []vip.State{vip.Leased}})
	if err := p.bind(ctx, leases, serving); err != nil {
		return nginxsync.Snapshot{}, err
	}
	next := p.unleased(routes(serving, leases, p.baseline()))
	planned, err := p.planned(ctx)
	next.Planned = planned
	return next, err
}

// settle makes the routes follow the instances that serve and the live leases, and waits until
// every worker of Nginx answers so.
func (p *Platform) settle(ctx context.Context) error {
	return patient{p}.wait(ctx, p.routes.Refresh)
}

// patient are the routes of the rollout, for which a change waits at most for Config.Patience.
type patient struct{ p *Platform }

var _ rollout.Routes = patient{}

func (r patient) wait(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.p.config.Patience,
		fmt.Errorf("after %s: look at Nginx and its error log: %w", r.p.config.Patience,
			ErrUnverified))
	defer cancel()
	before := r.p.routes.Revision()
	err := f(ctx)
	if r.p.routes.Revision() != before {
		r.p.Events.Bump()
	}
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	return nil
}

// Apply implements rollout.Routes.
func (r patient) Apply(ctx context.Context, a rollout.Assignment) error {
	return r.wait(ctx, func(ctx context.Context) error { return r.p.routes.Apply(ctx, a) })
}

// Drain implements rollout.Routes.
func (r patient) Drain(ctx context.Context, instances []rollout.Instance) error {
	return r.p.routes.Drain(ctx, instances)
}

// planned are the changes of the routes that the records explain, beside those of a rollout: a
// target that was removed, a lease that has ended. Any other loss may come from a store that has
// lost something, and the agent holds it.
func (p *Platform) planned(ctx context.Context) (intents []nginxsync.Intent, err error) {
	records, err := p.records.List(ctx)
	if _, err = rollout.Unreadable(err); err != nil {
		return nil, err
	}
	for _, r := range records {
		if r.Target.Environment == p.baseline() && len(r.Serving) == 0 {
			intents = append(intents, nginxsync.Intent{Cluster: r.Target.Cluster, By: "removed"})
		}
	}
	for _, lease := range p.leases.List(vip.Query{States: []vip.State{vip.Draining, vip.Cooling,
		vip.Quarantined, vip.Free}}) {
		intents = append(intents, nginxsync.Intent{VIP: lease.Addr, By: "lease ended"})
	}
	return intents, err
}

// bind writes into each lease which instances are behind its VIP.
func (p *Platform) bind(ctx context.Context, leases []vip.Lease, serving []rollout.Instance) error {
	var errs []error
	for _, lease := range leases {
		var behind []vip.Instance
		for _, i := range serving {
			if _, overridden := lease.Owner.Overrides[i.Target.Cluster]; overridden &&
				i.Target.Task == lease.Owner.Task {
				behind = append(behind, vip.Instance{
					ID: i.ID, Addr: i.Addr, Cluster: i.Target.Cluster,
					Version: i.Image.Version, Digest: string(i.Image.Digest),
				})
			}
		}
		if slices.Equal(behind, lease.Binding.Instances) {
			continue
		}
		if _, err := p.leases.Bind(ctx, lease.ID, behind); err != nil &&
			!errors.Is(err, vip.ErrFenced) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
