package vip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	addrPrefix       = "addr/"
	catchUpAfter     = 4  // conflicts with other allocators in one call
	maxRounds        = 64 // conflicts with other allocators before ErrContended
	farApart         = 63 // places in the free queue by which allocators avoid each other
	maxResends       = 3  // of a commit whose outcome the store did not say
	sweepAtOnce      = 16 // leases ended in one commit: a Consul transaction holds 64 operations
	defaultTTL       = 24 * time.Hour
	defaultEvery     = time.Second
	defaultDrain     = 10 * time.Minute
	defaultLeakGrace = 15 * time.Minute
	defaultLeakEvery = time.Minute
	defaultHistory   = 16
)

// Config tunes an Allocator. The zero value works.
type Config struct {
	// Now is the clock. The default is time.Now.
	Now func() time.Time
	// DefaultTTL of a request that names none; Forever is allowed. The default is 24 h.
	DefaultTTL time.Duration
	// Grace after Expires in which a lease is still live and may be renewed. The default is none.
	Grace time.Duration
	// Drained says whether nothing uses the address of an ended lease any more, so that its cool-down may begin. It is
	// called by Sweep, without locks held, until it says yes. The default is to begin the cool-down at once.
	Drained func(ctx context.Context, ended Lease) (bool, error)
	// DrainLimit is how long an address waits for Drained before its cool-down begins regardless. The default is 10 min.
	DrainLimit time.Duration
	// Alive says whether the owner of a lease still exists: see CheckLeaks. The default is not to look for leaks.
	Alive func(ctx context.Context, live Lease) (bool, error)
	// LeakGrace is how long an owner must be gone before its lease is ended; negative to report only. The default is 15 min.
	LeakGrace time.Duration
	// LeakInterval is the time between two looks of Run. The default is 1 min.
	LeakInterval time.Duration
	// History is how many records of the past are kept for each address; negative for none. The default is 16.
	History int
	// Observe, when set, is called at the end of every Allocate, Renew, Bind, Release, Quarantine and Restore with the name
	// of the call in lower case, how long it took and its error. It is called without locks held and must not block. What
	// is used, free and cooling, who waits and what may be leaked, is read from Stats, Waiting and Suspects.
	Observe func(call string, took time.Duration, err error)
	// Shared says that other allocators, in other processes or on other machines, use the store at the same time. Without
	// it they never give one address twice and fence each other's late calls; with it a task is one owner for all of them,
	// which costs an allocation one or two reads, and each of them sees what the others did at least every Refresh. All of
	// them say so, and their clocks agree within Grace. The default is that this allocator is the only one.
	Shared bool
	// Refresh is the time between two looks of Run at what other allocators did, with Shared. List, Locate, Watch, Stats
	// and quotas are so far behind at most. The default is 5 s.
	Refresh time.Duration
	// Interval is the longest time between two sweeps of Run. The default is 1 s.
	Interval time.Duration
	// Logger of Run, and of records that New sets aside as damaged. The default discards.
	Logger *slog.Logger
}

// Allocator leases addresses out of pools. It is safe for concurrent use. Every change is in the store before the call that
// made it returns.
type Allocator struct {
	store Store
	cfg   Config

	mu       sync.Mutex // not held while the store is called: an entry with a call under way is busy
	x        *index
	claims   map[string]*entry // task → an entry that is, or perhaps was, being allocated for it
	doubts   []*commit         // whose outcome is not known
	waiters  []*waiter         // highest priority first, then longest waiting
	news     news
	suspects map[string]time.Time // lease id → since when its owner seems to be gone
	spare    *commit              // to be used again
	atOnce   int                  // leases that Sweep ends in one commit: fewer after the store has found them too large

	apart     int             // how many places Allocate may skip in the free queue
	refreshed time.Time       // when the addresses were last read for what other allocators did
	forgotten []string        // tasks whose owner record may be of no use any more
	chance    func(n int) int // rand.IntN
}

// New loads what the store has and returns an allocator for the pools. A live lease outside all pools is kept until it
// ends. A record that is damaged puts its address into quarantine and stops nothing else. ctx bounds the loading only.
func New(ctx context.Context, store Store, pools []Pool, cfg Config) (*Allocator, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.DefaultTTL = cmp.Or(cfg.DefaultTTL, defaultTTL)
	cfg.Interval = cmp.Or(cfg.Interval, defaultEvery)
	cfg.Refresh = cmp.Or(cfg.Refresh, defaultRefresh)
	cfg.LeakGrace = cmp.Or(cfg.LeakGrace, defaultLeakGrace)
	cfg.LeakInterval = cmp.Or(cfg.LeakInterval, defaultLeakEvery)
	cfg.History = cmp.Or(cfg.History, defaultHistory)
	cfg.DrainLimit = cmp.Or(cfg.DrainLimit, defaultDrain)
	a := &Allocator{store: store, cfg: cfg, claims: map[string]*entry{}, atOnce: sweepAtOnce, chance: rand.IntN}
	if err := a.SetPools(ctx, pools); err != nil {
		return nil, err
	}
	a.refreshed = cfg.Now()
	if cfg.Shared {
		if err := a.findForgotten(ctx); err != nil {
			return nil, err
		}
	}
	return a, a.begin(ctx)
}

func layOutAll(pools []Pool) ([]layout, error) {
	layouts := make([]layout, len(pools))
	names := map[string]bool{}
	var errs []error
	for i, p := range pools {
		var err error
		layouts[i], err = layOut(p)
		errs = append(errs, err)
		if names[p.Name] {
			errs = append(errs, fmt.Errorf("pool %q: another pool has this name", p.Name))
		}
		names[p.Name] = true
	}
	if len(pools) == 0 {
		errs = append(errs, errors.New("no pools"))
	}
	return layouts, errors.Join(append(errs, overlaps(pools, layouts))...)
}

// SetPools puts other pools in place of those that there are: to grow or shrink one, to disable it, to change its quotas.
// No live lease is touched: one whose address is in no pool any more stays in a pool of its old name, which Stats shows as
// Gone, until it has ended and cooled down.
func (a *Allocator) SetPools(ctx context.Context, pools []Pool) error {
	layouts, err := layOutAll(pools)
	if err != nil {
		return err
	}
	records, err := a.store.List(ctx, addrPrefix)
	if err != nil {
		return fmt.Errorf("load leases: %w", err)
	}
	leases := make([]*tenure, len(records))
	for i, r := range records {
		if leases[i], err = a.decode(r); err != nil {
			return fmt.Errorf("load leases: %w", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var entries []*entry
	if a.x != nil {
		entries = slices.SortedFunc(maps.Values(a.x.entries), func(a, b *entry) int { return a.addr.Compare(b.addr) })
	}
	added := make([]entry, len(records)) // together: they stay
	for i, l := range leases {
		var e *entry
		if a.x != nil {
			e = a.x.entries[l.Addr]
		}
		if e == nil {
			e = &added[i]
			e.addr, e.key, e.pool, e.state = l.Addr, records[i].Key, &unknownPool, l.State
			entries = append(entries, e)
		}
		if !e.busy && e.unsure == nil && records[i].Revision > e.rev {
			e.lease, e.rev, e.state = l, records[i].Revision, l.State
		}
	}
	a.x = newIndex(pools, layouts, a.cfg.Grace, len(entries))
	a.x.freed, a.x.tell = a.wakeUp, a.tell
	a.x.take(entries, a.cfg.Now())
	a.wakeUp()
	return nil
}

// step gives one address its next tenure.
type step struct {
	e    *entry
	next *tenure
	also *Change // is made together with it, if not nil
}

// commit is a set of steps that the store makes all of or none.
type commit struct {
	steps   []step
	changes []Change
	step    [1]step   // room for what most commits are
	change  [2]Change // likewise
}

// observe is deferred by the calls that Config.Observe is told about.
func (a *Allocator) observe(call string, start time.Time, err *error) {
	a.cfg.Observe(call, a.cfg.Now().Sub(start), *err)
}

// commit makes the steps, which were planned at now. It is called, and returns, with mu held; in between mu is free and the
// entries are busy. On ErrRevision the entries have been read again, on ErrTooLarge they are as they were. After any other
// error they are left to resolve.
func (a *Allocator) commit(ctx context.Context, now time.Time, steps ...step) error {
	c := a.spare
	if a.spare = nil; c == nil {
		c = &commit{}
	}
	c.steps = append(c.step[:0], steps...)
	c.changes = c.change[:0]
	for _, s := range steps {
		s.e.busy = true
		passes := a.passes(s.e, s.next)
		if passes {
			s.next.history++
		}
		value := encodeTenure(s.next)
		c.changes = append(c.changes, Change{Key: s.e.key, Value: value, Revision: s.e.rev})
		if passes {
			c.changes = append(c.changes, a.remember(s.e, s.next, value))
		}
		if s.also != nil {
			c.changes = append(c.changes, *s.also)
		}
	}
	a.mu.Unlock()
	rev, err := a.send(ctx, c.changes)
	var found []Record
	if errors.Is(err, ErrRevision) {
		var getErr error
		if found, getErr = a.read(ctx, c.steps); getErr != nil {
			err = getErr
		}
	}
	a.mu.Lock()
	a.idle(c.steps)
	switch {
	case err == nil:
		for _, s := range c.steps {
			a.x.set(s.e, s.next, rev, now)
		}
		*c = commit{}
		a.spare = c
	case found != nil:
		a.adopt(c.steps, found)
	case errors.Is(err, ErrTooLarge):
		for _, s := range c.steps {
			a.x.relink(s.e, now)
		}
	default:
		a.doubts = append(a.doubts, c)
		for _, s := range c.steps {
			s.e.unsure = c
		}
	}
	return err
}

// send commits changes until the store says what has become of them: sent twice, they are made once. ErrRevision after a
// resend may mean that they were made; what is read then tells.
func (a *Allocator) send(ctx context.Context, changes []Change) (uint64, error) {
	for resends := 0; ; resends++ {
		rev, err := a.store.Commit(ctx, changes...)
		if err == nil || errors.Is(err, ErrRevision) || errors.Is(err, ErrTooLarge) {
			return rev, err
		}
		if resends == maxResends || ctx.Err() != nil {
			return 0, fmt.Errorf("%w: %w", ErrUncertain, err)
		}
	}
}

func (a *Allocator) read(ctx context.Context, steps []step) ([]Record, error) {
	keys := make([]string, len(steps))
	for i, s := range steps {
		keys[i] = s.e.key
	}
	found, err := a.store.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return found, nil
}

// adopt takes over what the store has.
func (a *Allocator) adopt(steps []step, found []Record) {
	now := a.cfg.Now()
	for i, s := range steps {
		var l *tenure
		if found[i].Revision != 0 {
			var err error
			if l, err = a.decode(found[i]); err != nil {
				continue // a key that is not ours: decode has said so, and no CAS on it can succeed
			}
			if s.e.lease != nil && found[i].Revision == s.e.rev && l.ID == s.e.lease.ID {
				l = s.e.lease // it was another key of the commit that somebody has changed
			}
		}
		a.x.set(s.e, l, found[i].Revision, now)
	}
}

// idle ends busy and wakes who waits.
func (a *Allocator) idle(steps []step) {
	for _, s := range steps {
		s.e.busy = false
		if s.e.wait != nil {
			close(s.e.wait)
			s.e.wait = nil
		}
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
			err = ctx.Err()
		}
		a.mu.Lock()
		return true, err
	}
	if e.unsure != nil {
		return true, a.resolve(ctx, e.unsure)
	}
	return false, nil
}

// resolve makes an unsure commit either made or impossible: it rewrites what was there before, so that a commit that is
// still on its way finds another revision.
func (a *Allocator) resolve(ctx context.Context, c *commit) error {
	before := make([]Change, len(c.steps))
	for i, s := range c.steps {
		s.e.busy = true
		old := s.e.lease
		if old == nil {
			old = &tenure{Lease: Lease{Addr: s.e.addr, Pool: s.e.pool.Name}}
		}
		before[i] = Change{Key: s.e.key, Value: encodeTenure(old), Revision: s.e.rev}
	}
	a.mu.Unlock()
	_, err := a.store.Commit(ctx, before...)
	var found []Record
	if err == nil || errors.Is(err, ErrRevision) {
		found, err = a.read(ctx, c.steps)
	} else {
		err = fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	a.mu.Lock()
	a.idle(c.steps)
	if err != nil {
		return err
	}
	for _, s := range c.steps {
		s.e.unsure = nil
	}
	a.adopt(c.steps, found)
	a.doubts = slices.DeleteFunc(a.doubts, func(d *commit) bool { return d == c })
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
	var older []step
	for i, r := range found {
		addr, err := netip.ParseAddr(strings.TrimPrefix(r.Key, addrPrefix))
		if err != nil {
			continue
		}
		e := a.x.entries[addr]
		if e == nil {
			p := a.x.poolOf(addr)
			if p == nil || r.Revision == 0 {
				continue
			}
			e = a.x.entry(p, addr)
		}
		switch {
		case e.busy || e.unsure != nil:
		case r.Revision > e.rev:
			a.adopt([]step{{e: e}}, found[i:i+1])
		case r.Revision < e.rev:
			older = append(older, step{e: e})
		}
	}
	return a.relearn(ctx, older)
}

// relearn reads entries again that seemed older in the store than what is known: they were read before a change of this
// allocator, or the store was put back to what it was before. While they are busy nothing of this allocator comes between.
func (a *Allocator) relearn(ctx context.Context, older []step) error {
	if len(older) == 0 {
		return nil
	}
	for _, s := range older {
		s.e.busy = true
		s.e.pool.dequeue(s.e)
	}
	a.mu.Unlock()
	found, err := a.read(ctx, older)
	a.mu.Lock()
	a.idle(older)
	if err != nil {
		for _, s := range older {
			a.x.relink(s.e, a.cfg.Now())
		}
		return err
	}
	a.adopt(older, found)
	return nil
}

// decode reads a record. A damaged one gives a lease in quarantine, so that nobody gets an address whose holder is not
// known; that the key is not an address is an error.
func (a *Allocator) decode(r Record) (*tenure, error) {
	addr, err := netip.ParseAddr(strings.TrimPrefix(r.Key, addrPrefix))
	if err != nil {
		return nil, fmt.Errorf("record %q: the key has no address: %w", r.Key, err)
	}
	l, err := decodeTenure(r.Value)
	if err == nil && l.Addr != addr {
		err = fmt.Errorf("%w: it is for %s", errCorrupt, l.Addr)
	}
	if err != nil {
		a.cfg.Logger.Warn("address set aside", "addr", addr, "record", r.Key, "err", err)
		// a generation is never above the revision: no lease id of the past is given again
		return &tenure{Lease: Lease{Addr: addr, Generation: r.Revision, State: Quarantined, Reason: err.Error()}}, nil
	}
	return l, nil
}
