package vip_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

// oracle is the allocator as a person would keep it on paper: a list of addresses that is walked
// from end to end.
type oracle struct {
	now      time.Time
	pools    []vip.Pool
	rows     []*row
	drains   bool                 // a proof is asked for
	proven   bool                 // and given
	gone     string               // the task that does not exist any more
	suspects map[string]time.Time // lease id → since when its task is gone
}

type row struct {
	addr    netip.Addr
	pool    string
	cool    time.Duration
	state   vip.State
	task    string
	gen     uint64
	ids     []string  // of its tenures
	expires time.Time // zero: never
	kind    kind      // of its lease, or of the last
	peer    *row      // that begins and ends with it; nil for none
	bound   string    // the instance behind it
	until   time.Time // end of cool-down or quarantine
	freed   time.Time // zero: never used
	ended   time.Time
	taken   bool   // out of the pool: it is reserved as soon as it is free
	said    []said // its holders, oldest first
}

// kind tells the leases of one task apart, by the clusters that they override.
type kind int

const (
	single kind = iota
	group       // of two addresses
	pair        // of an IPv4 and an IPv6 address
)

// said is the holder and the binding of an address from at on.
type said struct {
	at          time.Time
	task, bound string
}

func (o *oracle) say(r *row) { r.said = append(r.said, said{o.now, r.task, r.bound}) }

// begin gives r to task.
func (o *oracle) begin(r *row, task string, kind kind, l vip.Lease) {
	*r = row{
		addr: r.addr, pool: r.pool, cool: r.cool, taken: r.taken, said: r.said,
		state: vip.Leased, task: task, gen: r.gen + 1, ids: append(r.ids, l.ID), expires: l.Expires,
		kind: kind,
	}
	o.say(r)
}

func (o *oracle) tick() {
	for _, r := range o.rows {
		if (r.state == vip.Cooling || r.state == vip.Quarantined) && !r.until.IsZero() &&
			!r.until.After(o.now) {
			r.state, r.freed = vip.Free, r.until
		}
		if r.state == vip.Free && r.taken {
			r.state = vip.Reserved
		}
	}
}

func (o *oracle) sweep() {
	for _, r := range o.rows {
		if o.over(r) {
			o.end(r)
		}
	}
	for _, r := range o.rows {
		if r.state == vip.Draining && (o.proven || !r.ended.Add(drainLimit).After(o.now)) {
			o.cool(r)
		}
	}
}

const drainLimit = 10 * time.Minute

func (o *oracle) over(r *row) bool {
	return r.state == vip.Leased && !r.expires.IsZero() && !r.expires.After(o.now)
}

// end ends the lease of r, and of its peer.
func (o *oracle) end(r *row) {
	if peer := r.peer; peer != nil {
		r.peer, peer.peer = nil, nil
		o.end(peer)
	}
	r.ended = o.now
	r.said = append(r.said, said{at: o.now})
	o.drain(r)
}

func (o *oracle) drain(r *row) {
	if r.state = vip.Draining; !o.drains || r.gen == 0 {
		o.cool(r)
	}
}

func (o *oracle) cool(r *row) { r.state, r.until = vip.Cooling, o.now.Add(r.cool) }

func (o *oracle) holder(task string) *row {
	for _, r := range o.rows {
		if r.state == vip.Leased && r.task == task && r.kind == single {
			return r
		}
	}
	return nil
}

// held lists the live leases of a group, or a pair, of a task.
func (o *oracle) held(task string, kind kind) []*row {
	var all []*row
	for _, r := range o.rows {
		if r.state == vip.Leased && r.task == task && r.kind == kind {
			all = append(all, r)
		}
	}
	return all
}

// open says whether the pool hands out anything.
func (o *oracle) open(pool string) bool {
	return !o.pools[slices.IndexFunc(o.pools, func(p vip.Pool) bool {
		return p.Name == pool
	})].Disabled
}

// best lists the addresses that a request of task may get now out of these pools.
func (o *oracle) best(task string, kind kind, pools []vip.Pool) []*row {
	if last := o.last(task, kind, pools); len(last) > 0 { // wherever
		return last
	}
	for _, p := range pools {
		free := o.free(p.Name)
		if len(free) == 0 || !o.open(p.Name) {
			continue
		}
		return slices.DeleteFunc(free, func(r *row) bool { return !r.freed.Equal(free[0].freed) })
	}
	return nil
}

// free lists the free addresses of a pool, longest free first.
func (o *oracle) free(pool string) []*row {
	var free []*row
	for _, r := range o.rows {
		if r.pool == pool && r.state == vip.Free {
			free = append(free, r)
		}
	}
	slices.SortStableFunc(free, func(a, b *row) int { return a.freed.Compare(b.freed) })
	return free
}

// last lists the address of the pools that task had last, several if it ended them at the same
// time: it may have it again at once.
func (o *oracle) last(task string, kind kind, pools []vip.Pool) []*row {
	var last []*row
	for _, r := range o.rows {
		in := slices.ContainsFunc(pools, func(p vip.Pool) bool { return p.Name == r.pool })
		if !in || !r.returnsTo(task, kind) || !o.open(r.pool) {
			continue
		}
		if len(last) > 0 && r.ended.After(last[0].ended) {
			last = nil
		}
		if len(last) == 0 || r.ended.Equal(last[0].ended) {
			last = append(last, r)
		}
	}
	return last
}

func (r *row) returnsTo(task string, kind kind) bool {
	rests := r.state == vip.Cooling || r.state == vip.Draining
	return (r.state == vip.Free || rests && !r.taken) && r.task == task && r.kind == kind &&
		r.gen > 0
}

func (o *oracle) row(addr netip.Addr) *row {
	return o.rows[slices.IndexFunc(o.rows, func(r *row) bool { return r.addr == addr })]
}

func (o *oracle) counts(pool string) [6]uint64 {
	var n [6]uint64
	for _, r := range o.rows {
		if r.pool == pool {
			n[r.state]++
		}
	}
	return n
}

func newOracle(t require.TestingT) *oracle {
	p, err := vip.ParsePool("p", "10.0.0.0/29")
	require.NoError(t, err)
	q, err := vip.ParsePool("q", "10.0.1.1-10.0.1.3")
	require.NoError(t, err)
	six, err := vip.ParsePool("six", "fd00::1-fd00::3")
	require.NoError(t, err)
	p.MaxQuarantined, q.MaxQuarantined, q.CoolDown = 1, 1, 30*time.Second
	six.MaxQuarantined, six.CoolDown = 1, time.Minute
	o := &oracle{now: newClock().now, pools: []vip.Pool{p, q, six},
		suspects: map[string]time.Time{}}
	for _, pool := range o.pools {
		for a := pool.Ranges[0].First; a.Compare(pool.Ranges[0].Last) <= 0; a = a.Next() {
			r := &row{addr: a, pool: pool.Name, cool: vip.DefaultCoolDown}
			if pool.CoolDown > 0 {
				r.cool = pool.CoolDown
			}
			if _, reserved := pool.Reserved[a]; reserved {
				r.state = vip.Reserved
			}
			o.rows = append(o.rows, r)
		}
	}
	return o
}

// routes is a view of the tasks that are served, by address.
type routes map[netip.Addr]string

func (routes) Name() string { return "routes" }

func (r routes) Observe(context.Context) (all []audit.Observation, err error) {
	for ip, task := range r {
		all = append(all, audit.Observation{Addr: ip, Task: task})
	}
	return all, nil
}

func (r routes) Repair(_ context.Context, f audit.Finding) error {
	if delete(r, f.Addr); f.Lease != nil {
		r[f.Addr] = f.Lease.Owner.Task
	}
	return nil
}

// live lists the tasks of the live leases by address.
func (o *oracle) live() map[netip.Addr]string {
	live := map[netip.Addr]string{}
	for _, r := range o.rows {
		if r.state == vip.Leased {
			live[r.addr] = r.task
		}
	}
	return live
}

// showing is a store for several allocators that may show itself as another.
type showing struct {
	*vip.MemStore
	replica reader
}

// reader reads a store.
type reader interface {
	List(ctx context.Context, prefix string) ([]vip.Record, error)
	Get(ctx context.Context, keys ...string) ([]vip.Record, error)
}

func (*showing) Exclusive() bool { return false }

// as makes s show itself as r, which takes no commits; as itself when r is its MemStore.
func (s *showing) as(r reader) {
	if s.replica = r; r == s.MemStore {
		s.replica = nil
	}
}

func (s *showing) List(ctx context.Context, prefix string) ([]vip.Record, error) {
	if s.replica != nil {
		return s.replica.List(ctx, prefix)
	}
	return s.MemStore.List(ctx, prefix)
}

func (s *showing) Get(ctx context.Context, keys ...string) ([]vip.Record, error) {
	if s.replica != nil {
		return s.replica.Get(ctx, keys...)
	}
	return s.MemStore.Get(ctx, keys...)
}

func (s *showing) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	if s.replica != nil {
		return 0, errors.New("no leader")
	}
	return s.MemStore.Commit(ctx, changes...)
}

// replica is a server that has these records, sorted by key, and no connection to the others: it
// answers, and takes no commits.
type replica []vip.Record

func (r replica) List(_ context.Context, prefix string) (found []vip.Record, err error) {
	for _, record := range r {
		if strings.HasPrefix(record.Key, prefix) {
			found = append(found, record)
		}
	}
	return found, nil
}

func (r replica) Get(_ context.Context, keys ...string) ([]vip.Record, error) {
	found := make([]vip.Record, len(keys))
	for i, key := range keys {
		found[i] = vip.Record{Key: key}
		for _, record := range r {
			if record.Key == key {
				found[i] = record
			}
		}
	}
	return found, nil
}

const foreignTask = "foreign-" // and a number

func isForeign(l vip.Lease) bool { return strings.HasPrefix(l.Owner.Task, foreignTask) }

// foreign returns the records of another installation, with the same pools, leases of its own and
// revisions that are far ahead.
func foreign(t *rapid.T, o *oracle, c *clock) []vip.Record {
	store := vip.NewMemStore()
	pools := slices.Clone(o.pools)
	for i := range pools {
		pools[i].Disabled = false
	}
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.Shared(store), Pools: pools, Now: c.Now})
	require.NoError(t, err)
	for i := range rapid.IntRange(1, 8).Draw(t, "foreign leases") {
		l, err := a.Allocate(t.Context(),
			vip.Request{Owner: owner(fmt.Sprint(foreignTask, i))})
		if errors.Is(err, vip.ErrExhausted) {
			break
		}
		require.NoError(t, err)
		if i%3 == 2 {
			_, err = a.Release(t.Context(), l.ID, "")
			require.NoError(t, err)
		}
	}
	records, err := store.List(t.Context(), "")
	require.NoError(t, err)
	for i := range records {
		records[i].Revision += 1 << 30
	}
	return records
}

func TestStateMachine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o, c, mem := newOracle(t), newClock(), vip.NewMemStore()
		cfg := vip.Config{
			Now: c.Now, History: 1000,
		}
		var store vip.Store = mem
		shown := &showing{MemStore: mem} // what the allocator sees of mem when it is shared
		shared := rapid.Bool().Draw(t, "shared")
		if shared {
			store = shown
		}
		var backup []vip.Record
		if o.drains = rapid.Bool().Draw(t, "drains"); o.drains {
			cfg.Drained = func(context.Context, vip.Lease) (bool, error) { return o.proven, nil }
		}
		var leaks *audit.LeakChecker
		look := func(a *vip.Allocator) { // from the beginning
			clear(o.suspects)
			var err error
			leaks, err = audit.NewLeakChecker(audit.LeakConfig{
				Leases: a, Now: c.Now, Grace: time.Minute,
				Alive: func(_ context.Context, l vip.Lease) (bool, error) {
					return l.Owner.Task != o.gone, nil
				},
			})
			require.NoError(t, err)
		}
		start := func() *vip.Allocator {
			cfg.Store, cfg.Pools = store, o.pools
			a, err := vip.Open(t.Context(), cfg)
			require.NoError(t, err)
			look(a)
			return a
		}
		a := start()
		// the addresses as a watcher knows them
		known, after := map[netip.Addr]vip.Lease{}, a.Revision()
		tasks := rapid.SampledFrom([]string{"A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K",
			"L"})
		instances := rapid.SampledFrom([]string{"192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"})
		some := rapid.Custom(func(t *rapid.T) *row {
			return rapid.SampledFrom(o.rows).Draw(t, "row")
		})
		// lease draws a lease, mostly the latest of its address
		lease := func(t *rapid.T) (*row, uint64, string) {
			r := some.Draw(t, "lease")
			gen := r.gen
			if gen > 0 && rapid.IntRange(0, 4).Draw(t, "stale") == 0 {
				gen = rapid.Uint64Range(1, gen).Draw(t, "generation")
			}
			if gen == 0 {
				return r, gen, fmt.Sprint(r.addr, "-1")
			}
			return r, gen, r.ids[gen-1]
		}
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) {
				task, ttl := tasks.Draw(t, "task"),
					time.Duration(rapid.IntRange(1, 300).Draw(t, "ttl"))*time.Second
				l, err := a.Allocate(t.Context(), vip.Request{Owner: owner(task), TTL: ttl})
				if r := o.holder(task); r != nil && o.over(r) {
					o.end(r)
				}
				if r := o.holder(task); r != nil {
					require.NoError(t, err)
					require.Equal(t, r.addr, l.Addr)
					delete(o.suspects, l.ID)
					return
				}
				best := o.best(task, single, o.pools)
				if len(best) == 0 {
					require.ErrorIs(t, err, vip.ErrExhausted)
					return
				}
				require.NoError(t, err)
				i := slices.IndexFunc(best, func(r *row) bool { return r.addr == l.Addr })
				require.GreaterOrEqual(t, i, 0, "%s, free since %s, is not one of the best: %s, "+
					"free since %s", l.Addr, o.row(l.Addr).freed, best[0].addr, best[0].freed)
				o.begin(best[i], task, single, l)
				require.Equal(t, best[i].gen, l.Generation)
				require.True(t, l.Expires.Equal(o.now.Add(ttl)))
			},
			"allocate two": func(t *rapid.T) {
				task := tasks.Draw(t, "task")
				leases, err := a.AllocateN(t.Context(), vip.Request{Owner: owner(task, "web", "v1"),
					TTL: time.Minute}, 2)
				for _, r := range o.held(task, group) {
					if o.over(r) {
						o.end(r)
					}
				}
				switch held := o.held(task, group); len(held) {
				case 1:
					require.ErrorIs(t, err, vip.ErrConflict)
					return
				case 2:
					require.NoError(t, err)
					for i, r := range held {
						require.Equal(t, r.addr, leases[i].Addr)
						delete(o.suspects, leases[i].ID)
					}
					return
				}
				for _, p := range o.pools {
					free := o.free(p.Name)
					if len(free) < 2 || !o.open(p.Name) {
						continue
					}
					require.NoError(t, err)
					want, got := []time.Time{free[0].freed, free[1].freed}, []time.Time(nil)
					for _, l := range leases {
						require.Equal(t, p.Name, l.Pool)
						require.Equal(t, vip.Free, o.row(l.Addr).state)
						got = append(got, o.row(l.Addr).freed)
						o.begin(o.row(l.Addr), task, group, l)
					}
					slices.SortFunc(got, time.Time.Compare)
					require.Equal(t, want, got, "those free for longest")
					return
				}
				require.ErrorIs(t, err, vip.ErrExhausted)
			},
			"allocate a pair": func(t *rapid.T) {
				task := tasks.Draw(t, "task")
				v4, v6, err := a.AllocateDual(t.Context(),
					vip.Request{Owner: owner(task, "api", "v1"), TTL: time.Minute})
				if held := o.held(task, pair); len(held) > 0 && o.over(held[0]) {
					o.end(held[0])
				}
				if held := o.held(task, pair); len(held) > 0 {
					require.NoError(t, err)
					require.Equal(t, []netip.Addr{held[0].addr, held[1].addr},
						[]netip.Addr{v4.Addr, v6.Addr})
					delete(o.suspects, v4.ID)
					delete(o.suspects, v6.ID)
					return
				}
				four, six := o.best(task, pair, o.pools[:2]), o.best(task, pair, o.pools[2:])
				if len(four) == 0 || len(six) == 0 {
					require.ErrorIs(t, err, vip.ErrExhausted)
					return
				}
				require.NoError(t, err)
				r, peer := o.row(v4.Addr), o.row(v6.Addr)
				require.Contains(t, four, r)
				require.Contains(t, six, peer)
				o.begin(r, task, pair, v4)
				o.begin(peer, task, pair, v6)
				r.peer, peer.peer = peer, r
			},
			"allocate by name": func(t *rapid.T) {
				task, r := tasks.Draw(t, "task"), some.Draw(t, "addr")
				held := o.holder(task)
				l, err := a.Allocate(t.Context(), vip.Request{Owner: owner(task), Addr: r.addr,
					TTL: vip.Forever})
				if held != nil && o.over(held) {
					o.end(held)
					held = nil
				}
				switch {
				case held != nil && held != r:
					require.ErrorIs(t, err, vip.ErrConflict)
				case held == r:
					require.NoError(t, err)
					delete(o.suspects, l.ID)
				case r.state != vip.Free && !r.returnsTo(task, single) || !o.open(r.pool):
					require.ErrorIs(t, err, vip.ErrTaken)
				default:
					require.NoError(t, err)
					require.Equal(t, r.addr, l.Addr)
					o.begin(r, task, single, l)
				}
			},
			"bind": func(t *rapid.T) {
				r, gen, id := lease(t)
				at := instances.Draw(t, "instance")
				_, err := a.Bind(t.Context(), id,
					[]vip.Instance{{ID: "c", Addr: netip.MustParseAddrPort(at)}})
				switch {
				case r.gen == 0:
					require.ErrorIs(t, err, vip.ErrNotFound)
				case gen != r.gen || r.state != vip.Leased || o.over(r):
					require.ErrorIs(t, err, vip.ErrFenced)
				default:
					require.NoError(t, err)
					for _, r := range []*row{r, r.peer} {
						if r != nil {
							r.bound = at
							o.say(r)
						}
					}
				}
			},
			"audit": func(t *rapid.T) {
				// of no pool, and reserved
				foreign := []netip.Addr{addr("192.0.2.1"), addr("10.0.0.7"), addr("10.0.0.0")}
				view, want := routes{}, routes{}
				for _, ip := range foreign {
					view[ip], want[ip] = "foreign", "foreign"
				}
				for _, r := range o.rows {
					if r.state == vip.Reserved {
						continue
					}
					if r.state == vip.Leased {
						want[r.addr] = r.task
					}
					if seen := rapid.SampledFrom([]string{"", r.task, "ghost"}).Draw(t,
						"seen"); seen != "" {
						view[r.addr] = seen
					}
				}
				seen := maps.Clone(view)
				check := func(a *vip.Allocator, share float64) error {
					auditor, err := audit.New(audit.Config{Leases: a, Views: []audit.View{view},
						MaxShare: share})
					require.NoError(t, err)
					report, err := auditor.Check(t.Context())
					require.NoError(t, err)
					require.Equal(t, seen, view, "to look changes nothing")
					_, err = auditor.Repair(t.Context(), report, nil)
					return err
				}
				empty, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(),
					Pools: o.pools, Now: c.Now})
				require.NoError(t, err)
				if err := check(empty, 1); err != nil { // else it owns none of the addresses seen
					require.ErrorIs(t, err, audit.ErrHeld)
				}
				require.Equal(t, seen, view, "an empty store wipes nothing")
				for _, l := range a.Lost() { // of another store that was seen: they may be served
					r := o.row(l.Addr)
					if l.State == vip.Leased && r.state != vip.Leased && seen[r.addr] != "" {
						want[r.addr] = seen[r.addr]
					}
				}
				if all, err := a.Snapshot(t.Context()); err != nil || all.Empty() {
					require.NoError(t, err)
					return // it is as the one above
				}
				if err := check(a, 0); err != nil {
					require.ErrorIs(t, err, audit.ErrHeld)
					require.Equal(t, seen, view)
					require.NoError(t, check(a, 1))
				}
				require.Equal(t, want, view)
			},
			"back up": func(t *rapid.T) {
				var err error
				backup, err = mem.List(t.Context(), "")
				require.NoError(t, err)
			},
			"store shows itself empty, old or foreign": func(t *rapid.T) {
				if !shared {
					t.Skip("an allocator that has its store alone reads it once")
				}
				live := o.live()
				as := rapid.SampledFrom([]string{"empty", "old", "foreign"}).Draw(t, "as")
				shown.as(replica(map[string][]vip.Record{"empty": nil, "old": backup,
					"foreign": foreign(t, o, c)}[as]))
				snapshot, err := a.Snapshot(t.Context())
				require.NoError(t, err)
				if as == "empty" {
					require.True(t, snapshot.Empty())
					lost := map[netip.Addr]string{}
					for _, l := range a.Lost() {
						if l.State == vip.Leased && !isForeign(l) {
							lost[l.Addr] = l.Owner.Task
						}
					}
					require.Equal(t, live, lost)
				}
				view := routes(maps.Clone(live)) // all is as it was before
				auditor, err := audit.New(audit.Config{Leases: a, Views: []audit.View{view}})
				require.NoError(t, err)
				report, err := auditor.Check(t.Context())
				require.NoError(t, err)
				if _, err = auditor.Repair(t.Context(), report, nil); err != nil {
					require.ErrorIs(t, err, audit.ErrHeld)
				}
				changed := 0
				for ip, task := range live {
					if view[ip] != task {
						changed++
					}
				}
				require.LessOrEqual(t, changed, audit.DefaultAtLeast)
				if as == "empty" || err != nil {
					require.Equal(t, routes(live), view)
				}
				o.gone = tasks.Draw(t, "gone")
				for range 2 { // the second would end leases, if it could
					_, _ = leaks.Check(t.Context())
					c.Add(2 * time.Minute)
					o.now = o.now.Add(2 * time.Minute)
				}
				_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("late"),
					TTL: time.Minute})
				require.Error(t, err)

				shown.as(mem)
				look(a)
				require.NoError(t, a.Sweep(t.Context())) // settles the uncertain allocation
				_, err = a.Snapshot(t.Context())
				require.NoError(t, err)
				require.NoError(t, a.Sweep(t.Context()))
				o.sweep()
				require.Empty(t, slices.DeleteFunc(a.Lost(), isForeign))
			},
			"who had it": func(t *rapid.T) {
				r, ago := some.Draw(t, "addr"),
					time.Duration(rapid.IntRange(0, 600).Draw(t, "ago"))*time.Second
				l, err := a.At(t.Context(), r.addr, o.now.Add(-ago))
				var had said
				for _, s := range r.said {
					if !s.at.After(o.now.Add(-ago)) {
						had = s
					}
				}
				if had.task == "" {
					require.ErrorIs(t, err, vip.ErrNotFound)
					return
				}
				require.NoError(t, err)
				require.Equal(t, had.task, l.Owner.Task)
				if had.bound == "" {
					require.Empty(t, l.Binding.Instances)
				} else {
					require.Equal(t, had.bound, l.Binding.Instances[0].Addr.String())
				}
			},
			"drain proof": func(t *rapid.T) { o.proven = rapid.Bool().Draw(t, "proven") },
			"disable or enable": func(t *rapid.T) {
				i := rapid.IntRange(0, 2).Draw(t, "pool")
				o.pools[i].Disabled = !o.pools[i].Disabled
				require.NoError(t, a.SetPools(t.Context(), o.pools))
			},
			"reserve or not": func(t *rapid.T) {
				r := some.Draw(t, "addr")
				reserved := o.pools[slices.IndexFunc(o.pools, func(p vip.Pool) bool {
					return p.Name == r.pool
				})].Reserved
				switch {
				case r.taken:
					delete(reserved, r.addr)
				case r.state == vip.Reserved: // from the beginning
					return
				default:
					reserved[r.addr] = "gateway"
				}
				if r.taken = !r.taken; r.state == vip.Reserved {
					r.state = vip.Free
				}
				require.NoError(t, a.SetPools(t.Context(), o.pools))
			},
			"look for leaks": func(t *rapid.T) {
				o.gone = tasks.Draw(t, "gone")
				found, err := leaks.Check(t.Context())
				leased := slices.DeleteFunc(slices.Clone(o.rows), func(r *row) bool {
					return r.state != vip.Leased
				})
				gone := 0
				for _, r := range leased {
					if r.task == o.gone {
						gone++
					}
				}
				held := gone > audit.DefaultAtLeast // of as many leases as there are
				if held {
					require.ErrorIs(t, err, audit.ErrHeld)
				} else {
					require.NoError(t, err)
				}
				ended := 0
				live := map[string]bool{}
				for _, r := range leased {
					id := r.ids[r.gen-1]
					live[id] = true
					since, known := o.suspects[id]
					switch {
					case r.task != o.gone:
						delete(o.suspects, id)
					case !known:
						o.suspects[id] = o.now
					case o.now.Sub(since) >= time.Minute && !held:
						if ended++; r.state == vip.Leased { // else with its peer
							o.end(r)
						}
					}
				}
				maps.DeleteFunc(o.suspects, func(id string, _ time.Time) bool { return !live[id] })
				require.Equal(t, ended, len(slices.DeleteFunc(found, func(l audit.Leak) bool {
					return !l.Confirmed
				})))
			},
			"renew": func(t *rapid.T) {
				r, gen, id := lease(t)
				_, err := a.Renew(t.Context(), id, time.Minute)
				switch {
				case r.gen == 0:
					require.ErrorIs(t, err, vip.ErrNotFound)
				case gen != r.gen || r.state != vip.Leased || o.over(r):
					require.ErrorIs(t, err, vip.ErrFenced)
				default:
					require.NoError(t, err)
					r.expires = o.now.Add(time.Minute)
					if r.peer != nil {
						r.peer.expires = r.expires
					}
				}
			},
			"release": func(t *rapid.T) {
				r, gen, id := lease(t)
				_, err := a.Release(t.Context(), id, "")
				switch {
				case r.gen == 0:
					require.ErrorIs(t, err, vip.ErrNotFound)
				case gen != r.gen:
					require.ErrorIs(t, err, vip.ErrFenced)
				default:
					require.NoError(t, err)
					if r.state == vip.Leased {
						o.end(r)
					}
				}
			},
			"quarantine": func(t *rapid.T) {
				r, rest := some.Draw(t, "addr"),
					time.Duration(rapid.IntRange(0, 100).Draw(t, "rest"))*time.Second
				_, err := a.Quarantine(t.Context(), r.addr, "bad", rest)
				if r.state == vip.Reserved {
					require.ErrorIs(t, err, vip.ErrTaken)
					return
				}
				if errors.Is(err, vip.ErrQuarantineFull) {
					require.Equal(t, uint64(8), o.counts(r.pool)[vip.Quarantined])
					return
				}
				require.NoError(t, err)
				if r.state != vip.Free && r.gen > 0 && rest > 0 {
					least := r.cool
					if o.drains && r.state != vip.Cooling {
						least += drainLimit
					}
					rest = max(rest, least)
				}
				if r.state == vip.Leased {
					o.end(r)
				}
				r.state, r.until = vip.Quarantined, time.Time{}
				if rest > 0 {
					r.until = o.now.Add(rest)
				}
			},
			"restore": func(t *rapid.T) {
				r := some.Draw(t, "addr")
				_, err := a.Restore(t.Context(), r.addr, "good")
				if r.state == vip.Reserved {
					require.ErrorIs(t, err, vip.ErrTaken)
					return
				}
				require.NoError(t, err)
				if r.state == vip.Quarantined {
					o.drain(r)
				}
			},
			"time passes": func(t *rapid.T) {
				d := time.Duration(rapid.IntRange(0, 200).Draw(t, "seconds")) * time.Second
				c.Add(d)
				o.now = o.now.Add(d)
			},
			"sweep": func(t *rapid.T) {
				require.NoError(t, a.Sweep(t.Context()))
				o.sweep()
			},
			"restart": func(*rapid.T) {
				a = start()
				clear(known)
				for _, l := range a.List(vip.Query{}) {
					known[l.Addr] = l
				}
				after = a.Revision()
			},
			"": func(t *rapid.T) {
				o.tick()
				for _, s := range a.Stats() {
					n := o.counts(s.Pool)
					got := [6]uint64{s.Free, s.Leased, s.Draining, s.Cooling, s.Quarantined,
						s.Reserved}
					require.Equal(t, n, got, "pool %s", s.Pool)
				}
				bound := map[string][]netip.Addr{}
				for _, r := range o.rows {
					if r.state == vip.Leased || r.state == vip.Draining {
						bound[r.bound] = append(bound[r.bound], r.addr)
					}
				}
				for _, at := range []string{"192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"} {
					var found []netip.Addr
					for _, l := range a.List(vip.Query{InstanceAddr: netip.MustParseAddrPort(at),
						States: []vip.State{vip.Leased, vip.Draining}}) {
						found = append(found, l.Addr)
					}
					require.Equal(t, bound[at], found, at)
				}
				for _, q := range []vip.Query{{}, {Task: "A"}, {Cluster: "web"},
					{Instance: "c", Pool: "p"}, {Task: "A", Cluster: "web"}} {
					q.States = rapid.SampledFrom([][]vip.State{nil, {vip.Free, vip.Leased}}).Draw(t,
						"states")
					require.Equal(t, a.List(q), pages(a, q, rapid.IntRange(1, 4).Draw(t, "limit")),
						"%+v", q)
				}
				for after < a.Revision() {
					events, err := a.Watch(t.Context(), after)
					require.NoError(t, err)
					for _, e := range events {
						after, known[e.Lease().Addr] = e.Revision, e.Lease()
					}
				}
				seen := maps.Clone(known)
				for _, l := range a.List(vip.Query{States: []vip.State{vip.Leased, vip.Draining,
					vip.Cooling, vip.Quarantined}}) {
					require.Equal(t, l, seen[l.Addr], "as a watcher knows it")
					delete(seen, l.Addr)
				}
				for addr, l := range seen {
					require.Contains(t, []vip.State{vip.Free, vip.Reserved}, l.State, "%s", addr)
				}
				for _, l := range a.List(vip.Query{}) {
					r := o.row(l.Addr)
					require.Equal(t, []any{r.state, r.task, r.gen}, []any{l.State, l.Owner.Task,
						l.Generation}, "%s", l.Addr)
				}
			},
		})
	})
}
