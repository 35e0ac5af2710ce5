package vip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// sparseSize is up to how many addresses of a pool are remembered whether they are in use or
	// not.
	sparseSize = 1 << 16
	// forgetsKey is there when the record of an address has been deleted: then an address without a
	// record may have had leases, with generations up to the revision that this key has. Allocators
	// that share a store write it with each deletion.
	forgetsKey = "forgets"
	// forgetOps is about how many changes forgetIdle commits together: a Consul transaction holds
	// 64 operations, and a deletion takes two.
	forgetOps = 24
)

// sparse reports whether addresses of p are forgotten when they have rested.
func (p *pool) sparse() bool { return p.size > p.sparseAbove }

// spacious reports whether more than half of p is free: then an address that has no entry is found
// in a step or two.
func (p *pool) spacious() bool { return p.known-p.queue <= p.size/2 }

// share is that share of the addresses of p.
func (p *pool) share(of float64) uint64 {
	if n := of * float64(p.size); n < 1<<63 {
		return uint64(n)
	}
	return p.size
}

// idle notes that e, which is free, may be forgotten.
func (p *pool) idle(e *entry) {
	if p.sparse() && !e.idle {
		e.idle = true
		p.idles = append(p.idles, e)
		p.flags.idle.add(p.number)
	}
}

// forgetIdle deletes the records of addresses that have rested, in pools that are too large for a
// record of each, and drops their entries of the index.
func (a *Allocator) forgetIdle(ctx context.Context) error {
	idle := slices.Collect(a.x.flags.idle.in(a.x.pools)) // SetPools may change both meanwhile
	for _, p := range idle {
		for p.sparse() && p.spacious() && len(p.idles) > 0 {
			if again, err := a.forgetSome(ctx, p); err != nil || !again {
				if err != nil {
					return fmt.Errorf("forget addresses of pool %q: %w", p.Name, err)
				}
				break
			}
		}
		if x := a.x; len(p.idles) == 0 && p.number < len(x.pools) && x.pools[p.number] == p {
			x.flags.idle.remove(p.number)
		}
	}
	return nil
}

// forgetSome forgets some addresses of p, and reports whether there may be more.
func (a *Allocator) forgetSome(ctx context.Context, p *pool) (more bool, err error) {
	now := a.cfg.Now()
	c := a.newCommit()
	ops := 0
	for more = true; len(p.idles) > 0 && ops < forgetOps && len(c.steps) < a.atOnce; {
		e := p.idles[0]
		if a.shared && e.rev != 0 &&
			time.Unix(0, e.freed).Add(a.cfg.Refresh).After(now) {
			more = false // those behind it are free for less long
			break
		}
		p.idles[0], p.idles = nil, p.idles[1:]
		e.idle = false
		switch {
		case e.pool != p || a.x.entries.get(e.addr) != e || !e.queued || e.busy || e.uncertain:
		case e.resent: // that commit, made late, would bring the lease back
		case e.rev == 0:
			a.x.remove(e)
		default:
			ops += 1 + int(min(e.last().history, uint64(max(a.cfg.History, 0))))
			p.dequeue(e)
			s := c.add(e)
			s.next, s.forget = tenure{}, true
			e.busy = true
		}
	}
	if len(c.steps) == 0 {
		a.recycle(c)
		return more, nil
	}
	if a.shared || !a.forgets {
		c.steps[0].also = &Change{Key: forgetsKey, Value: []byte{1}, Revision: AnyRevision}
	}
	switch err := a.commit(ctx, now, c); {
	case err == nil:
		a.forgets = true // and the commit has made a.revision that of the mark
	case errors.Is(err, ErrTooLarge) && a.atOnce > 1:
		a.atOnce /= 2
	case !errors.Is(err, ErrRevision): // which another allocator was quicker than
		return false, err
	}
	return more, nil
}

// forgetting appends the changes that delete all records of an address.
func (a *Allocator) forgetting(changes []Change, e *entry) []Change {
	changes = append(changes, Change{Key: e.key(), Revision: e.rev})
	for slot := range int(min(e.last().history, uint64(max(a.cfg.History, 0)))) {
		changes = append(changes, Change{Key: pastKey(e, slot), Revision: AnyRevision})
	}
	return changes
}

// forgotten drops e, whose records have been deleted.
func (a *Allocator) dropForgotten(e *entry) {
	if a.shared && e.chained {
		a.forgotten = append(a.forgotten, e.owner())
	}
	a.x.remove(e)
}

// remove takes e, which is free, out of the index.
func (x *index) remove(e *entry) {
	x.unlink(e)
	x.unchain(e)
	x.entries.remove(e.addr)
	e.pool.known--
	x.flags.ready.add(e.pool.number)
	e.rev = 0
	x.unlist(e)
}

// unlist takes e, which has been taken out of the index, out of the catalog.
func (x *index) unlist(e *entry) {
	switch {
	case e.listed:
		x.mark(e)
	case e.dirtyAt > 0: // the catalog has never heard of it
		last := x.dirty[len(x.dirty)-1]
		x.dirty[e.dirtyAt-1], last.dirtyAt = last, e.dirtyAt
		x.dirty[len(x.dirty)-1], x.dirty = nil, x.dirty[:len(x.dirty)-1]
		e.dirtyAt = 0
	}
}

// firstGeneration is that of an address which, as far as its record says, has had no lease. Where
// records have been deleted it is above the generations of all of them: none is above the revision
// that its record had, and the allocator that deletes the record has seen that revision, as has one
// that opens the store later or reads all addresses.
func (a *Allocator) firstGeneration(e *entry) uint64 {
	if a.forgets || e.pool.sparse() {
		return a.revision + 1
	}
	return 1
}

// fetchForgets reads up to which revision other allocators have forgotten addresses.
func (a *Allocator) fetchForgets(ctx context.Context) error {
	if !a.shared || !slices.ContainsFunc(a.x.pools, (*pool).sparse) {
		return nil
	}
	var found []Record
	var err error
	a.unlocked(func() { found, err = a.store.Get(ctx, forgetsKey) })
	if err != nil {
		return err
	}
	a.forgets, a.revision = a.forgets || found[0].Revision != 0, max(a.revision, found[0].Revision)
	return nil
}

// mayHaveMissed reports whether e may have had a lease that began, ended and was forgotten since
// this allocator last read all addresses.
func (a *Allocator) mayHaveMissed(e *entry, now time.Time) bool {
	return a.shared && e.rev == 0 && e.pool.sparse() &&
		now.Sub(a.read).Abs() > e.pool.coolDown()+a.cfg.Refresh
}
