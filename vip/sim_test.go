package vip

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "replay this seed only")
	simSeeds = flag.Int("sim.seeds", 500, "how many seeds to try")
)

// simQuota is the quota of each of three teams in pool p, on every third seed.
const simQuota = 2

// The simulation runs allocators over a store that fails, loses answers and makes commits late,
// with a clock that jumps, restarts and SetPools at any point, and calls that overtake each other
// inside the store. One seed gives one run: nothing in it depends on time, goroutines or the order
// of maps. The accepted commits are judged by rules that know nothing of the allocator. On every
// second seed two allocators share the store, which is now and then restored to an earlier state.
// On three of four seeds elapsed time is measured, and machines are started again: then no address
// is given early however the clock jumps.
func TestSimulation(t *testing.T) {
	t.Parallel()
	if *simSeed != 0 {
		newSim(t, *simSeed).run()
		return
	}
	var total simCounts
	for seed := uint64(1); seed <= uint64(*simSeeds); seed++ {
		s := newSim(t, seed)
		s.run()
		total.add(s.counts)
		if t.Failed() {
			t.Fatalf("replay with: go test ./vip -run TestSimulation -sim.seed=%d", seed)
		}
	}
	t.Logf("%d seeds: %+v", *simSeeds, total)
}

type simCounts struct {
	Calls, Commits, FailedBefore, LostAnswers, LateCommits, FailedReads, Overtakings, Restarts,
	Repooled, Jumps, Uncertain, PutBack, Forgotten, Heard, Pages, Reboots, Measured,
	Dual int
}

func (c *simCounts) add(o simCounts) {
	c.Calls += o.Calls
	c.Commits += o.Commits
	c.FailedBefore += o.FailedBefore
	c.LostAnswers += o.LostAnswers
	c.LateCommits += o.LateCommits
	c.FailedReads += o.FailedReads
	c.Overtakings += o.Overtakings
	c.Restarts += o.Restarts
	c.Repooled += o.Repooled
	c.Jumps += o.Jumps
	c.Uncertain += o.Uncertain
	c.PutBack += o.PutBack
	c.Forgotten += o.Forgotten
	c.Heard += o.Heard
	c.Pages += o.Pages
	c.Reboots += o.Reboots
	c.Measured += o.Measured
	c.Dual += o.Dual
}

var errFault = errors.New("store is away")

type sim struct {
	t      *testing.T
	rnd    *rand.Rand
	inner  *MemStore
	now    time.Time
	real   time.Duration            // that has passed, whatever the clock says
	boots  []string                 // the present start of each allocator's machine
	booted map[string]time.Duration // when each start was; nil when it is not measured
	faults int                      // per cent of store calls that go wrong
	depth  int                      // of calls that overtake
	late   [][]Change
	counts simCounts

	all    []*Allocator // that share the store; nil while one starts
	pools  []Pool
	shared bool
	backup *table[string, *memRecord] // of the store

	// by the rules: the contents of the store
	stored map[netip.Addr]*tenure
	// every lease id there ever was
	used map[string]netip.Addr
	// leases that were promised, until they were released or could have ended
	acked map[string]Lease
	// generation of the last tenure of addresses that were forgotten
	floor map[netip.Addr]uint64
	// revision of the last event that was read
	heard map[*Allocator]uint64
	// see Config.sparseAbove
	sparse uint64
	// lease ids for which a release, quarantine or the like was tried
	maybe map[string]bool
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), inner: NewMemStore(), now: time.Date(2026, 3, 1,
			0, 0, 0, 0, time.UTC),
		stored: map[netip.Addr]*tenure{}, used: map[string]netip.Addr{}, acked: map[string]Lease{},
		maybe: map[string]bool{},
		floor: map[netip.Addr]uint64{}, heard: map[*Allocator]uint64{},
	}
	if seed%5 < 2 {
		s.sparse = 2
	}
	p, _ := ParsePool("p", "10.0.0.0/28")
	p.MaxQuarantined = 0.3
	if seed%3 == 0 {
		p.Quotas = map[string]int{AnyTeam: simQuota}
	}
	q, _ := ParsePool("q", "10.0.1.0-10.0.1.3")
	q.CoolDown = 20 * time.Second
	r, _ := ParsePool("r", "fd00::1-fd00::4")
	r.CoolDown = 20 * time.Second
	s.pools = []Pool{p, q, r}
	s.faults = s.rnd.IntN(40)
	s.shared = seed%2 == 0
	s.all = make([]*Allocator, 1)
	if s.shared {
		s.all = make([]*Allocator, 2)
	}
	if seed%4 != 1 {
		s.booted = map[string]time.Duration{}
		s.boots = make([]string, len(s.all))
		for i := range s.boots {
			s.reboot(i)
		}
	}
	return s
}

// reboot starts the machine of an allocator again; on every second seed it is the same for all.
func (s *sim) reboot(i int) {
	s.counts.Reboots++
	boot := fmt.Sprint("boot ", len(s.booted))
	s.booted[boot] = s.real - time.Duration(s.rnd.IntN(100))*time.Second
	s.boots[i] = boot
	if s.sparse == 0 {
		for i := range s.boots {
			s.boots[i] = boot
		}
	}
}

// rested requires that the address of l has rested as long as its record says, by elapsed time.
func (s *sim) rested(l *tenure) {
	if s.booted == nil || l.State != Cooling && (l.State != Quarantined || l.CoolUntil.IsZero()) {
		return
	}
	s.counts.Measured++
	if l.rest == nil {
		s.failf("%s: %s without a measured rest", l.Addr, l.State)
	} else if rests := s.booted[l.rest.boot] + l.rest.until() - s.real; rests > 0 {
		s.failf("%s: given away %s too early", l.Addr, rests)
	}
}

func (s *sim) clock() time.Time { return s.now }

func (s *sim) failf(format string, args ...any) { s.t.Helper(); s.t.Errorf(format, args...) }

// List implements Store.
func (s *sim) List(ctx context.Context, prefix string) ([]Record, error) {
	s.arriveLate()
	if s.percent(s.faults) {
		s.counts.FailedReads++
		return nil, errFault
	}
	return s.inner.List(ctx, prefix)
}

// Get implements Store.
// Exclusive implements ExclusiveStore.
func (s *sim) Exclusive() bool { return !s.shared }

func (s *sim) Get(ctx context.Context, keys ...string) ([]Record, error) {
	s.arriveLate()
	s.overtake()
	if s.percent(s.faults) {
		s.counts.FailedReads++
		return nil, errFault
	}
	return s.inner.Get(ctx, keys...)
}

// Commit implements Store.
func (s *sim) Commit(ctx context.Context, changes ...Change) (uint64, error) {
	s.arriveLate()
	s.overtake()
	if s.percent(s.faults) {
		switch s.rnd.IntN(3) {
		case 0:
			s.counts.FailedBefore++
			return 0, errFault
		case 1:
			s.counts.LateCommits++
			s.late = append(s.late, changes)
			return 0, errFault
		default:
			s.counts.LostAnswers++
			_, _ = s.make(ctx, changes)
			return 0, errFault
		}
	}
	return s.make(ctx, changes)
}

// impatient is a context of a call that overtakes another: it ends as soon as the call has to wait
// for the other one.
type impatient struct {
	context.Context
	waited bool
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (c *impatient) Done() <-chan struct{} {
	c.waited = true
	return closed
}

func (c *impatient) Err() error {
	if c.waited {
		return context.DeadlineExceeded
	}
	return nil
}

func (s *sim) percent(n int) bool { return s.rnd.IntN(100) < n }

// arriveLate makes a commit whose caller has got an error.
func (s *sim) arriveLate() {
	if len(s.late) > 0 && s.percent(10) {
		i := s.rnd.IntN(len(s.late))
		changes := s.late[i]
		s.late = append(s.late[:i], s.late[i+1:]...)
		_, _ = s.make(context.Background(), changes)
	}
}

// overtake makes other calls while the allocator waits for the store.
func (s *sim) overtake() {
	if !slices.Contains(s.all, nil) && s.depth < 2 && s.percent(15) {
		s.depth++
		s.counts.Overtakings++
		s.step(false)
		s.depth--
	}
}

// make commits, and judges the accepted changes.
func (s *sim) make(ctx context.Context, changes []Change) (uint64, error) {
	rev, err := s.inner.Commit(ctx, changes...)
	if err != nil {
		return rev, err
	}
	s.counts.Commits++
	for _, c := range changes {
		if len(c.Key) > len(addrPrefix) && c.Key[:len(addrPrefix)] == addrPrefix {
			s.judge(c)
		}
	}
	s.pairs()
	return rev, nil
}

// pairs requires that two leases of one pair live together.
func (s *sim) pairs() {
	for addr, l := range s.stored {
		if l.State != Leased || l.Peer == "" {
			continue
		}
		peer, _ := parseLeaseID(l.Peer)
		if other := s.stored[peer.addr]; other == nil || other.ID != l.Peer || other.State != Leased ||
			other.Peer != l.ID || !other.Expires.Equal(l.Expires) && !s.jumped() {
			s.failf("%s: %s lives without %s", addr, l.ID, l.Peer)
		}
	}
}

func (s *sim) judge(c Change) {
	if c.Value == nil {
		s.judgeForgotten(netip.MustParseAddr(c.Key[len(addrPrefix):]))
		return
	}
	next, err := decodeTenure(c.Value)
	if err != nil {
		s.failf("%s: %v", c.Key, err)
		return
	}
	was := s.stored[next.Addr]
	if was == nil {
		was = &tenure{}
	}
	s.stored[next.Addr] = &next
	switch {
	case next.Generation == was.Generation && next.ID == was.ID:
		if was.State != Leased && next.State == Leased {
			s.failf("%s: lease %s lives again", next.Addr, next.ID)
		}
		if was.Owner.Task != next.Owner.Task {
			s.failf("%s: lease %s goes from task %s to %s", next.Addr, next.ID, was.Owner.Task,
				next.Owner.Task)
		}
	case (next.Generation == was.Generation+1 || was.Generation == 0 &&
		next.Generation > s.floor[next.Addr]) && next.State == Leased:
		// the owner that had it last gets it back at once, others when it has rested
		back := was.wasOf(&next.Owner) && was.State != Quarantined
		if !back {
			s.rested(was)
		}
		if was.State == Leased || !back && was.State != Free &&
			(was.State != Cooling && was.State != Quarantined || was.CoolUntil.IsZero()) {
			s.failf("%s: given to %s while %s of %s", next.Addr, next.Owner.Task, was.State,
				was.Owner.Task)
		}
		if cool := s.coolDown(next.Addr); !back && was.CoolUntil.After(s.now) &&
			(was.State != Cooling || s.now.Add(cool).After(was.CoolUntil)) {
			// after a clock was put back an address rests for a cool-down of the new time, not
			// until the old
			if !s.jumped() {
				s.failf("%s: given to %s at %s, rests until %s", next.Addr, next.Owner.Task, s.now,
					was.CoolUntil)
			}
		}
		if rested := next.Acquired.Sub(was.Ended); !back && !was.Ended.IsZero() &&
			rested < s.coolDown(next.Addr) && !s.jumped() {
			s.failf("%s: given to %s, %s after %s had it", next.Addr, next.Owner.Task, rested,
				was.Owner.Task)
		}
		if other, ok := s.used[next.ID]; ok {
			s.failf("lease id %s is used again, first for %s", next.ID, other)
		}
		s.used[next.ID] = next.Addr
		held := 0 // by the team in p
		for addr, other := range s.stored {
			if s.poolOf(addr) == 0 && s.poolOf(next.Addr) == 0 && other.State == Leased &&
				other.Owner.Team == next.Owner.Team {
				held++
			}
			if addr != next.Addr && other.State == Leased && other.Owner.Task == next.Owner.Task &&
				related(other.Owner, next.Owner) && !s.over(other) &&
				(next.Count < 2 || other.Count != next.Count) {
				s.failf("task %s gets %s and has %s", next.Owner.Task, next.Addr, addr)
			}
		}
		// allocators that share a store see the others' changes late
		if held > simQuota && s.pools[0].Quotas != nil && !s.shared {
			s.failf("team %s gets %s and has %d of %d", next.Owner.Team, next.Addr, held, simQuota)
		}
	default:
		s.failf("%s: from %s generation %d to %s generation %d", next.Addr, was.ID, was.Generation,
			next.ID, next.Generation)
	}
}

// judgeForgotten: only free addresses are forgotten.
func (s *sim) judgeForgotten(addr netip.Addr) {
	s.counts.Forgotten++
	was := s.stored[addr]
	s.rested(was)
	rested := was.State == Free || (was.State == Cooling || was.State == Quarantined) &&
		!was.CoolUntil.IsZero()
	if !rested || was.CoolUntil.After(s.now) && !s.jumped() || s.sparse == 0 {
		s.failf("%s: forgotten at %s while %s of %s until %s", addr, s.now, was.State,
			was.Owner.Task, was.CoolUntil)
	}
	s.floor[addr] = max(s.floor[addr], was.Generation)
	delete(s.stored, addr)
}

func (s *sim) jumped() bool { return s.counts.Jumps > 0 }

func (s *sim) coolDown(addr netip.Addr) time.Duration { return s.pools[s.poolOf(addr)].coolDown() }

func (s *sim) poolOf(addr netip.Addr) int {
	if addr.Is6() {
		return 2
	}
	return int(addr.As4()[2])
}

func (s *sim) over(l *tenure) bool { return !l.Expires.IsZero() && !l.Expires.After(s.now) }

func (s *sim) run() {
	jumps := s.percent(30)
	for i := range s.all {
		s.restart(i)
	}
	for range 150 {
		s.step(true)
		if s.shared {
			s.putBack()
		}
		if jumps && s.percent(2) {
			s.counts.Jumps++
			s.now = s.now.Add(time.Duration(s.rnd.IntN(2)*2-1) * time.Hour)
		}
		s.conserved()
	}
	// the store recovers: every promise must still hold
	s.faults = 0
	for len(s.late) > 0 {
		s.arriveLate()
	}
	for i := range s.all {
		s.restart(i)
		if err := s.all[i].Sweep(context.Background()); err != nil {
			s.failf("sweep of a healthy store: %v", err)
		}
	}
	s.conserved()
	for id, l := range s.acked {
		got, err := s.all[0].Get(context.Background(), id)
		if s.maybe[id] || s.maybe[l.Peer] || s.jumped() || !l.Expires.IsZero() &&
			!l.Expires.After(s.now) {
			continue
		}
		if err != nil || got.State != Leased || got.Owner.Task != l.Owner.Task {
			s.failf("lease %s of %s was promised until %s: got %+v, %v", id, l.Owner.Task,
				l.Expires, got, err)
		}
	}
}

// restart begins with the records of the store, as after a crash. The commits that the former
// process had sent arrive before, or never: a store that still makes a dead client's commits could
// give one owner two addresses, though never one address to two. Not so with Shared, where they may
// arrive at any time.
func (s *sim) restart(i int) {
	for len(s.late) > 0 && !s.shared {
		if s.arriveLate(); len(s.late) > 0 && s.percent(10) {
			s.late = s.late[1:]
		}
	}
	for {
		s.all[i] = nil // nothing overtakes a start
		cfg := Config{Now: s.clock, History: 3, Refresh: 10 * time.Second,
			sparseAbove: s.sparse}
		cfg.Store, cfg.Pools = s, s.pools
		if s.booted != nil {
			if s.percent(30) {
				s.reboot(i)
			}
			boot := s.boots[i]
			cfg.Uptime = func() (string, time.Duration) { return boot, s.real - s.booted[boot] }
		}
		a, err := Open(context.Background(), cfg)
		if err == nil {
			a.randN = s.rnd.IntN
			s.all[i] = a
			s.counts.Restarts++
			return
		}
		if !errors.Is(err, errFault) {
			s.failf("start: %v", err)
			return
		}
	}
}

// putBack now and then makes a backup of the store, or puts the store back to it: the commits
// acknowledged since are void, and so are the ones in flight. Its revisions go on growing, as
// Consul's do.
func (s *sim) putBack() {
	switch {
	case s.percent(4):
		s.backup = copied(&s.inner.records)
	case s.backup != nil && s.percent(2):
		s.counts.PutBack++
		s.inner.records = *copied(s.backup)
		s.late = nil // a commit of before, made again after it, could fit
		clear(s.stored)
		clear(s.acked)
		for r := range s.backup.all {
			if strings.HasPrefix(r.tableKey(), addrPrefix) {
				l, err := decodeTenure(r.record().Value)
				if err != nil {
					s.failf("%s: %v", r.tableKey(), err)
					return
				}
				s.stored[l.Addr] = &l
			}
		}
	}
}

func copied(records *table[string, *memRecord]) *table[string, *memRecord] {
	all := &table[string, *memRecord]{}
	for r := range records.all {
		one := *r
		all.put(&one)
	}
	return all
}

// step makes one call. Only calls that overtake nothing may restart the allocator or move the
// clock.
func (s *sim) step(outermost bool) {
	var ctx context.Context = &impatient{Context: context.Background()}
	s.counts.Calls++
	which := s.rnd.IntN(len(s.all))
	a := s.all[which]
	who := s.rnd.IntN(12)
	task, team := fmt.Sprint("T", who), fmt.Sprint(who%3)
	switch n := s.rnd.IntN(100); {
	case n < 40:
		req := Request{Owner: Owner{Task: task, Team: team},
			TTL: time.Duration(1+s.rnd.IntN(300)) * time.Second}
		if s.percent(20) {
			req.TTL = Forever
		}
		if s.percent(20) {
			req.Pool = "q"
		}
		l, err := a.Allocate(ctx, req)
		s.expect(err, ErrExhausted, ErrConflict, ErrQuota)
		if err == nil {
			s.promised(l)
		}
	case n < 43:
		// Only tasks of their own: others have their addresses one by one.
		v4, v6, err := a.AllocateDual(ctx, Request{Owner: Owner{Task: "dual-" + task, Team: team},
			TTL: time.Duration(1+s.rnd.IntN(300)) * time.Second})
		s.expect(err, ErrExhausted, ErrConflict, ErrQuota)
		if err == nil {
			s.promised(v4)
			s.promised(v6)
			s.counts.Dual++
			if !v4.Addr.Is4() || !v6.Addr.Is6() || v4.Peer != v6.ID || v6.Peer != v4.ID {
				s.failf("no pair: %+v, %+v", v4, v6)
			}
		}
	case n < 45:
		all, err := a.AllocateN(ctx, Request{Owner: Owner{Task: task, Team: team,
			Overrides: map[string]string{"web": "v1"}}, TTL: time.Minute}, 2)
		s.expect(err, ErrExhausted, ErrConflict, ErrQuota)
		for _, l := range all {
			s.promised(l)
		}
	case n < 60:
		if l, ok := s.any(); ok {
			s.maybe[l.ID] = true
			got, err := a.Release(ctx, l.ID, "done")
			s.expect(err, s.endOf(l)...)
			if err == nil && got.State == Leased {
				s.failf("released lease %s is %s", l.ID, got.State)
			}
		}
	case n < 70:
		if l, ok := s.any(); ok {
			got, err := a.Renew(ctx, l.ID,
				time.Duration(1+s.rnd.IntN(300))*time.Second)
			s.expect(err, s.endOf(l)...)
			if err == nil {
				s.promised(got)
			} else if errors.Is(err, ErrUncertain) {
				s.maybe[l.ID] = true // it may have become shorter
			}
		}
	case n < 76:
		if l, ok := s.any(); ok {
			_, err := a.Bind(ctx, l.ID,
				[]Instance{{ID: "c", Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
			s.expect(err, s.endOf(l)...)
		}
	case n < 79:
		addr := s.addr()
		if l := s.stored[addr]; l != nil {
			s.maybe[l.ID] = true
		}
		s.maybeAt(addr)
		_, err := a.Quarantine(ctx, addr, "bad", time.Duration(s.rnd.IntN(2))*time.Minute)
		s.maybeAt(addr) // one that began meanwhile, too
		s.expect(err, ErrQuarantineFull, ErrTaken)
	case n < 82:
		_, err := a.Restore(ctx, s.addr(), "good")
		s.expect(err, ErrTaken)
	case n < 90:
		s.expect(a.Sweep(ctx))
	case n < 91:
		s.read(a)
	case n < 92:
		pools := slices.Clone(s.pools)
		pools[0].Disabled = s.percent(20)
		s.counts.Repooled++
		s.expect(a.SetPools(ctx, pools))
	case outermost && n < 97:
		passed := time.Duration(s.rnd.IntN(60)) * time.Second
		s.now, s.real = s.now.Add(passed), s.real+passed
	case outermost:
		s.restart(which)
	}
}

// read lists page by page, and receives the events since the last time.
func (s *sim) read(a *Allocator) {
	q := Query{Limit: 1 + s.rnd.IntN(5), States: []State{Free, Leased, Draining, Cooling,
		Quarantined}}
	whole, n := a.List(Query{States: q.States}), 0
	for more := true; more; n += q.Limit {
		page := a.List(q)
		s.counts.Pages++
		if more = len(page) == q.Limit; more {
			q.After = page[len(page)-1].Addr
		}
		for i, l := range page {
			if n+i >= len(whole) || whole[n+i].ID != l.ID || whole[n+i].State != l.State ||
				a.x.entries.get(l.Addr) == nil {
				s.failf("page from %d on has %s, which is %s; all: %+v", n, l.ID, l.State, whole)
			}
		}
	}
	known := 0
	for e := range a.x.entries.all {
		if e.rev != 0 && e.state != Reserved {
			known++
		}
	}
	if len(whole) != known {
		s.failf("%d leases are listed, %d are known", len(whole), known)
	}
	for after := s.heard[a]; after < a.events.last(); {
		events, err := a.Watch(context.Background(), after)
		if errors.Is(err, ErrCompacted) && after == 0 {
			after = a.Revision()
			s.heard[a] = after
			continue
		}
		if err != nil {
			s.failf("watch: %v", err)
			return
		}
		for _, e := range events {
			if e.Revision != after+1 || e.Lease().Addr == (netip.Addr{}) {
				s.failf("event %d after %d: %+v", e.Revision, after, e.Lease())
			}
			after = e.Revision
			s.counts.Heard++
		}
		s.heard[a] = after
	}
}

// maybeAt: whichever lease lives on addr when the call is made may end.
func (s *sim) maybeAt(addr netip.Addr) {
	for id, l := range s.acked {
		if l.Addr == addr {
			s.maybe[id] = true
		}
	}
}

func (s *sim) addr() netip.Addr {
	if s.percent(20) {
		return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(1 + s.rnd.IntN(4))})
	}
	if s.percent(40) {
		return netip.AddrFrom4([4]byte{10, 0, 1, byte(s.rnd.IntN(4))})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(s.rnd.IntN(16))})
}

func (s *sim) promised(l Lease) {
	if other, ok := s.acked[l.Peer]; ok { // it was renewed, too
		other.Expires = l.Expires
		s.acked[l.Peer] = other
	}
	have := s.stored[l.Addr]
	if have == nil || have.Generation < l.Generation {
		s.failf("lease %s was promised and is not in the store: %+v", l.ID, have)
	}
	s.acked[l.ID] = l
}

// any picks one of the leases that there ever were.
func (s *sim) any() (Lease, bool) {
	if len(s.used) == 0 {
		return Lease{}, false
	}
	addr := s.addr()
	l := s.stored[addr]
	if l == nil || l.Generation == 0 {
		return Lease{}, false
	}
	if s.percent(20) { // of an earlier holder
		return Lease{ID: newLeaseID(addr.String(), 1+s.rnd.Uint64N(l.Generation))}, true
	}
	return l.Lease, true
}

// endOf are the errors of a call for a lease that may be over.
func (s *sim) endOf(l Lease) []error {
	named, _ := parseLeaseID(l.ID)
	if s.floor[named.addr] >= named.generation { // it was forgotten
		return []error{ErrFenced, ErrNotFound}
	}
	return []error{ErrFenced}
}

func (s *sim) expect(err error, allowed ...error) {
	s.t.Helper()
	for _, want := range append(allowed, errFault, context.DeadlineExceeded) {
		if err == nil || errors.Is(err, want) {
			if errors.Is(err, ErrUncertain) {
				s.counts.Uncertain++
			}
			return
		}
	}
	s.failf("unexpected: %v", err)
}

func (s *sim) conserved() {
	for _, a := range s.all {
		s.conservedIn(a)
	}
}

func (s *sim) conservedIn(a *Allocator) {
	for _, p := range a.Stats() {
		if p.Free+p.Leased+p.Draining+p.Cooling+p.Quarantined+p.Reserved != p.Size ||
			p.Free > p.Size {
			s.failf("states do not add up: %+v", p)
		}
	}
}
