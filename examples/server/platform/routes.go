package platform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/vip"
)

// routes is who serves what: the baseline environment's instances everywhere, and on the VIP of a task that task's
// instances for the clusters that the task is about. A task's cluster without an instance stays in, empty: it must not
// look like the baseline.
func routes(instances []instance.Instance, leases []vip.Lease, baseline string) nginxsync.Snapshot {
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{}, Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
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
			overlay[cluster] = byTarget[promote.Target{Cluster: cluster, Environment: testEnvironment, Task: lease.Owner.Task}]
		}
		s.Overlays[lease.Addr] = overlay
	}
	return s
}

// settle brings the world in line with what is written down: the routes follow the instances of the active generations
// and the live leases; when every worker of Nginx answers so, the other instances end.
func (p *Platform) settle(ctx context.Context) error {
	p.settleMu.Lock()
	defer p.settleMu.Unlock()
	active, retired, err := p.split()
	if err != nil {
		return err
	}
	leases := p.leases.List(vip.Query{States: []vip.State{vip.Leased}})
	if err := p.bind(ctx, leases, active); err != nil {
		return err
	}
	next := routes(active, leases, p.baseline())
	next.Planned = p.emptied(next)
	if !next.Equal(p.routed) {
		p.revision = p.source.Set(next)
		p.routed = next
		p.Events.Bump()
	}
	if err := p.agent.WaitVerified(ctx, p.revision); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, i := range retired {
		if stopErr := p.instances.Stop(ctx, i.ID); stopErr != nil && !errors.Is(stopErr, instance.ErrNotFound) {
			err = errors.Join(err, stopErr)
		}
		p.Events.Bump()
	}
	return err
}

// split tells the instances that are to serve from those that are to end. One of a generation that is only being
// started is neither.
func (p *Platform) split() (active, retired []instance.Instance, err error) {
	records, err := p.serving.list()
	if err != nil {
		return nil, nil, err
	}
	byTarget := map[promote.Target]serving{}
	for _, s := range records {
		byTarget[s.Target] = s
	}
	for _, i := range p.instances.List() {
		s := byTarget[targetOf(i)]
		switch generation := generationOf(i); {
		case p.replaced[i.ID]:
			retired = append(retired, i)
		case generation == s.Active:
			active = append(active, i)
		case generation < s.Seen:
			retired = append(retired, i)
		}
	}
	return active, retired, nil
}

// emptied are the clusters that lose their last baseline instance on purpose: their target was removed.
func (p *Platform) emptied(next nginxsync.Snapshot) []string {
	var clusters []string
	for cluster := range p.routed.Baseline {
		if len(next.Baseline[cluster]) > 0 {
			continue
		}
		target := promote.Target{Cluster: cluster, Environment: p.baseline()}
		if s, found, err := p.serving.get(key(target)); err == nil && found && s.Active == 0 {
			clusters = append(clusters, cluster)
		}
	}
	slices.Sort(clusters)
	return clusters
}

// bind writes into each lease which instances are behind its VIP.
func (p *Platform) bind(ctx context.Context, leases []vip.Lease, active []instance.Instance) error {
	var errs []error
	for _, lease := range leases {
		var behind []vip.Instance
		for _, i := range active {
			if _, overridden := lease.Owner.Overrides[i.Labels[labelCluster]]; overridden && i.Labels[labelTask] == lease.Owner.Task {
				behind = append(behind, vip.Instance{
					ID: i.ID, Addr: i.Addr, Cluster: i.Labels[labelCluster], Version: i.Labels[labelVersion], Digest: i.Labels[labelDigest],
				})
			}
		}
		if slices.Equal(behind, lease.Binding.Instances) {
			continue
		}
		if _, err := p.leases.Bind(ctx, lease.ID, lease.Generation, behind); err != nil && !errors.Is(err, vip.ErrFenced) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
