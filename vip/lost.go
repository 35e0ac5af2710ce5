package vip

import (
	"maps"
	"net/netip"
	"slices"
)

// Lost returns the leases that the store does not have any more although no caller ended them, or
// whose addresses had not rested, as they were when they were seen last, by address: the store was
// emptied, restored from a backup, or is not the one that they were made in. A lease is lost until
// the store has a lease of its address again that is not older, or no pool has the address any
// more. A lost lease is not live, and its address may be leased to another owner. The caller owns
// the slice.
func (a *Allocator) Lost() []Lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.lost), func(a, b Lease) int {
		return a.Addr.Compare(b.Addr)
	})
}

// noteLost looks whether the store has lost the last tenure of e, for which it has l at revision
// rev now.
func (a *Allocator) noteLost(e *entry, l *tenure, rev uint64) {
	held := e.rev != 0 && (e.state == Leased || e.state == Draining || e.state == Cooling)
	switch {
	case held && rev == 0 && !a.mayBeForgotten(e), held && rev != 0 &&
		l.Generation < e.last().Generation:
		if a.lost == nil {
			a.lost = map[netip.Addr]Lease{}
		}
		a.lost[e.addr] = e.shown()
	case rev != 0 && l.Generation >= a.lost[e.addr].Generation:
		delete(a.lost, e.addr)
	}
}

// mayBeForgotten reports whether the tenure of e may have ended, rested and been forgotten by
// another allocator since this one read all addresses the last time but one.
func (a *Allocator) mayBeForgotten(e *entry) bool {
	return a.shared && e.pool.sparse() && !a.following &&
		a.cfg.Now().Sub(a.readBefore).Abs() > e.pool.coolDown()+a.cfg.Refresh
}
