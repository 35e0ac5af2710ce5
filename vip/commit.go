package vip

import (
	"context"
	"errors"
	"fmt"
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
	record []byte  // next as it is stored
	also   *Change // is made together with it, if not nil
}

// commit is a set of steps that the store makes all of or none. It is filled by whoever plans it, with mu held all the while.
type commit struct {
	steps         []step
	changes       []Change
	inlineSteps   [1]step   // room for what most commits are
	inlineChanges [2]Change // likewise
	nextFree      *commit   // the next of those that are

	resolved func() // called when its outcome is known after all, if not nil
}

// plan begins a commit: one that has been made, or has been given up, serves again.
func (a *Allocator) plan() *commit {
	c := a.nextFree
	if c == nil {
		c = &commit{}
	}
	a.nextFree, c.nextFree = c.nextFree, nil
	c.steps, c.changes = c.inlineSteps[:0], c.inlineChanges[:0]
	return c
}

// done takes back a commit that nobody needs any more.
func (a *Allocator) done(c *commit) { a.nextFree, c.nextFree = c, a.nextFree }

// add plans a step for e. What it returns is to be filled in before the next add.
func (c *commit) add(e *entry) *step {
	c.steps = slices.Grow(c.steps, 1)[:len(c.steps)+1]
	s := &c.steps[len(c.steps)-1]
	s.e, s.also = e, nil
	return s
}

func (c *commit) entries() []*entry {
	all := make([]*entry, len(c.steps))
	for i := range c.steps {
		all[i] = c.steps[i].e
	}
	return all
}

// observe is deferred by the calls that Config.Observe is told about.
func (a *Allocator) observe(call string, start time.Time, err *error) {
	a.cfg.Observe(call, a.cfg.Now().Sub(start), *err)
}

// commit makes the steps, which were planned at now. It is called, and returns, with mu held; in between mu is free and the
// entries are busy. On ErrRevision the entries have been read again, on ErrTooLarge they are as they were. After any other
// error they are left to resolve.
func (a *Allocator) commit(ctx context.Context, now time.Time, c *commit) error {
	for i := range c.steps {
		s := &c.steps[i]
		s.e.busy = true
		passes := a.passes(s.e, &s.next)
		if passes {
			s.next.history++
		}
		s.record = encodeTenure(&s.next)
		c.changes = append(c.changes, Change{Key: s.e.key, Value: s.record, Revision: s.e.rev})
		if passes {
			c.changes = append(c.changes, a.remember(s.e, &s.next, s.record))
		}
		if s.also != nil {
			c.changes = append(c.changes, *s.also)
		}
	}
	a.mu.Unlock()
	rev, once, err := a.send(ctx, c.changes)
	var found []Record
	if errors.Is(err, ErrRevision) {
		var getErr error
		if found, getErr = a.read(ctx, c.entries()); getErr != nil {
			err = getErr
		}
	}
	a.mu.Lock()
	for i := range c.steps {
		c.steps[i].e.idle()
	}
	switch {
	case err == nil:
		for i := range c.steps {
			s := &c.steps[i]
			a.react(a.x.set(s.e, &s.next, s.record, rev, now))
		}
	case found != nil:
		a.adopt(c.entries(), found)
	case errors.Is(err, ErrTooLarge):
		for i := range c.steps {
			a.relink(c.steps[i].e, now)
		}
	default:
		a.uncertain = append(a.uncertain, c)
		for i := range c.steps {
			c.steps[i].e.uncertain = c
		}
		return err
	}
	if once {
		a.done(c)
	}
	return err
}

// send commits changes until the store says what has become of them: sent twice, they are made once. ErrRevision after a
// resend may mean that they were made; what is read then tells. If they were not sent once only, the store may still have them.
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

func (a *Allocator) read(ctx context.Context, entries []*entry) ([]Record, error) {
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.key
	}
	found, err := a.store.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return found, nil
}

// adopt takes over what the store has.
func (a *Allocator) adopt(entries []*entry, found []Record) {
	now := a.cfg.Now()
	for i, e := range entries {
		var l tenure
		if found[i].Revision != 0 {
			var err error
			if l, err = a.decode(found[i]); err != nil {
				continue // a key that is not ours: decode has said so, and no CAS on it can succeed
			}
			if found[i].Revision == e.rev && l.ID == e.last().ID { // it was another key of the commit that somebody has changed
				a.relink(e, now)
				continue
			}
		}
		a.react(a.x.set(e, &l, nil, found[i].Revision, now))
	}
}

// idle ends busy and wakes who waits.
func (e *entry) idle() {
	e.busy = false
	if e.wait != nil {
		close(e.wait)
		e.wait = nil
	}
}

// settle waits until nothing is under way for e, and finds out what has become of a commit whose outcome is not known.
// It is called, and returns, with mu held. When it has let go of mu again is true: what the caller has seen may be old.
func (a *Allocator) settle(ctx context.Context, e *entry) (again bool, err error) {
	if e.busy {
		if e.wait == nil {
			e.wait = make(chan struct{})
		}
		wait := e.wait
		a.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		a.mu.Lock()
		return true, err
	}
	if e.uncertain != nil {
		return true, a.resolve(ctx, e.uncertain)
	}
	return false, nil
}

// resolve makes an unsure commit either made or impossible: it rewrites what was there before, so that a commit that is
// still on its way finds another revision.
func (a *Allocator) resolve(ctx context.Context, c *commit) error {
	entries := c.entries()
	before := make([]Change, len(entries))
	for i, e := range entries {
		e.busy = true
		old := e.last()
		if e.rev == 0 {
			old = &tenure{Lease: Lease{Addr: e.addr, Pool: e.pool.Name}}
		}
		before[i] = Change{Key: e.key, Value: encodeTenure(old), Revision: e.rev}
	}
	a.mu.Unlock()
	_, err := a.store.Commit(ctx, before...)
	var found []Record
	if err == nil || errors.Is(err, ErrRevision) {
		found, err = a.read(ctx, entries)
	} else {
		err = fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	a.mu.Lock()
	for _, e := range entries {
		e.idle()
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		e.uncertain = nil
	}
	if c.resolved != nil {
		c.resolved()
	}
	a.adopt(entries, found)
	a.uncertain = slices.DeleteFunc(a.uncertain, func(d *commit) bool { return d == c })
	return nil
}

// ask reads an address again that the index and a caller disagree about. It is called, and returns, with mu held.
func (a *Allocator) ask(ctx context.Context, addr netip.Addr) error {
	a.mu.Unlock()
	found, err := a.store.Get(ctx, addrPrefix+addr.String())
	a.mu.Lock()
	if err != nil {
		return err
	}
	return a.learn(ctx, found)
}

// catchUp reads all addresses again: another allocator has taken many. It is called, and returns, with mu held.
func (a *Allocator) catchUp(ctx context.Context) error {
	a.mu.Unlock()
	found, err := a.store.List(ctx, addrPrefix)
	a.mu.Lock()
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(found))
	for _, r := range found {
		there[r.Key] = true
	}
	for _, e := range a.x.entries {
		if e.rev != 0 && !there[e.key] {
			found = append(found, Record{Key: e.key})
		}
	}
	return a.learn(ctx, found)
}

// learn takes over the records that are not what is known. It is called, and returns, with mu held; in between mu may be free.
func (a *Allocator) learn(ctx context.Context, found []Record) error {
	var older []*entry
	for i, r := range found {
		addr, err := netip.ParseAddr(strings.TrimPrefix(r.Key, addrPrefix))
		if err != nil {
			continue
		}
		e := a.x.entries[addr]
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
		case e.busy || e.uncertain != nil:
		case r.Revision > e.rev:
			a.adopt([]*entry{e}, found[i:i+1])
		case r.Revision < e.rev:
			older = append(older, e)
		}
	}
	return a.relearn(ctx, older)
}

// elsewhere is the former pool for a record whose address is in none, as it may be in one of another allocator: its lease is
// kept until it ends, like those that New finds. It is nil for an address that nobody has.
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

// relearn reads entries again that seemed older in the store than what is known: they were read before a change of this
// allocator, or the store was put back to what it was before. While they are busy nothing of this allocator comes between.
func (a *Allocator) relearn(ctx context.Context, older []*entry) error {
	if len(older) == 0 {
		return nil
	}
	for _, e := range older {
		e.busy = true
		e.pool.dequeue(e)
	}
	a.refetching = append(a.refetching, older)
	a.mu.Unlock()
	found, err := a.read(ctx, older)
	a.mu.Lock()
	a.refetching = slices.DeleteFunc(a.refetching, func(some []*entry) bool { return some[0] == older[0] })
	for _, e := range older {
		e.idle()
		if err != nil {
			a.relink(e, a.cfg.Now())
		}
	}
	if err != nil {
		return err
	}
	a.adopt(older, found)
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
				l, err := glanceAt(r.Value)
				if addr, _ := netip.ParseAddr(strings.TrimPrefix(r.Key, addrPrefix)); err != nil || l.Addr != addr || !addr.IsValid() {
					if l, errs[p] = a.decode(r); errs[p] != nil {
						return
					}
					e.lease = new(tenure)
					*e.lease = l
				} else {
					e.record = r.Value
				}
				e.addr, e.key, e.pool, e.state, e.rev = l.Addr, r.Key, &unknownPool, l.State, r.Revision
				entries[first+i] = e
			}
		})
	}
	wg.Wait()
	return entries, errors.Join(errs...)
}

// decode reads a record. A damaged one gives a lease in quarantine, so that nobody gets an address whose holder is not
// known; that the key is not an address is an error.
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

// damaged is the tenure of an address whose record cannot be read. A generation is never above the revision, so no lease id
// of the past is given again.
func damaged(addr netip.Addr, rev uint64, err error) tenure {
	return tenure{Lease: Lease{Addr: addr, Generation: rev, State: Quarantined, Reason: err.Error()}}
}
