package vip

import "net/netip"

// Owns reports whether the allocator may lease addr, or knows of a lease on it that has not ended
// and rested: one of its pools has the address and does not reserve it, or a former pool has it
// still. pool is the name of that pool. Any other address is not the allocator's.
func (a *Allocator) Owns(addr netip.Addr) (pool string, owned bool) {
	addr = addr.Unmap()
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.x.poolOf(addr)
	if p == nil {
		a.advance(a.cfg.Now())
		e := a.x.entries.get(addr)
		if e == nil || !e.pool.gone || e.state == Free || e.state == Reserved {
			return "", false
		}
		return e.pool.Name, true
	}
	if _, reserved := p.Reserved[addr]; reserved {
		if e := a.x.entries.get(addr); e == nil || e.state == Reserved { // not leased from before
			return "", false
		}
	}
	return p.Name, true
}
