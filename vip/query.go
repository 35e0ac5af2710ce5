package vip

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Stats counts the addresses of a pool by state: the states add up to Size.
type Stats struct {
	Pool        string `json:"pool"`
	Size        uint64 `json:"size"` // 2^64 - 1 stands for that many and more
	Free        uint64 `json:"free"`
	Leased      uint64 `json:"leased"`
	Draining    uint64 `json:"draining"`
	Cooling     uint64 `json:"cooling"`
	Quarantined uint64 `json:"quarantined"`
	Reserved    uint64 `json:"reserved"`
	// hands out nothing
	Disabled bool `json:"disabled"`
	// not configured any more; Size is the number of addresses left in it
	Gone bool `json:"gone,omitempty"`
}

// Stats counts every pool, in the order of configuration, former pools that still have leases last,
// as they all were at one moment. It holds up other calls only for the pools that have changed
// since it was called last, a few hundred at a time.
func (a *Allocator) Stats() []Stats {
	s := &a.summary
	s.mu.Lock()
	defer s.mu.Unlock()
	for more := true; more; {
		more = a.countSome(s)
	}
	all := make([]Stats, 0, len(s.pools))
	for _, p := range s.pools {
		if !p.Gone || p.Size > 0 {
			all = append(all, p)
		}
	}
	return all
}

// summary is the copy of the counts of the pools that Stats reads. It has a lock of its own, which
// is taken before the allocator's.
type summary struct {
	mu        sync.Mutex
	numbering uint64  // of the index, at the time of the copy
	pools     []Stats // by pool.number
}

// countSome brings a few hundred pools of s up to date, and reports whether there are more. If not,
// s is as the pools were at that moment.
func (a *Allocator) countSome(s *summary) (more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	x := a.x
	if s.numbering != x.numbering {
		s.numbering, s.pools = x.numbering, nil // renumber has put all pools into uncounted
	}
	s.pools = append(s.pools, make([]Stats, len(x.pools)-len(s.pools))...)
	n := 0
	for p := range x.flags.uncounted.in(x.pools) {
		if n++; n > a.poolsAtOnce {
			return true
		}
		x.flags.uncounted.remove(p.number)
		s.pools[p.number] = p.stats()
	}
	return false
}

func (p *pool) stats() Stats {
	s := Stats{
		Pool: p.Name, Size: p.size, Free: p.free(), Leased: p.counts[Leased],
		Draining: p.counts[Draining], Cooling: p.counts[Cooling],
		Quarantined: p.counts[Quarantined], Reserved: p.counts[Reserved],
		Disabled: p.Disabled || p.gone, Gone: p.gone,
	}
	if p.gone {
		s.Size = s.Leased + s.Draining + s.Cooling + s.Quarantined
	}
	return s
}

// Pools returns the pools that are configured, in their order. The caller does not change them.
func (a *Allocator) Pools() []Pool {
	a.mu.Lock()
	listed := a.listPools()
	a.mu.Unlock()
	return slices.Clone(listed)
}

// listPools is Pools, called with mu held. The result is not changed.
func (a *Allocator) listPools() []Pool {
	if a.listed == nil {
		for _, p := range a.x.pools {
			if !p.gone {
				a.listed = append(a.listed, *p.public.Load())
			}
		}
	}
	return a.listed
}

// WatchPools waits until the pools have another revision than after, and returns them as Pools
// does, with it: SetPools has made it. An after of 0 returns them at once. Revisions grow, and do
// not survive the allocator.
func (a *Allocator) WatchPools(ctx context.Context, after uint64) ([]Pool, uint64, error) {
	for {
		if ctx.Err() != nil {
			return nil, 0, fmt.Errorf("watch pools after %d: %w", after, context.Cause(ctx))
		}
		a.mu.Lock()
		revision := a.poolsRevision
		if revision != after {
			listed := a.listPools()
			a.mu.Unlock()
			return slices.Clone(listed), revision, nil
		}
		if a.poolsAhead == nil {
			a.poolsAhead = make(chan struct{})
		}
		ahead := a.poolsAhead
		a.mu.Unlock()
		select {
		case <-ahead:
		case <-ctx.Done():
		}
	}
}

// Get returns the lease id, live or the last of its address. A lease that never was is ErrNotFound;
// one whose address another had since is ErrFenced.
func (a *Allocator) Get(ctx context.Context, id string) (Lease, error) {
	named, err := parseLeaseID(id)
	if err != nil {
		return Lease{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	e, err := a.find(ctx, named, false)
	if err != nil {
		return Lease{}, fmt.Errorf("lease %s: %w", id, err)
	}
	return e.shown(), nil
}

// List returns the leases that match q, by address, as they all were at one moment. It finds the
// task on a VIP, the VIP of a task, the VIP that leads to a container; none is no error. It does
// not hold up other calls while it reads. A page of a long list is q.Limit leases; for the next
// page set q.After to the address of the last lease, until a page is shorter. Each page is of a
// moment of its own: a lease that exists from the first page to the last is in exactly one.
func (a *Allocator) List(q Query) []Lease {
	q.Addr, q.After = q.Addr.Unmap(), q.After.Unmap()
	q.InstanceAddr = unmapped(q.InstanceAddr)
	if q.States == nil {
		q.States = []State{Leased, Draining, Cooling, Quarantined, Reserved}
	}
	var found []*view
	var exact bool
	switch {
	case q.Addr.IsValid():
		found = a.viewOf(&q)
	case q.Task != "":
		found = a.viewsOf(&q)
	default:
		found, exact = a.candidates(&q)
	}
	leases := make([]Lease, 0, len(found))
	for _, v := range found {
		l := v.last()
		if exact || q.finds(&l) {
			l.show(v.addr, v.state, v.pool)
			leases = append(leases, l.Lease)
		}
		if q.Limit > 0 && len(leases) == q.Limit {
			break
		}
	}
	if len(leases) == 0 {
		return nil
	}
	return leases
}

// viewOf returns the view of q.Addr, if it may match q.
func (a *Allocator) viewOf(q *Query) []*view {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	e := a.x.entries.get(q.Addr)
	if e == nil || e.rev == 0 || !q.After.Less(q.Addr) {
		return nil
	}
	if v := e.view(); q.admits(v) {
		return []*view{v}
	}
	return nil
}

// viewsOf returns the views that q.Task has, or was the last to have, and that may match q, by
// address.
func (a *Allocator) viewsOf(q *Query) (found []*view) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	for e := a.x.of(q.Task); e != nil; e = e.next {
		if v := e.view(); q.After.Less(v.addr) && q.admits(v) {
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b *view) int { return a.addr.Compare(b.addr) })
	return found
}

// candidates returns the views that match q, up to its limit; with exact false it may be that only
// owner and instances of each do not.
func (a *Allocator) candidates(q *Query) (found []*view, exact bool) {
	a.syncCatalog(q.kinds())
	defer a.catalog.mu.RUnlock()
	set, exact := a.catalog.narrowest(q)
	for v := range set.after(q.After) {
		switch {
		case !q.admits(v):
			continue
		case q.Limit > 0 && !exact:
			if l := v.last(); !q.finds(&l) {
				continue
			}
		}
		if found = append(found, v); len(found) == q.Limit {
			break
		}
	}
	return found, exact
}

// admits reports whether q matches state and pool of the view.
func (q *Query) admits(v *view) bool {
	pool := v.pool.public.Load()
	return slices.Contains(q.States, v.state) && (q.Pool == "" || q.Pool == pool.Name) &&
		pool.has(q.Selector)
}

// finds reports whether q matches owner and instances of l.
func (q *Query) finds(l *tenure) bool {
	return (q.Task == "" || q.Task == l.Owner.Task) && (q.Team == "" || q.Team == l.Owner.Team) &&
		(q.Cluster == "" && q.Version == "" || q.serves(l)) &&
		(q.Instance == "" && !q.InstanceAddr.IsValid() || slices.ContainsFunc(l.Binding.Instances,
			q.matchesInstance))
}

// serves reports whether l overrides the cluster with the version, or has an instance of it.
func (q *Query) serves(l *tenure) bool {
	matches := func(cluster, version string) bool {
		return (q.Cluster == "" || q.Cluster == cluster) &&
			(q.Version == "" || q.Version == version)
	}
	for cluster, version := range l.Owner.Overrides {
		if matches(cluster, version) {
			return true
		}
	}
	return slices.ContainsFunc(l.Binding.Instances, func(i Instance) bool {
		return matches(i.Cluster, i.Version)
	})
}

func (q *Query) matchesInstance(i Instance) bool {
	return (q.Instance == "" || q.Instance == i.ID) &&
		(!q.InstanceAddr.IsValid() || q.InstanceAddr == i.Addr)
}
