package platform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/vipsource"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/vip"
)

// routes returns the instances that serve each cluster: the baseline environment's instances
// everywhere, and on the VIP of a task that task's instances for the clusters that the task is
// about. A task's cluster without an instance stays in, empty: it must not look like the baseline.
func routes(instances []instance.Instance, leases []vip.Lease, baseline string) nginxsync.Snapshot {
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	byTarget := map[promote.Target][]nginxsync.Instance{}
	for _, i := range instances {
		target := targetOf(i)
		entry := nginxsync.Instance{ID: i.ID, Addr: i.Addr, Version: i.Labels[labelVersion]}
		byTarget[target] = append(byTarget[target], entry)
		if target.Environment == baseline {
			s.Baseline[target.Cluster] = append(s.Baseline[target.Cluster], entry)
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
	return unleased(s, p.leases.Pools(), p.leases.List(vip.Query{States: []vip.State{vip.Cooling,
		vip.Quarantined, vip.Free}}))
}

// unleased adds what Nginx says on the addresses of the pools that no lease has: 410, and the task
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

// settle makes routes and instances follow the stored state: the routes follow the instances of the
// active generations and the live leases; when every worker of Nginx answers so, the other
// instances finish their requests and end.
func (p *Platform) settle(ctx context.Context) error {
	retired, revision, err := p.route(ctx)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, p.config.Patience,
		fmt.Errorf("after %s: look at Nginx and its error log: %w", p.config.Patience,
			ErrUnverified))
	defer cancel()
	if err := p.agent.WaitVerified(waiting, revision); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	p.drain(ctx, revision, retired)
	var group errgroup.Group
	for _, i := range retired {
		group.Go(func() error {
			if err := p.instances.Stop(ctx, i.ID); err != nil &&
				!errors.Is(err, instance.ErrNotFound) {
				return err
			}
			p.aside.remove(i.ID)
			p.Events.Bump()
			return nil
		})
	}
	return group.Wait()
}

// drain waits until Nginx has no request in flight to the instances, at most for Config.Drain.
func (p *Platform) drain(ctx context.Context, revision uint64, retired []instance.Instance) {
	if len(retired) == 0 {
		return
	}
	addrs := make([]netip.AddrPort, len(retired))
	for i, in := range retired {
		addrs[i] = in.Addr
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.Drain,
		fmt.Errorf("after %s", p.config.Drain))
	defer cancel()
	if err := p.agent.WaitDrained(ctx, revision, addrs); err != nil {
		p.config.Logger.Warn("instances end with requests in flight", "err", err)
	}
}

// route gives the agent the routes that are due and returns their revision, and the instances that
// may end when it is verified.
func (p *Platform) route(ctx context.Context) (retired []instance.Instance, revision uint64,
	err error) {
	p.routing.Lock()
	defer p.routing.Unlock()
	active, retired, err := p.split()
	if err != nil {
		return nil, 0, err
	}
	leases := p.leases.List(vip.Query{States: []vip.State{vip.Leased}})
	if err := p.bind(ctx, leases, active); err != nil {
		return nil, 0, err
	}
	next := p.unleased(routes(active, leases, p.baseline()))
	if next.Planned, err = p.planned(next); err != nil {
		return nil, 0, err
	}
	if !next.Equal(p.routed) {
		p.revision = p.source.Set(next)
		p.routed = next
		p.Events.Bump()
	}
	_, aside := next.Usable()
	return expendable(retired, aside), p.revision, nil
}

// expendable leaves out the retired instances of clusters with records that the agent sets aside:
// it may hold the retired ones in the place of those.
func expendable(retired []instance.Instance, aside []nginxsync.SetAside) []instance.Instance {
	return slices.DeleteFunc(retired, func(i instance.Instance) bool {
		return slices.ContainsFunc(aside, func(a nginxsync.SetAside) bool {
			return a.Cluster == i.Labels[labelCluster]
		})
	})
}

// split separates the instances that are to serve from the instances that are to end. One of a
// generation that is only being started is neither, nor is one that is being started in the place
// of another. It is called with routing held.
func (p *Platform) split() (active, retired []instance.Instance, err error) {
	// The instances last: those of a generation that serves are there, and end only when a later
	// one is routed.
	records, err := p.serving.list()
	if err != nil {
		return nil, nil, err
	}
	instances, roles := p.aside.with(p.instances.List)
	byTarget := map[promote.Target]serving{}
	for _, s := range records {
		byTarget[s.Target] = s
	}
	for _, i := range instances {
		s := byTarget[targetOf(i)]
		switch generation := generationOf(i); {
		case roles[i.ID] == replaced || generation != s.Active && generation < s.Seen:
			retired = append(retired, i)
		case generation == s.Active && roles[i.ID] == 0:
			active = append(active, i)
		}
	}
	return active, retired, nil
}

// active are the instances that are to serve.
func (p *Platform) active() ([]instance.Instance, error) {
	p.routing.Lock()
	defer p.routing.Unlock()
	active, _, err := p.split()
	return active, err
}

// planned are the changes of the routes that the records explain: a target that was removed, a
// lease that has ended, a deployment that has replaced all instances of a cluster. Whatever else
// goes away may be a store that has lost something, and the agent holds it. It is called with
// routing held.
func (p *Platform) planned(next nginxsync.Snapshot) (intents []nginxsync.Intent, err error) {
	records, err := p.serving.list()
	for _, s := range records {
		if s.Target.Environment == p.baseline() && s.Active == 0 {
			intents = append(intents, nginxsync.Intent{Cluster: s.Target.Cluster, By: "removed"})
		}
	}
	for _, lease := range p.leases.List(vip.Query{States: []vip.State{vip.Draining, vip.Cooling,
		vip.Quarantined, vip.Free}}) {
		intents = append(intents, nginxsync.Intent{VIP: lease.Addr, By: "lease ended"})
	}
	for _, change := range nginxsync.Diff(p.routed, next) {
		if !slices.ContainsFunc(change.After, func(i nginxsync.Instance) bool {
			return slices.ContainsFunc(change.Before, func(b nginxsync.Instance) bool {
				return b.ID == i.ID
			})
		}) && len(change.After) > 0 {
			intents = append(intents, nginxsync.Intent{VIP: change.VIP, Cluster: change.Cluster,
				By: "deployed"})
		}
	}
	return intents, err
}

// bind writes into each lease which instances are behind its VIP.
func (p *Platform) bind(ctx context.Context, leases []vip.Lease, active []instance.Instance) error {
	var errs []error
	for _, lease := range leases {
		var behind []vip.Instance
		for _, i := range active {
			if _, overridden := lease.Owner.Overrides[i.Labels[labelCluster]]; overridden &&
				i.Labels[labelTask] == lease.Owner.Task {
				behind = append(behind, vip.Instance{
					ID: i.ID, Addr: i.Addr, Cluster: i.Labels[labelCluster],
					Version: i.Labels[labelVersion], Digest: i.Labels[labelDigest],
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
