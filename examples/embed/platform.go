package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/vip"
)

// Config configures Hooks. Pool, Store and Driver are required.
type Config struct {
	Pool   vip.Pool         // of the VIPs
	Store  vip.Store        // keeps the leases
	Driver nginxsync.Driver // of the Nginx that serves the VIPs
	// StateFile is where the routes are kept that Nginx has accepted. The default keeps none.
	StateFile string
	// Baseline serves everything that no task overrides. The default is no instance at all.
	Baseline map[string][]nginxsync.Instance
	// TTL is how long a VIP outlives this program: while Run works, it renews the leases of all
	// tasks. The default is 24 h.
	TTL time.Duration
}

// Hooks has the methods that a deploy platform calls when it has deployed a version for a test
// task, and when the task is over. It is safe for concurrent use; its methods work while Run does.
type Hooks struct {
	cfg    Config
	every  time.Duration // the time between two renewals
	leases *vip.Allocator
	source *nginxsync.StaticSource
	agent  *nginxsync.Agent

	routing sync.Mutex // held from the look at the leases until source has their routes
}

// Open finds the leases of an earlier run. Call Run next.
func Open(ctx context.Context, cfg Config) (*Hooks, error) {
	if cfg.TTL < 0 {
		return nil, fmt.Errorf("embed: Config.TTL: %s: want 0 for the default, or more", cfg.TTL)
	}
	cfg.TTL = cmp.Or(cfg.TTL, 24*time.Hour)
	leases, err := vip.Open(ctx, vip.Config{Store: cfg.Store, Pools: []vip.Pool{cfg.Pool},
		DefaultTTL: cfg.TTL})
	if err != nil {
		return nil, err
	}
	h := &Hooks{cfg: cfg, every: max(cfg.TTL/4, time.Millisecond), leases: leases}
	h.source = nginxsync.NewStaticSource(h.snapshot())
	h.agent, err = nginxsync.OpenAgent(ctx, nginxsync.Config{Source: h.source, Driver: cfg.Driver,
		StateFile: cfg.StateFile})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// Run keeps the routes in Nginx and the leases up to date until ctx is done, and returns ctx's
// cause.
func (h *Hooks) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{
		h.agent.Run, h.leases.Run, h.follow, h.renew} {
		running.Go(func() { fail(run(ctx)) })
	}
	running.Wait()
	return context.Cause(ctx)
}

// follow updates the routes after each change of a lease: a VIP whose lease has ended answers the
// baseline.
func (h *Hooks) follow(ctx context.Context) error {
	for {
		seen := h.leases.Revision()
		h.route()
		_, err := h.leases.Watch(ctx, seen)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, vip.ErrCompacted) {
			return err
		}
	}
}

// renew lets the leases of all tasks live on. One that cannot be renewed is tried again, until it
// ends.
func (h *Hooks) renew(ctx context.Context) error {
	tick := time.NewTicker(h.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		for _, lease := range h.leases.List(vip.Query{States: []vip.State{vip.Leased,
			vip.Draining}}) {
			_, _ = h.leases.Renew(ctx, lease.ID, h.cfg.TTL)
		}
	}
}

// Deployed gives the task a VIP on which the instances serve the cluster. It returns when every
// worker of Nginx answers so. After an error the VIP is as it was before: given back, or with the
// instances that it had.
func (h *Hooks) Deployed(ctx context.Context, task, cluster, version string,
	instances ...netip.AddrPort) (vip.Lease, error) {
	before, err := h.leases.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: task,
		Overrides: map[string]string{cluster: version}}})
	if err != nil {
		return before, err
	}
	var bound []vip.Instance
	for _, addr := range instances {
		bound = append(bound, vip.Instance{ID: instanceID(addr), Addr: addr, Cluster: cluster,
			Version: version})
	}
	lease, err := h.leases.Bind(ctx, before.ID, bound)
	if err == nil { // the agent sets invalid records aside, and the VIP would answer 503
		err = nginxsync.Snapshot{
			Overlays: map[netip.Addr]map[string][]nginxsync.Instance{lease.Addr: overlay(lease)},
		}.Validate()
	}
	if err == nil {
		err = h.agent.WaitVerified(ctx, h.route())
	}
	if err != nil {
		return lease, errors.Join(err, h.undo(context.WithoutCancel(ctx), before))
	}
	return lease, nil
}

// instanceID is the address as the id of an instance, which has no brackets and begins with a
// letter or digit.
func instanceID(addr netip.AddrPort) string {
	return fmt.Sprintf("%s:%d", addr.Addr().WithZone("").StringExpanded(), addr.Port())
}

// undo restores the VIP of a lease to its state before it was bound.
func (h *Hooks) undo(ctx context.Context, before vip.Lease) (err error) {
	if before.Binding.Since.IsZero() {
		_, err = h.leases.Release(ctx, before.ID, "the deployment did not "+
			"succeed")
	} else {
		_, err = h.leases.Bind(ctx, before.ID, before.Binding.Instances)
	}
	h.route()
	return err
}

// Finished gives the task's VIP back. It returns when every worker of Nginx answers the baseline
// there.
func (h *Hooks) Finished(ctx context.Context, task string) error {
	leases := h.leases.List(vip.Query{Task: task, States: []vip.State{vip.Leased, vip.Draining}})
	if len(leases) == 0 {
		return fmt.Errorf("task %s: %w", task, vip.ErrNotFound)
	}
	_, err := h.leases.Release(ctx, leases[0].ID, "task finished")
	return errors.Join(err, h.agent.WaitVerified(ctx, h.route()))
}

// route sets the routes of the leases, and returns the revision to wait for.
func (h *Hooks) route() uint64 {
	h.routing.Lock()
	defer h.routing.Unlock()
	return h.source.Set(h.snapshot())
}

func (h *Hooks) snapshot() nginxsync.Snapshot {
	s := nginxsync.Snapshot{Baseline: h.cfg.Baseline,
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	for _, lease := range h.leases.List(vip.Query{States: []vip.State{vip.Leased, vip.Draining}}) {
		s.Overlays[lease.Addr] = overlay(lease)
	}
	// The records are the plan: where one says that a lease has ended, its overlay may go, and where
	// one has fewer instances, so may the overlay. What no record explains, the agent holds.
	for _, lease := range h.leases.List(vip.Query{States: []vip.State{vip.Leased, vip.Draining,
		vip.Cooling, vip.Quarantined, vip.Free}}) {
		s.Planned = append(s.Planned, nginxsync.Intent{VIP: lease.Addr, By: "lease"})
	}
	return s
}

// overlay returns the instances that serve on the VIP of a lease. A cluster of the task without an
// instance stays in it, empty: it must not look like the baseline.
func overlay(lease vip.Lease) map[string][]nginxsync.Instance {
	routed := map[string][]nginxsync.Instance{}
	for cluster := range lease.Owner.Overrides {
		routed[cluster] = nil
	}
	for _, i := range lease.Binding.Instances {
		routed[i.Cluster] = append(routed[i.Cluster], nginxsync.Instance{ID: i.ID, Addr: i.Addr,
			Version: i.Version})
	}
	return routed
}
