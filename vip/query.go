package vip

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// Stats counts the addresses of a pool by state: the states add up to Size.
type Stats struct {
	Pool        string `json:"pool"`
	Size        uint64 `json:"size"`
	Free        uint64 `json:"free"`
	Leased      uint64 `json:"leased"`
	Draining    uint64 `json:"draining"`
	Cooling     uint64 `json:"cooling"`
	Quarantined uint64 `json:"quarantined"`
	Reserved    uint64 `json:"reserved"`
	Disabled    bool   `json:"disabled"`       // hands out nothing
	Gone        bool   `json:"gone,omitempty"` // not configured any more; Size is what is left in it
}

// Stats counts every pool, in the order of configuration, former pools that still have leases last.
func (a *Allocator) Stats() []Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	var all []Stats
	for _, p := range a.x.pools {
		s := Stats{
			Pool: p.Name, Size: p.size, Free: p.free(), Leased: p.counts[Leased], Draining: p.counts[Draining], Cooling: p.counts[Cooling],
			Quarantined: p.counts[Quarantined], Reserved: p.counts[Reserved], Disabled: p.Disabled || p.gone, Gone: p.gone,
		}
		if p.gone {
			if s.Size = s.Leased + s.Draining + s.Cooling + s.Quarantined; s.Size == 0 {
				continue
			}
		}
		all = append(all, s)
	}
	return all
}

// Get returns the lease id, live or the last of its address. A lease that nobody had is
// ErrNotFound; one whose address another had since is ErrFenced.
func (a *Allocator) Get(ctx context.Context, id string) (Lease, error) {
	_, generation, err := parseLeaseID(id)
	if err != nil {
		return Lease{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	e, err := a.find(ctx, id, generation, false)
	if err != nil {
		return Lease{}, fmt.Errorf("lease %s: %w", id, err)
	}
	return e.shown(), nil
}

// Locate answers "who is on this VIP", "which VIP has this task", "which VIP leads to this
// container": the leases that match q, by address; live and draining ones unless q.States says
// otherwise. None is no error.
func (a *Allocator) Locate(q Query) []Lease {
	if q.States == nil {
		q.States = []State{Leased, Draining}
	}
	return a.List(q)
}

// List returns the leases that match q, by address; addresses that are free, or were never used,
// only when q.States has Free and they have had a lease.
func (a *Allocator) List(q Query) []Lease {
	q.VIP, q.Addr = q.VIP.Unmap(), unmapped(q.Addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	var found []Lease
	a.candidates(q, func(e *entry) {
		if e.rev != 0 && q.matches(e) {
			found = append(found, e.shown())
		}
	})
	slices.SortFunc(found, func(a, b Lease) int { return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.ID, b.ID)) })
	return found
}

// candidates calls yield for every entry that may match q, by the narrowest index that q allows.
func (a *Allocator) candidates(q Query, yield func(*entry)) {
	switch {
	case q.VIP.IsValid():
		if e := a.x.entries[q.VIP]; e != nil {
			yield(e)
		}
	case q.Task != "":
		for _, chain := range []*entry{a.x.leases(q.Task), a.x.past(q.Task)} {
			for e := chain; e != nil; e = e.next {
				yield(e)
			}
		}
	case q.Addr.IsValid():
		for e := range a.x.bound[q.Addr] {
			yield(e)
		}
	default:
		for _, e := range a.x.entries {
			yield(e)
		}
	}
}

func (q *Query) matches(e *entry) bool {
	l := e.last()
	if q.States == nil && e.state == Free || q.States != nil && !slices.Contains(q.States, e.state) {
		return false
	}
	return (!q.VIP.IsValid() || q.VIP == l.Addr) && (q.Pool == "" || q.Pool == e.pool.Name) && e.pool.has(q.Selector) &&
		(q.Task == "" || q.Task == l.Owner.Task) && (q.Team == "" || q.Team == l.Owner.Team) &&
		(q.Cluster == "" && q.Version == "" || q.serves(l)) &&
		(q.Instance == "" && !q.Addr.IsValid() || slices.ContainsFunc(l.Binding.Instances, q.matchesInstance))
}

// serves says whether l overrides the cluster with the version, or has an instance of it.
func (q *Query) serves(l *tenure) bool {
	matches := func(cluster, version string) bool {
		return (q.Cluster == "" || q.Cluster == cluster) && (q.Version == "" || q.Version == version)
	}
	for cluster, version := range l.Owner.Overrides {
		if matches(cluster, version) {
			return true
		}
	}
	return slices.ContainsFunc(l.Binding.Instances, func(i Instance) bool { return matches(i.Cluster, i.Version) })
}

func (q *Query) matchesInstance(i Instance) bool {
	return (q.Instance == "" || q.Instance == i.ID) && (!q.Addr.IsValid() || q.Addr == i.Addr)
}
