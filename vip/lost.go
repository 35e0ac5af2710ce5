package vip

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// lostLeases are the leases that Lost returns, by address, in parts with a lock each: a reader
// takes one after the other, so that it holds up a change for a part's time at most. The
// allocator's lock may be held when a part's is taken, never the other way round. The zero value is
// empty.
type lostLeases struct {
	n     atomic.Int64
	parts [lostParts]struct {
		sync.Mutex
		leases map[netip.Addr]Lease
	}
}

const lostParts = 256

// part locks the part that an address is in and calls do with its leases, which are nil when there
// never were any.
func (l *lostLeases) part(addr netip.Addr, do func(leases *map[netip.Addr]Lease)) {
	p := &l.parts[addr.As16()[15]]
	p.Lock()
	defer p.Unlock()
	before := len(p.leases)
	do(&p.leases)
	l.n.Add(int64(len(p.leases) - before))
}

func (l *lostLeases) add(lease Lease) {
	l.part(lease.Addr, func(leases *map[netip.Addr]Lease) {
		if *leases == nil {
			*leases = map[netip.Addr]Lease{}
		}
		(*leases)[lease.Addr] = lease
	})
}

// found removes the lease of addr unless it has a later generation.
func (l *lostLeases) found(addr netip.Addr, generation uint64) {
	if l.n.Load() == 0 {
		return // the usual case
	}
	l.part(addr, func(leases *map[netip.Addr]Lease) {
		if generation >= (*leases)[addr].Generation {
			delete(*leases, addr)
		}
	})
}

// keep removes the leases of addresses that do not pass.
func (l *lostLeases) keep(pass func(netip.Addr) bool) {
	if l.n.Load() == 0 {
		return
	}
	for i := range l.parts {
		p := &l.parts[i]
		p.Lock()
		before := len(p.leases)
		maps.DeleteFunc(p.leases, func(addr netip.Addr, _ Lease) bool { return !pass(addr) })
		l.n.Add(int64(len(p.leases) - before))
		p.Unlock()
	}
}

// all returns the leases, by address.
func (l *lostLeases) all() []Lease {
	if l.n.Load() == 0 {
		return nil
	}
	var all []Lease
	for i := range l.parts {
		p := &l.parts[i]
		p.Lock()
		all = slices.AppendSeq(all, maps.Values(p.leases))
		p.Unlock()
	}
	slices.SortFunc(all, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return all
}

// Lost returns the leases that the store does not have any more although no caller ended them, or
// whose addresses had not rested, as they were when they were seen last, by address: the store was
// emptied, restored from a backup, or is not the one that they were made in. A lease is lost until
// the store has a lease of its address again that is not older, or no pool has the address any
// more. A lost lease is not live, and its address may be leased to another owner. Lost does not
// hold up other calls; of leases that are lost or found meanwhile it has some. The caller owns the
// slice.
func (a *Allocator) Lost() []Lease { return a.lost.all() }

// noteLost looks whether the store has lost the last tenure of e, for which it has l at revision
// rev now.
func (a *Allocator) noteLost(e *entry, l *tenure, rev uint64) {
	held := e.rev != 0 && (e.state == Leased || e.state == Draining || e.state == Cooling)
	switch {
	case held && rev == 0 && !a.mayBeForgotten(e), held && rev != 0 &&
		l.Generation < e.last().Generation:
		a.lost.add(e.shown())
	case rev != 0:
		a.lost.found(e.addr, l.Generation)
	}
}

// mayBeForgotten reports whether the tenure of e may have ended, rested and been forgotten by
// another allocator since this one read all addresses the last time but one.
func (a *Allocator) mayBeForgotten(e *entry) bool {
	return a.shared && e.pool.sparse() && !a.following &&
		a.cfg.Now().Sub(a.readBefore).Abs() > e.pool.coolDown()+a.cfg.Refresh
}
