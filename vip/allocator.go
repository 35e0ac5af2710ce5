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
	"sync"
	"time"
)

const (
	addrPrefix    = "addr/"
	fetchAllAfter = 4  // conflicts with other allocators in one call
	maxRounds     = 64 // conflicts with other allocators before ErrContended
	maxSkip       = 63 // places in the free queue by which allocators avoid each other
	maxResends    = 3  // of a commit whose outcome the store did not say
	sweepAtOnce   = 16 // leases ended in one commit: a Consul transaction holds 64 operations
	defaultTTL    = 24 * time.Hour
	defaultEvery  = time.Second
	defaultDrain  = 10 * time.Minute

	defaultProbeRest = 10 * time.Minute
	defaultHistory   = 16
)

// Config configures an Allocator. Store and Pools are required.
type Config struct {
	// Store keeps the leases.
	Store Store
	// Pools are the addresses that may be leased, at least one pool. SetPools changes them later.
	Pools []Pool
	// DefaultTTL of a request that names none, at most 100 years; Forever is allowed. The default
	// is 24 h.
	DefaultTTL time.Duration
	// Grace after Expires in which a lease is still live and may be renewed. The default is none.
	Grace time.Duration
	// Drained reports whether nothing uses the address of an ended lease any more, so that its
	// cool-down may begin. Sweep calls it, without locks held, until it returns true. The default
	// is to begin the cool-down at once.
	Drained func(ctx context.Context, ended Lease) (bool, error)
	// DrainLimit is how long an address waits for Drained before its cool-down begins regardless.
	// The default is 10 min.
	DrainLimit time.Duration
	// Probe, when set, is asked before an address is handed out whether something uses it already:
	// a machine that was given the address by hand, an instance that never left. For an address
	// that answers always, as one of a load balancer, leave it out. An address in use is
	// quarantined for ProbeRest, and another is tried; when the quarantine is full the error is
	// ErrQuarantineFull. After an error the address is not handed out, and the allocation fails
	// with that error. For an owner that gets back the address that it had last, Probe is not
	// called: the owner may be using it. Probe is called without locks held, for several addresses
	// at once, and obeys ctx. The default is none.
	Probe func(ctx context.Context, addr netip.Addr) (inUse bool, err error)
	// ProbeRest is how long an address rests that Probe has found in use. The default is 10 min.
	ProbeRest time.Duration
	// History is how many records of the past are kept for each address; negative for none. The
	// default is 16.
	History int
	// Refresh is the time between two reads of the whole store by Run, unless the store is an
	// ExclusiveStore. A Watcher is read when it has changed instead, at once, though at most twice
	// in Refresh or in 5 s, whichever is less. List, Watch, Stats and quotas may lag behind other
	// allocators by up to Refresh. The default is 5 s.
	Refresh time.Duration
	// Interval is the longest time between two sweeps of Run. The default is 1 s.
	Interval time.Duration
	// Logger of Run, and of records that are set aside as damaged. The default discards.
	Logger *slog.Logger
	// Now is the clock. The default is time.Now.
	Now func() time.Time
	// Uptime is the time since the machine was started, suspends included, and a name of that start
	// that no other start or machine has. Cool-downs, and quarantines that end, are measured by it:
	// a clock that is put forward or back changes nothing, also over a restart of the process.
	// After another start, or on another machine, what rests begins its rest again, unless a record
	// shows that the earlier start lasted longer than the rest. The default is CLOCK_BOOTTIME and
	// the kernel's boot id on Linux; none on other systems, and none when Now is set: without it,
	// as for a name of "", Now measures. Allocators that share a store all have it or all have not.
	Uptime func() (boot string, up time.Duration)
	// Observe, when set, is called at the end of every Allocate, Renew, Bind, Release, Quarantine
	// and Restore with the name of the call in lower case, how long it took and its error; and,
	// whenever any call or Run has had the allocator's lock, with "lock wait", how long it waited
	// for it, and with "lock hold", how long it held it. A call has the lock several times: it lets
	// go of it while the store is called, but for a commit to a MemStore. Observe is called without
	// that lock, and must neither block nor call the Allocator. Stats counts the addresses by
	// state, and Waiting lists the requests in the queue. The default is none.
	Observe func(op string, took time.Duration, err error)

	sparseAbove uint64 // sparseSize but in tests
}

// validate returns all problems, each with the name of its field.
func (cfg *Config) validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("vip: Config.%s: %s: %w", field,
			fmt.Sprintf(format, args...), ErrInvalid))
	}
	if cfg.Store == nil {
		bad("Store", "required")
	}
	if _, err := layOutAll(cfg.Pools); err != nil {
		errs = append(errs, fmt.Errorf("vip: Config.Pools: %w", err))
	}
	if ttl := cfg.DefaultTTL; ttl < 0 && ttl != Forever || ttl > longestTTL {
		bad("DefaultTTL", "%s: want 0 (default %s) to 100 years, or Forever", ttl, defaultTTL)
	}
	for _, d := range []struct {
		field   string
		value   time.Duration
		without string
	}{
		{"Grace", cfg.Grace, "none"}, {"DrainLimit", cfg.DrainLimit, defaultDrain.String()},
		{"Refresh", cfg.Refresh, defaultRefresh.String()}, {"Interval", cfg.Interval,
			defaultEvery.String()},
		{"ProbeRest", cfg.ProbeRest, defaultProbeRest.String()},
	} {
		if d.value < 0 {
			bad(d.field, "%s: want 0 (default %s) or more", d.value, d.without)
		}
	}
	return errors.Join(errs...)
}

func (cfg *Config) setDefaults() {
	if cfg.Now == nil {
		cfg.Now = time.Now
		if cfg.Uptime == nil {
			cfg.Uptime = machineUptime()
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.DefaultTTL = cmp.Or(cfg.DefaultTTL, defaultTTL)
	cfg.Interval = cmp.Or(cfg.Interval, defaultEvery)
	cfg.Refresh = cmp.Or(cfg.Refresh, defaultRefresh)
	cfg.History = cmp.Or(cfg.History, defaultHistory)
	cfg.DrainLimit = cmp.Or(cfg.DrainLimit, defaultDrain)
	cfg.ProbeRest = cmp.Or(cfg.ProbeRest, defaultProbeRest)
}

// Allocator leases addresses out of pools. It is safe for concurrent use. Every change is in the
// store before the call that made it returns.
type Allocator struct {
	store   Store
	shared  bool // other allocators may use the store
	cfg     Config
	catalog catalog // its lock is taken before mu, never while mu is held
	summary summary // likewise
	lost    lostLeases
	// held by SetPools, before mu
	settingPools sync.Mutex
	poolsAtOnce  int

	// mu guards all that follows. The public methods take it. It is free while the store is called,
	// see unlocked and storing, and meanwhile an entry with a call in flight is busy. A private
	// method without a context keeps mu throughout; one with a context may let go of it, and has it
	// again when it returns, unless its comment says that it is called without mu.
	mu   allocatorLock
	x    *index
	warm warmth
	// whose outcome is not known
	uncertain []*commit
	// closed when busy ends; made by the first call that waits for it
	idled map[*entry]chan struct{}
	// in the order of waiter.before
	waiters []*waiter
	// requests that have waited so far
	waited uint64
	// by task
	waitersOf map[string][]*waiter
	// of SetPools
	poolsRevision uint64
	// see listPools; nil until they are asked for
	listed []Pool
	// closed by the next SetPools; nil without a caller of WatchPools
	poolsAhead chan struct{}
	events     eventLog
	// which may be free, but are not handed out until they have been read
	refetching [][]*entry
	// to be used again, chained
	nextFree *commit
	// that commit encodes in
	scratch []byte
	// leases that Sweep ends in one commit: fewer after the store has found them too large
	atOnce int

	// how many places Allocate may skip in the free queue
	skip int
	// the highest that this allocator has seen in the store
	revision uint64
	// see forgetsKey
	forgets bool
	// when it began to read all addresses for the last time that it could
	read time.Time
	// the time before that
	readBefore time.Time
	// the store reports changes of others to Run
	following bool
	// when the changes of other allocators were last read
	refreshed time.Time
	// tasks whose owner record may be of no use any more
	forgotten []string
	// the store if it is a MemStore, see storing; else nil
	mem *MemStore
	// rand.IntN
	randN func(n int) int
}

// Open loads the leases from the store and returns an allocator for the pools. A live lease outside
// all pools is kept until it ends. A record that is damaged puts its address into quarantine and
// affects no other. A bad cfg is ErrInvalid, with all problems at once; other errors are the
// store's, or context.Cause(ctx). ctx bounds the loading only.
func Open(ctx context.Context, cfg Config) (*Allocator, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	a := &Allocator{store: cfg.Store, shared: isShared(cfg.Store), cfg: cfg, atOnce: sweepAtOnce,
		poolsAtOnce: poolsAtOnce, idled: map[*entry]chan struct{}{},
		waitersOf: map[string][]*waiter{},
		randN:     rand.IntN}
	a.mem, _ = cfg.Store.(*MemStore)
	a.mu.now, a.mu.observe = cfg.Now, cfg.Observe
	a.events.begin(0) // the records found are no news: begin sets the first revision
	if err := a.load(ctx); err != nil {
		return nil, err
	}
	a.refreshed = cfg.Now()
	if a.shared {
		if err := a.findForgotten(ctx); err != nil {
			return nil, err
		}
	}
	if err := a.begin(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// react carries out the effects of a transition of the index. It is called with mu held.
func (a *Allocator) react(fx effects) {
	for i := range fx.events {
		a.events.add(&fx.events[i])
	}
	for _, e := range fx.owners {
		a.ownerChanged(e)
	}
	for _, p := range fx.freed {
		p.wakeFirst()
	}
}

// advance brings the index up to now. It is called with mu held.
func (a *Allocator) advance(now time.Time) {
	if a.x.isDue(now) {
		a.readUptime()
	}
	a.react(a.x.advance(now))
}

// relink computes the state of e again. It is called with mu held.
func (a *Allocator) relink(e *entry, now time.Time) { a.react(a.x.relink(e, now)) }

func layOutAll(pools []Pool) ([]layout, error) {
	layouts := make([]layout, len(pools))
	names := map[string]bool{}
	var errs []error
	for i, p := range pools {
		var err error
		layouts[i], err = layOut(p)
		errs = append(errs, err)
		if names[p.Name] {
			errs = append(errs, fmt.Errorf("pool %q: Pool.Name: another pool has this name: %w",
				p.Name, ErrInvalid))
		}
		names[p.Name] = true
	}
	if len(pools) == 0 {
		errs = append(errs, fmt.Errorf("want at least one pool: %w", ErrInvalid))
	}
	return layouts, errors.Join(append(errs, overlaps(pools, layouts))...)
}

// load reads the leases from the store, for Open.
func (a *Allocator) load(ctx context.Context) error {
	layouts, err := layOutAll(a.cfg.Pools)
	if err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("load leases: %w", err)
	}
	a.read = a.cfg.Now()
	records, err := a.store.List(ctx, addrPrefix)
	if err != nil {
		return fmt.Errorf("load leases: %w", err)
	}
	entries, err := a.decodeAll(records)
	if err != nil {
		return fmt.Errorf("load leases: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	a.x = newIndex(a.cfg.Pools, layouts, a.cfg.Grace, cmp.Or(a.cfg.sparseAbove, sparseSize),
		len(entries), &a.warm)
	a.readUptime().offBy(now)
	for _, e := range entries {
		if l := e.resting(); l != nil {
			a.x.learn(l)
		}
	}
	for _, r := range records {
		a.revision = max(a.revision, r.Revision)
	}
	a.react(a.x.load(entries, now))
	a.poolsChanged()
	return nil
}

// changeRules replaces the pools if the present ones have the same addresses, rest them as long,
// and count the teams that have quotas. It reports whether it has.
func (a *Allocator) changeRules(pools []Pool, layouts []layout) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(pools) != len(a.x.byName) {
		return false
	}
	for i := range pools {
		p, want := a.x.byName[pools[i].Name], &pools[i]
		if p == nil || p.CoolDown != want.CoolDown || !slices.Equal(p.ranges, layouts[i].ranges) ||
			!maps.Equal(p.Reserved, want.Reserved) || len(want.Quotas) > 0 && !p.countsTeams {
			return false
		}
	}
	a.advance(a.cfg.Now())
	a.x.changeRules(pools)
	a.poolsChanged()
	return true
}
