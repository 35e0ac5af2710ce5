package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/vip"
)

// Hooks is what a deploy platform calls when it has deployed a version for a test task, and when the task is over. It is
// safe for concurrent use.
type Hooks struct {
	leases *vip.Allocator
	source *nginxsync.StaticSource
	agent  *nginxsync.Agent

	mu     sync.Mutex
	routes nginxsync.Snapshot
}

// NewHooks leases addresses out of pool and routes them in the Nginx behind driver. The baseline is what serves
// everything that no task overrides. Run its agent and its leases.
func NewHooks(ctx context.Context, pool vip.Pool, store vip.Store, driver nginxsync.Driver, stateFile string, baseline map[string][]nginxsync.Instance) (*Hooks, error) {
	leases, err := vip.Open(ctx, vip.Config{Store: store, Pools: []vip.Pool{pool}})
	if err != nil {
		return nil, err
	}
	routes := nginxsync.Snapshot{Baseline: baseline, Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	for _, lease := range leases.Locate(vip.Query{}) { // of tasks from before a restart
		routes.Overlays[lease.Addr] = overlay(lease)
	}
	source := nginxsync.NewStaticSource(routes)
	agent, err := nginxsync.OpenAgent(ctx, nginxsync.Config{Source: source, Driver: driver, StateFile: stateFile})
	return &Hooks{leases: leases, source: source, agent: agent, routes: routes}, err
}

// Deployed gives the task a VIP on which the instances serve the cluster. It returns when every worker of Nginx answers so.
func (h *Hooks) Deployed(ctx context.Context, task, cluster, version string, instances ...netip.AddrPort) (vip.Lease, error) {
	lease, err := h.leases.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: task, Overrides: map[string]string{cluster: version}}})
	if err != nil {
		return lease, err
	}
	var bound []vip.Instance
	for _, addr := range instances {
		bound = append(bound, vip.Instance{ID: addr.String(), Addr: addr, Cluster: cluster, Version: version})
	}
	if lease, err = h.leases.Bind(ctx, lease.ID, lease.Generation, bound); err != nil {
		return lease, err
	}
	return lease, h.route(ctx, lease.Addr, overlay(lease))
}

// overlay is who serves on the VIP of a lease. A cluster of the task without an instance stays in it, empty: it must not
// look like the baseline.
func overlay(lease vip.Lease) map[string][]nginxsync.Instance {
	routed := map[string][]nginxsync.Instance{}
	for cluster := range lease.Owner.Overrides {
		routed[cluster] = nil
	}
	for _, i := range lease.Binding.Instances {
		routed[i.Cluster] = append(routed[i.Cluster], nginxsync.Instance{ID: i.ID, Addr: i.Addr, Version: i.Version})
	}
	return routed
}

// Finished lets the task's VIP answer the baseline again and gives it back.
func (h *Hooks) Finished(ctx context.Context, task string) error {
	leases := h.leases.Locate(vip.Query{Task: task})
	if len(leases) == 0 {
		return fmt.Errorf("task %s: %w", task, vip.ErrNotFound)
	}
	err := h.route(ctx, leases[0].Addr, nil)
	_, releaseErr := h.leases.Release(ctx, leases[0].ID, leases[0].Generation, "task finished")
	return errors.Join(err, releaseErr)
}

// route puts the overlay of one VIP into force; nil takes it away.
func (h *Hooks) route(ctx context.Context, addr netip.Addr, overlay map[string][]nginxsync.Instance) error {
	h.mu.Lock()
	next := nginxsync.Snapshot{Baseline: h.routes.Baseline, Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	for other, clusters := range h.routes.Overlays {
		next.Overlays[other] = clusters
	}
	if delete(next.Overlays, addr); overlay != nil {
		next.Overlays[addr] = overlay
	}
	h.routes = next
	revision := h.source.Set(next)
	h.mu.Unlock()
	return h.agent.WaitVerified(ctx, revision)
}
