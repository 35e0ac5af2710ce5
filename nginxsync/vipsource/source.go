package vipsource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/vip"
)

// Leases is the part of a vip.Allocator that a Source reads.
type Leases interface {
	List(q vip.Query) []vip.Lease
	Revision() uint64
	Watch(ctx context.Context, after uint64) ([]vip.Event, error)
}

// Config configures a Source. Leases is required.
type Config struct {
	// Leases is the allocator whose Run works.
	Leases Leases
	// Overlay returns the clusters that a lease overrides and their instances. The default is
	// Overlay. It must not block, and must return the same for the same lease.
	Overlay func(vip.Lease) map[string][]nginxsync.Instance
	// Branches returns the branches of a lease, as nginxsync.Scope has them: what the lease does
	// not override is served by the first that names it, before the baseline. Another source,
	// merged with this one, supplies their instances. It must not block, and must return the same
	// for the same lease. The default is none.
	Branches func(vip.Lease) []string
	// Pools waits until the pools have another revision than after, and returns them: an address of
	// theirs without a lease is answered with 410. It returns at once for an after of 0, and with
	// the cause of ctx when that ends. The default is the method WatchPools of Leases, which a
	// vip.Allocator has; without one no address is answered with 410 for being in a pool.
	Pools func(ctx context.Context, after uint64) ([]vip.Pool, uint64, error)
	// Tasks has the snapshot name the VIP of each task, for requests that name their task: see
	// nginxsync.Snapshot.Tasks. Of several VIPs that a task has, such as those of a dual-stack
	// lease, it is the first, those of IPv4 before those of IPv6.
	Tasks bool
	// KeepEnded is how many ended leases are known, the latest ones: on their addresses the
	// answer names the task. The default is 1000.
	KeepEnded int
	// KeepBaseline has the baseline answer on addresses without a lease, in the place of 410.
	KeepBaseline bool
}

// Source is an nginxsync.Source of leases. It is safe for concurrent use.
type Source struct {
	cfg Config

	mu       sync.Mutex
	known    bool                            // overlays are those of the allocator's revision seen
	seen     uint64                          // the last event that overlays has
	plans    map[netip.Addr]nginxsync.Intent // by the address of a record
	overlays map[netip.Addr]map[string][]nginxsync.Instance
	scopes   map[netip.Addr]nginxsync.Scope
	tasks    map[netip.Addr]string    // of live leases, with Config.Tasks
	ended    map[netip.Addr]time.Time // when, by the address, of the scopes that have ended
	pools    []nginxsync.Range
	poolsAt  uint64 // the revision of pools; 0 before the first
	revision uint64
	snapshot nginxsync.Snapshot // of revision; not changed any more
}

var _ nginxsync.Source = (*Source)(nil)

// New makes a source. A configuration that is not valid is an error with all its problems and
// nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Source, error) {
	p := check.Problems{Package: "vipsource", Sentinel: nginxsync.ErrInvalid}
	p.Require("Leases", cfg.Leases != nil)
	check.Number(&p, "KeepEnded", &cfg.KeepEnded, 1000)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if pools, ok := cfg.Leases.(poolWatcher); ok && cfg.Pools == nil {
		cfg.Pools = pools.WatchPools
	}
	if cfg.KeepBaseline {
		cfg.Pools = nil
	}
	if cfg.Overlay == nil {
		cfg.Overlay = Overlay
	}
	return &Source{cfg: cfg}, nil
}

type poolWatcher interface {
	WatchPools(ctx context.Context, after uint64) ([]vip.Pool, uint64, error)
}

// Overlay is the overlay of a lease: every cluster of Owner.Overrides, with the instances of that
// cluster that are bound.
func Overlay(lease vip.Lease) map[string][]nginxsync.Instance {
	routed := make(map[string][]nginxsync.Instance, len(lease.Owner.Overrides))
	for cluster := range lease.Owner.Overrides {
		routed[cluster] = []nginxsync.Instance{}
	}
	for _, i := range lease.Binding.Instances {
		routed[i.Cluster] = append(routed[i.Cluster], nginxsync.Instance{ID: i.ID, Addr: i.Addr,
			Version: i.Version})
	}
	return routed
}

// Watch implements nginxsync.Source.
func (s *Source) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	if err := s.firstPools(ctx); err != nil {
		return nginxsync.Snapshot{}, 0, err
	}
	for {
		if ctx.Err() != nil {
			return nginxsync.Snapshot{}, 0, context.Cause(ctx)
		}
		seen, poolsAt, snapshot, revision := s.current()
		if revision != after {
			return snapshot, revision, nil
		}
		if err := s.wait(ctx, seen, poolsAt); err != nil && ctx.Err() == nil {
			return nginxsync.Snapshot{}, 0, err
		}
	}
}

// wait takes the next events of the leases, or the next pools, whichever come first.
func (s *Source) wait(ctx context.Context, seen, poolsAt uint64) error {
	own, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	var failed error // of the pools
	if s.cfg.Pools != nil {
		watching.Go(func() {
			defer stop()
			pools, revision, err := s.cfg.Pools(own, poolsAt)
			switch {
			case err == nil:
				s.takePools(pools, revision)
			case own.Err() == nil:
				failed = fmt.Errorf("pools: %w", err)
			}
		})
	}
	events, err := s.cfg.Leases.Watch(own, seen)
	ended := own.Err() != nil
	stop()
	watching.Wait()
	switch {
	case err == nil:
		s.apply(events)
	case errors.Is(err, vip.ErrCompacted):
		s.forget(seen)
	case !ended:
		return fmt.Errorf("leases: %w", err)
	}
	return failed
}

// firstPools reads the pools, unless they are known.
func (s *Source) firstPools(ctx context.Context) error {
	s.mu.Lock()
	known := s.cfg.Pools == nil || s.poolsAt != 0
	s.mu.Unlock()
	if known {
		return nil
	}
	pools, revision, err := s.cfg.Pools(ctx, 0)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("pools: %w", err)
	}
	s.takePools(pools, revision)
	return nil
}

// takePools makes a revision of pools that are newer than those known.
func (s *Source) takePools(pools []vip.Pool, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision <= s.poolsAt {
		return // another watcher was first
	}
	before := s.pools
	s.pools, s.poolsAt = Pools(pools), revision
	if s.known && !slices.Equal(before, s.pools) {
		s.publish()
	}
}

// current returns the state, which it reads from the allocator when it is not known.
func (s *Source) current() (seen, poolsAt uint64, snapshot nginxsync.Snapshot, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known {
		s.seen = s.cfg.Leases.Revision() // events after it may be in the list already
		s.load(s.cfg.Leases.List(vip.Query{States: listed}))
		s.publish()
	}
	return s.seen, s.poolsAt, s.snapshot, s.revision
}

// listed are the states of the addresses that the routes say something of.
var listed = []vip.State{vip.Leased, vip.Draining, vip.Cooling, vip.Quarantined, vip.Free}

// load makes the state that of a list. The caller holds mu.
func (s *Source) load(leases []vip.Lease) {
	s.overlays = map[netip.Addr]map[string][]nginxsync.Instance{}
	s.plans = map[netip.Addr]nginxsync.Intent{}
	s.scopes, s.ended = map[netip.Addr]nginxsync.Scope{}, map[netip.Addr]time.Time{}
	s.tasks = map[netip.Addr]string{}
	for _, l := range leases {
		s.plans[l.Addr] = plan(l)
		if l.State == vip.Leased || l.State == vip.Draining {
			s.overlays[l.Addr] = s.cfg.Overlay(l)
		}
		s.note(l)
		s.hold(l)
	}
	s.known = true
}

// publish makes a revision of the overlays. The caller holds mu.
func (s *Source) publish() {
	s.revision++
	s.snapshot = nginxsync.Snapshot{Overlays: maps.Clone(s.overlays),
		Scopes: maps.Clone(s.scopes), Pools: s.pools,
		Planned: slices.Collect(maps.Values(s.plans)), Tasks: vipsOf(s.tasks)}
}

// plan has the agent believe a loss that a record explains: a lease has ended, or was bound to
// fewer instances. An overlay that vanishes without a record is held.
func plan(l vip.Lease) nginxsync.Intent {
	return nginxsync.Intent{VIP: l.Addr, By: fmt.Sprintf("lease %s, bound %s, %s", l.ID,
		l.Binding.Since.Format(time.RFC3339Nano), l.State)}
}

// forget has the leases read again, unless another watcher has gone on since.
func (s *Source) forget(seen uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == seen {
		s.known = false
	}
}

// apply takes the events that are newer than the overlays.
func (s *Source) apply(events []vip.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for _, e := range events {
		if !s.known || e.Revision <= s.seen {
			continue
		}
		s.seen = e.Revision
		changed = s.set(e.Lease()) || changed
	}
	if changed {
		s.publish()
	}
}

// set takes the state of one lease, and reports whether what the routes say of it has changed. An
// event about an address that another lease has by now does not come: events of an address are in
// order.
func (s *Source) set(l vip.Lease) (changed bool) {
	before, had := s.overlays[l.Addr]
	defer func(held bool) { changed = held || changed }(s.hold(l))
	s.plans[l.Addr] = plan(l)
	if l.State != vip.Leased && l.State != vip.Draining {
		delete(s.overlays, l.Addr)
		return s.note(l) || had
	}
	next := s.cfg.Overlay(l)
	defer func() { changed = s.note(l) || changed }()
	if had && (nginxsync.Snapshot{Baseline: before}).Equal(nginxsync.Snapshot{Baseline: next}) {
		return false
	}
	s.overlays[l.Addr] = next
	return true
}
