package vip

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// step gives one address its next tenure.
type step struct {
	e      *entry
	next   tenure
	record []byte  // next, encoded
	past   []byte  // what next leaves behind, encoded, if it is to be remembered
	forget bool    // delete its records: it has no next tenure
	also   *Change // committed together with it, if not nil

	pastSlot int // of past
}

// commit is a set of steps that the store makes all of or none. It is filled without letting go of
// mu in between.
type commit struct {
	steps   []step
	changes []Change

	inlineSteps   [1]step   // saves an allocation for the common commit of one step
	inlineChanges [2]Change // likewise
	nextFree      *commit   // in Allocator.nextFree

	onResolved func() // called when the outcome of an uncertain commit is known, if not nil
}

// newCommit returns an empty commit, a recycled one if there is one.
func (a *Allocator) newCommit() *commit {
	c := a.nextFree
	if c == nil {
		c = &commit{}
	}
	a.nextFree, c.nextFree = c.nextFree, nil
	c.steps, c.changes, c.onResolved = c.inlineSteps[:0], c.inlineChanges[:0], nil
	return c
}

// recycle takes back a commit that nothing refers to any more.
func (a *Allocator) recycle(c *commit) { a.nextFree, c.nextFree = c, a.nextFree }

// add appends a step for e. The returned pointer is valid until the next call of add.
func (c *commit) add(e *entry) *step {
	c.steps = slices.Grow(c.steps, 1)[:len(c.steps)+1]
	s := &c.steps[len(c.steps)-1]
	s.e, s.past, s.also, s.forget = e, nil, nil, false
	return s
}

func (c *commit) entries() []*entry {
	all := make([]*entry, len(c.steps))
	for i := range c.steps {
		all[i] = c.steps[i].e
	}
	return all
}

// observe calls Config.Observe; the calls that it reports defer it.
func (a *Allocator) observe(call string, start time.Time, err *error) {
	a.cfg.Observe(call, a.cfg.Now().Sub(start), *err)
}

// commit makes the steps, which were planned at now, and applies them to the index. While the store
// is called, the entries are busy, and mu is free: see storing. On ErrRevision the entries have
// been fetched again, on ErrTooLarge they are as they were. After any other error the commit is
// uncertain.
func (a *Allocator) commit(ctx context.Context, now time.Time, c *commit) error {
	plain := a.mem != nil // the store is to do what the steps say, and no more
	for i := range c.steps {
		s := &c.steps[i]
		s.e.busy = true
		if s.forget || s.also != nil {
			plain = false
		}
		if s.forget {
			continue
		}
		passes := a.passes(s.e, &s.next)
		if passes {
			s.next.history++
		}
		s.record = encodeIn(&a.scratch, &s.next)
		if passes {
			s.past, s.pastSlot = a.remember(s.e, &s.next, s.record)
		}
	}
	if !plain {
		a.listChanges(c)
	}
	var rev uint64
	var once bool
	var found []Record
	var err error
	a.storing(func() {
		if plain {
			rev, err = a.mem.commitSteps(ctx, c.steps)
			if once = err == nil || errors.Is(err, ErrRevision); !once {
				err = fmt.Errorf("%w: %w", ErrUncertain, err)
			}
		} else {
			rev, once, err = a.send(ctx, c.changes)
		}
		if errors.Is(err, ErrRevision) {
			var fetchErr error
			if found, fetchErr = a.fetch(ctx, c.entries()); fetchErr != nil {
				err = fetchErr
			}
		}
	})
	for i := range c.steps {
		e := c.steps[i].e
		a.setIdle(e)
		e.resent = e.resent || !once && e.rev == 0
	}
	switch {
	case err == nil:
		a.revision = max(a.revision, rev)
		for i := range c.steps {
			s := &c.steps[i]
			if s.forget {
				a.dropForgotten(s.e)
				continue
			}
			a.react(a.x.set(s.e, &s.next, s.record, rev, now))
			a.lost.found(s.e.addr, math.MaxUint64)
		}
	case found != nil:
		a.apply(c.entries(), found)
	case errors.Is(err, ErrTooLarge):
		for i := range c.steps {
			a.relink(c.steps[i].e, now)
		}
	default:
		a.uncertain = append(a.uncertain, c)
		for i := range c.steps {
			c.steps[i].e.uncertain = true
		}
		return err
	}
	if once {
		a.recycle(c)
	}
	return err
}

// listChanges lists the changes that the steps of c ask of the store.
func (a *Allocator) listChanges(c *commit) {
	for i := range c.steps {
		s := &c.steps[i]
		if s.forget {
			c.changes = a.forgetting(c.changes, s.e)
		} else {
			c.changes = append(c.changes, Change{Key: s.e.key(), Value: s.record,
				Revision: s.e.rev})
		}
		if s.past != nil {
			c.changes = append(c.changes, Change{Key: pastKey(s.e, s.pastSlot), Value: s.past,
				Revision: AnyRevision})
		}
		if s.also != nil {
			c.changes = append(c.changes, *s.also)
		}
	}
}

// unlocked calls do, which calls the store, another service or waits, without mu. It and storing
// are the only places that let go of mu half way: after it, everything seen before may be old. Only
// methods with a context call it; a method without one keeps mu throughout.
func (a *Allocator) unlocked(do func()) {
	a.mu.Unlock() // without a defer this is inlined, do with it: 3 % of a pair of calls
	do()
	a.mu.Lock()
}

// storing calls do, which makes a commit, without mu; with mu when the store is a MemStore, which
// takes less time than two changes of the lock's holder: 64 callers then wait for half as many.
func (a *Allocator) storing(do func()) {
	if a.mem == nil {
		a.mu.Unlock()
	}
	do()
	if a.mem == nil {
		a.mu.Lock()
	}
}

// send commits changes until the store reports the outcome: sent twice, they are made once.
// ErrRevision after a second try may mean that they were made; the caller fetches to find out. once
// reports whether one try sufficed; otherwise the store may still have the changes. It is called
// without mu.
func (a *Allocator) send(ctx context.Context, changes []Change) (rev uint64, once bool, err error) {
	for resends := 0; ; resends++ {
		rev, err := a.store.Commit(ctx, changes...)
		if err == nil || errors.Is(err, ErrRevision) || errors.Is(err, ErrTooLarge) {
			return rev, resends == 0, err
		}
		if resends == maxResends || ctx.Err() != nil {
			return 0, false, fmt.Errorf("%w: %w", ErrUncertain, err)
		}
	}
}

// fetch reads the records of the entries from the store. It is called without mu.
func (a *Allocator) fetch(ctx context.Context, entries []*entry) ([]Record, error) {
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.key()
	}
	found, err := a.store.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return found, nil
}

// apply makes the fetched records the state of the entries.
func (a *Allocator) apply(entries []*entry, found []Record) {
	now := a.cfg.Now()
	for i, e := range entries {
		a.revision = max(a.revision, found[i].Revision)
		var l tenure
		if found[i].Revision != 0 {
			var err error
			if l, err = a.decode(found[i]); err != nil {
				continue // a key that is not ours: decode has said so, and no CAS on it can succeed
			}
			a.x.learn(&l)
			// another client has changed another key of the commit
			if found[i].Revision == e.rev && l.ID == e.last().ID {
				a.relink(e, now)
				continue
			}
		}
		if l.rest != nil {
			a.readUptime().settle(&l, e.pool, now)
		}
		a.noteLost(e, &l, found[i].Revision)
		a.react(a.x.set(e, &l, nil, found[i].Revision, now))
	}
}

// setIdle ends busy and wakes the calls that wait for it.
func (a *Allocator) setIdle(e *entry) {
	e.busy = false
	if idled := a.idled[e]; idled != nil {
		close(idled)
		delete(a.idled, e)
	}
}

// awaitIdle waits until no store call is in flight for e, and resolves an uncertain commit of it.
// again reports whether it has let go of mu: then everything the caller has seen may be old.
func (a *Allocator) awaitIdle(ctx context.Context, e *entry) (again bool, err error) {
	if e.busy {
		idled := a.idled[e]
		if idled == nil {
			idled = make(chan struct{})
			a.idled[e] = idled
		}
		a.unlocked(func() {
			select {
			case <-idled:
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		})
		return true, err
	}
	if e.uncertain {
		return true, a.resolveUncertain(ctx, a.uncertainOf(e))
	}
	return false, nil
}

// uncertainOf is the uncertain commit of e, which has one.
func (a *Allocator) uncertainOf(e *entry) *commit {
	return a.uncertain[slices.IndexFunc(a.uncertain, func(c *commit) bool {
		return slices.ContainsFunc(c.steps, func(s step) bool { return s.e == e })
	})]
}

// resolveUncertain makes an uncertain commit either made or impossible: it rewrites the records
// from before the commit, so that a commit still in flight meets another revision.
func (a *Allocator) resolveUncertain(ctx context.Context, c *commit) error {
	entries := c.entries()
	before := make([]Change, len(entries))
	for i, e := range entries {
		e.busy = true
		old := e.last()
		if e.rev == 0 {
			old = &tenure{Lease: Lease{Addr: e.addr, Pool: e.pool.Name}}
		}
		before[i] = Change{Key: e.key(), Value: encodeTenure(old), Revision: e.rev}
	}
	var found []Record
	var err error
	a.unlocked(func() {
		if _, err = a.store.Commit(ctx, before...); err == nil || errors.Is(err, ErrRevision) {
			found, err = a.fetch(ctx, entries)
		} else {
			err = fmt.Errorf("%w: %w", ErrUncertain, err)
		}
	})
	for _, e := range entries {
		a.setIdle(e)
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		e.uncertain = false
	}
	if c.onResolved != nil {
		c.onResolved()
	}
	a.apply(entries, found)
	a.uncertain = slices.DeleteFunc(a.uncertain, func(d *commit) bool { return d == c })
	return nil
}

// fetchAddr fetches and applies the record of one address.
func (a *Allocator) fetchAddr(ctx context.Context, addr netip.Addr) error {
	var found []Record
	var err error
	a.unlocked(func() { found, err = a.store.Get(ctx, addrPrefix+addr.String()) })
	if err != nil {
		return err
	}
	return a.applyRecords(ctx, found)
}

// fetchAll fetches and applies the records of all addresses.
func (a *Allocator) fetchAll(ctx context.Context) error {
	var found []Record
	var err error
	began := a.cfg.Now()
	a.unlocked(func() { found, err = a.store.List(ctx, addrPrefix) })
	if err != nil {
		return err
	}
	return a.takeAll(ctx, found, began)
}

// takeAll applies the records of all addresses, which were read at began, a few at a time.
func (a *Allocator) takeAll(ctx context.Context, found []Record, began time.Time) error {
	if err := a.fetchForgets(ctx); err != nil {
		return err
	}
	a.readBefore, a.read = a.read, began
	there := make(map[string]bool, len(found))
	a.unlocked(func() {
		for _, r := range found {
			there[r.Key] = true
		}
	})
	for part := range tableParts {
		for _, e := range a.x.entries.part(part) {
			if e.rev != 0 && !there[e.key()] {
				found = append(found, Record{Key: e.key()})
			}
		}
		a.unlocked(func() {}) // others have a turn
	}
	for some := range slices.Chunk(found, a.poolsAtOnce) {
		if err := a.applyRecords(ctx, some); err != nil {
			return err
		}
		a.unlocked(func() {})
	}
	return nil
}

// applyRecords applies the records that are newer than the index, and fetches the records again
// that seem older than it. Entries with a commit in flight, or an uncertain one, stay as they are.
func (a *Allocator) applyRecords(ctx context.Context, found []Record) error {
	var older []*entry
	for i, r := range found {
		addr, err := netip.ParseAddr(strings.TrimPrefix(r.Key, addrPrefix))
		if err != nil {
			continue
		}
		e := a.x.entries.get(addr)
		if e == nil {
			p := a.x.poolOf(addr)
			if p == nil {
				p = a.elsewhere(r)
			}
			if p == nil || r.Revision == 0 {
				continue
			}
			e = a.x.entry(p, addr)
		}
		switch {
		case e.busy || e.uncertain:
		case r.Revision > e.rev:
			a.apply([]*entry{e}, found[i:i+1])
		case r.Revision < e.rev:
			older = append(older, e)
		}
	}
	return a.refetch(ctx, older)
}

// elsewhere is the former pool for a record whose address is in none, as it may be in one of
// another allocator: its lease is kept until it ends, like the leases that New finds. It is nil for
// an address without a holder.
func (a *Allocator) elsewhere(r Record) *pool {
	if r.Revision == 0 {
		return nil
	}
	l, err := a.decode(r)
	if err != nil || l.State != Leased && l.State != Draining {
		return nil
	}
	return a.x.formerPool(l.Pool)
}

// refetch fetches and applies entries whose records seemed older than the index: they were read
// before a change of this allocator, or the store was restored from a backup. While they are busy,
// no change of this allocator comes between.
func (a *Allocator) refetch(ctx context.Context, older []*entry) error {
	if len(older) == 0 {
		return nil
	}
	for _, e := range older {
		e.busy = true
		e.pool.dequeue(e)
	}
	a.refetching = append(a.refetching, older)
	var found []Record
	var err error
	a.unlocked(func() { found, err = a.fetch(ctx, older) })
	a.refetching = slices.DeleteFunc(a.refetching, func(some []*entry) bool {
		return some[0] == older[0]
	})
	for _, e := range older {
		a.setIdle(e)
		if err != nil {
			a.relink(e, a.cfg.Now())
		}
	}
	if err != nil {
		return err
	}
	a.apply(older, found)
	return nil
}

// decodeAll makes entries of records, on all processors: a start waits for it.
func (a *Allocator) decodeAll(records []Record) ([]*entry, error) {
	entries := make([]*entry, len(records))
	parts := min(runtime.GOMAXPROCS(0), 1+len(records)/1000)
	errs := make([]error, parts)
	var wg sync.WaitGroup
	for p := range parts {
		wg.Go(func() {
			first, end := p*len(records)/parts, (p+1)*len(records)/parts
			together := make([]entry, end-first) // they stay
			for i, r := range records[first:end] {
				e := &together[i]
				l, err := decodeTenure(r.Value)
				if addr, _ := netip.ParseAddr(strings.TrimPrefix(r.Key, addrPrefix)); err != nil ||
					l.Addr != addr || !addr.IsValid() {
					if l, errs[p] = a.decode(r); errs[p] != nil {
						return
					}
					e.lease = new(tenure)
					*e.lease = l
				} else {
					e.setRecord(r.Value)
				}
				e.setKey(r.Key)
				e.addr, e.pool, e.state, e.rev = l.Addr, &unknownPool, l.State, r.Revision
				if e.freed = l.freed(); l.State == Leased {
					e.deadline, e.rests = l.Expires, l.TTL
				}
				entries[first+i] = e
			}
		})
	}
	wg.Wait()
	return entries, errors.Join(errs...)
}

// decode reads a record. A damaged one gives a lease in quarantine, so that an address whose holder
// is not known is not given away; that the key is not an address is an error.
func (a *Allocator) decode(r Record) (tenure, error) {
	addr, err := netip.ParseAddr(strings.TrimPrefix(r.Key, addrPrefix))
	if err != nil {
		return tenure{}, fmt.Errorf("record %q: the key has no address: %w", r.Key, err)
	}
	l, err := decodeTenure(r.Value)
	if err == nil && l.Addr != addr {
		err = fmt.Errorf("it is for %s: %w", l.Addr, errCorrupt)
	}
	if err != nil {
		a.cfg.Logger.Warn("address set aside", "addr", addr, "record", r.Key, "err", err)
		return damaged(addr, r.Revision, err), nil
	}
	return l, nil
}

// damaged is the tenure of an address whose record cannot be read. A generation is never above the
// revision, so no lease id of the past is given again.
func damaged(addr netip.Addr, rev uint64, err error) tenure {
	return tenure{Lease: Lease{Addr: addr, Generation: rev, State: Quarantined,
		Reason: err.Error()}}
}
