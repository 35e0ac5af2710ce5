package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/cilium/pkg/ipalloc"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"

	"github.com/sluice-deploy/sluice/vip"
)

// contestant makes pairs of an allocation and a release, one after the other.
type contestant struct {
	name string
	pair func(i int)

	made int
	took time.Duration // by the clock on the wall
	used time.Duration // of the processors
	best float64       // pairs a second in the best turn
}

const turn = 25 * time.Millisecond

// race gives the contestants turns of 25 ms each, so that the machine's other load meets all of
// them, and reports the rate of each, and that of its best turn: the one that the other load has
// disturbed least.
func race(b *testing.B, all ...*contestant) {
	for _, c := range all {
		c.run(turn) // for the setup that is made once
		c.made, c.took, c.used, c.best = 0, 0, 0, 0
	}
	for b.Loop() {
		for _, c := range all {
			c.run(turn)
		}
	}
	for _, c := range all {
		figureOf(b, c.name, "pairs/s", float64(c.made)/c.took.Seconds())
		figureOf(b, c.name, "pairs/cpu-s", float64(c.made)/c.used.Seconds())
		figureOf(b, c.name, "best-pairs/s", c.best)
	}
}

func (c *contestant) run(for_ time.Duration) {
	start, used, before := time.Now(), cpu(), c.made
	for time.Since(start) < for_ {
		for range 16 {
			c.pair(c.made)
			c.made++
		}
	}
	took := time.Since(start)
	c.took += took
	c.used += cpu() - used
	c.best = max(c.best, float64(c.made-before)/took.Seconds())
}

// realistic returns n names as an issue tracker and a branch give them.
func realistic(n int) []string {
	subjects := []string{"checkout-redesign", "search-ranking", "login-captcha", "price-alerts",
		"fix-timeouts"}
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("PAY-%d-%s", 10_000+i, subjects[i%len(subjects)])
	}
	return all
}

// ticking is an allocator with the default cool-down on a clock that moves with every pair, so that
// half of the addresses that are not held cool down at any time.
func ticking(tb testing.TB, store vip.Store, held int, ranges ...string) (*vip.Allocator, func()) {
	tb.Helper()
	var now atomic.Int64
	now.Store(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	p, err := vip.ParsePool("p", ranges...)
	if err != nil {
		tb.Fatal(err)
	}
	a, err := vip.Open(context.Background(), vip.Config{
		Store: store, Pools: []vip.Pool{p}, Now: func() time.Time {
			return time.Unix(0, now.Load())
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range held {
		if _, err := a.Allocate(context.Background(), vip.Request{
			Owner: vip.Owner{Task: fmt.Sprintf("PAY-%d-held", i)}, TTL: vip.Forever,
		}); err != nil {
			tb.Fatal(err)
		}
	}
	step := int64(vip.DefaultCoolDown) / int64(max((a.Stats()[0].Free)/2, 1))
	return a, func() { now.Add(step) }
}

// vipPairs is a contestant that leases to 200,000 tasks in turn.
func vipPairs(tb testing.TB, name string, a *vip.Allocator, tick func(),
	tasks []string) *contestant {
	return &contestant{name: name, pair: func(i int) {
		tick()
		l := lease(tb, a, tasks[i%len(tasks)])
		if _, err := a.Release(context.Background(), l.ID, "done"); err != nil {
			tb.Fatal(err)
		}
	}}
}

func kubernetes(tb testing.TB, held int) *contestant {
	_, cidr, _ := net.ParseCIDR("10.0.0.0/18")
	a, err := ipallocator.NewInMemory(cidr)
	if err != nil {
		tb.Fatal(err)
	}
	for range held {
		if _, err := a.AllocateNext(); err != nil {
			tb.Fatal(err)
		}
	}
	return &contestant{name: "kubernetes", pair: func(int) {
		ip, err := a.AllocateNext()
		if err == nil {
			err = a.Release(ip)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}}
}

func cilium(tb testing.TB, held int, tasks []string) *contestant {
	a, err := ipalloc.NewHashAllocator[string](netip.MustParseAddr("10.0.0.1"),
		netip.MustParseAddr("10.0.63.254"), size)
	if err != nil {
		tb.Fatal(err)
	}
	for range held {
		if _, err := a.AllocAny("held"); err != nil {
			tb.Fatal(err)
		}
	}
	return &contestant{name: "cilium", pair: func(i int) {
		ip, err := a.AllocAny(tasks[i%len(tasks)])
		if err == nil {
			err = a.Free(ip)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}}
}

// BenchmarkMemory: pairs on a /18 that is so many per cent full.
func BenchmarkMemory(b *testing.B) {
	tasks := realistic(200_000)
	for _, full := range []int{0, 50, 99} {
		b.Run(fmt.Sprintf("full=%d", full), func(b *testing.B) {
			held := size * full / 100
			a, tick := ticking(b, vip.NewMemStore(), held, "10.0.0.0/18")
			race(b, vipPairs(b, "vip", a, tick, tasks), kubernetes(b, held), cilium(b, held, tasks))
		})
	}
}

// BenchmarkParallel: 64 goroutines on one allocator: the rate, and the median and the slowest
// hundredth of the allocations.
func BenchmarkParallel(b *testing.B) {
	tasks := realistic(200_000)
	a, tick := ticking(b, vip.NewMemStore(), 0, "10.0.0.0/18")
	kube := kubernetes(b, 0)
	var next atomic.Int64
	ours := func() time.Duration {
		tick()
		start := time.Now()
		l := lease(b, a, tasks[int(next.Add(1))%len(tasks)])
		took := time.Since(start)
		if _, err := a.Release(context.Background(), l.ID, ""); err != nil {
			b.Error(err)
		}
		return took
	}
	theirs := func() time.Duration {
		kube.pair(0)
		return 0
	}
	var took []time.Duration
	var made [2]int
	var spent, used [2]time.Duration
	for b.Loop() {
		for which, pair := range []func() time.Duration{ours, theirs} {
			parts := make([][]time.Duration, 64)
			start, before := time.Now(), cpu()
			var wg sync.WaitGroup
			for g := range parts {
				wg.Go(func() {
					for time.Since(start) < 4*turn {
						parts[g] = append(parts[g], pair())
					}
				})
			}
			wg.Wait()
			spent[which] += time.Since(start)
			used[which] += cpu() - before
			all := slices.Concat(parts...)
			if made[which] += len(all); which == 0 {
				took = append(took, all...)
			}
		}
	}
	slices.Sort(took)
	figureOf(b, "vip", "pairs/s", float64(made[0])/spent[0].Seconds())
	figureOf(b, "kubernetes", "pairs/s", float64(made[1])/spent[1].Seconds())
	figureOf(b, "vip", "pairs/cpu-s", float64(made[0])/used[0].Seconds())
	figureOf(b, "kubernetes", "pairs/cpu-s", float64(made[1])/used[1].Seconds())
	figureOf(b, "vip", "p50-µs", float64(took[len(took)*50/100].Nanoseconds())/1e3)
	figureOf(b, "vip", "p99-µs", float64(took[len(took)*99/100].Nanoseconds())/1e3)
}

// BenchmarkWatchers: pairs with 400 watchers and with none, each on an allocator of its own; and
// the heap of 200 watchers of which none comes back.
func BenchmarkWatchers(b *testing.B) {
	tasks := realistic(200_000)
	alone, tick := ticking(b, vip.NewMemStore(), 0, "10.0.0.0/18")
	watched, tock := ticking(b, vip.NewMemStore(), 0, "10.0.0.0/18")
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var heard, cut atomic.Int64
	for range 400 {
		wg.Go(func() {
			for after := watched.Revision(); ; {
				events, err := watched.Watch(ctx, after)
				switch {
				case ctx.Err() != nil:
					return
				case err != nil:
					cut.Add(1)
					after = watched.Revision()
				default:
					after = events[len(events)-1].Revision
					heard.Add(int64(len(events)))
				}
			}
		})
	}
	with, without := vipPairs(b, "watchers=400", watched, tock, tasks), vipPairs(b, "watchers=0",
		alone, tick, tasks)
	race(b, with, without)
	stop()
	wg.Wait()
	figureOf(b, "watchers=400", "events/pair/watcher", float64(heard.Load())/400/float64(with.made))
	figureOf(b, "watchers=400", "cut-off/pair/watcher", float64(cut.Load())/400/float64(with.made))

	var idle [200][]vip.Event
	from := watched.Revision()
	lease(b, watched, "first")
	for i := range idle {
		idle[i], _ = watched.Watch(context.Background(), from)
	}
	for i := range 100_000 {
		with.pair(i)
	}
	with200 := heap()
	clear(idle[:])
	figureOf(b, "idle=200", "MB", (with200-heap())/1e6)
	runtime.KeepAlive(watched)
}

// heap returns the bytes in use after a collection.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkRefused: requests that a full pool refuses.
func BenchmarkRefused(b *testing.B) {
	for _, bits := range []int{24, 12} {
		b.Run(fmt.Sprintf("pool=%d", bits), func(b *testing.B) {
			a := filled(b, fmt.Sprintf("10.0.0.0/%d", bits), 1<<(32-bits)-2)
			n := 0
			for b.Loop() {
				if _, err := a.Allocate(context.Background(),
					vip.Request{Owner: vip.Owner{Task: "refused"}}); err == nil {
					b.Fatal("a full pool has an address")
				}
				n++
			}
			figure(b, "µs/refusal", float64(b.Elapsed().Nanoseconds())/1e3/float64(n))
		})
	}
}

// filled is an allocator with n leases, of ten teams.
func filled(tb testing.TB, ranges string, n int) *vip.Allocator {
	a := newAllocator(tb, vip.NewMemStore(), ranges)
	for i := range n {
		if _, err := a.Allocate(context.Background(), vip.Request{Owner: vip.Owner{
			Task: fmt.Sprintf("PAY-%d-held", i), Team: fmt.Sprint("team-", i%10),
		}}); err != nil {
			tb.Fatal(err)
		}
	}
	return a
}

// BenchmarkList: pages of 1,000 out of a million leases, by address and by team, and the waiting
// time of renewals meanwhile; and the heap of a lease, with the records of MemStore, before the
// first call makes the copy that later ones read.
func BenchmarkList(b *testing.B) {
	before := heap()
	a := filled(b, "10.0.0.0/12", 1_000_000)
	figureOf(b, "million", "B/lease", (heap()-before)/1e6)
	l := a.List(vip.Query{Addr: netip.MustParseAddr("10.0.0.1")})[0]
	start, used := time.Now(), cpu()
	a.List(vip.Query{Limit: 1000})
	figureOf(b, "first-call", "ms", float64(time.Since(start).Microseconds())/1e3)
	figureOf(b, "first-call", "cpu-ms", float64((cpu()-used).Microseconds())/1e3)
	const alone = 200
	used = cpu()
	for range alone {
		a.List(vip.Query{Limit: 1000})
	}
	figureOf(b, "page", "cpu-ms/page", float64((cpu()-used).Microseconds())/1e3/alone)
	start, used = time.Now(), cpu()
	a.List(vip.Query{Team: "team-3", Limit: 1000})
	figureOf(b, "first-call-by-team", "cpu-ms", float64((cpu()-used).Microseconds())/1e3)
	figureOf(b, "first-call-by-team", "ms", float64(time.Since(start).Microseconds())/1e3)
	for name, q := range map[string]vip.Query{"page": {Limit: 1000},
		"page-by-team": {Team: "team-3", Limit: 1000}} {
		done := make(chan struct{})
		var waited []time.Duration
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				start := time.Now()
				if _, err := a.Renew(context.Background(), l.ID, 0); err != nil {
					b.Error(err)
					return
				}
				waited = append(waited, time.Since(start))
			}
		})
		const pages = 500
		start := time.Now()
		for range pages {
			if got := a.List(q); len(got) != 1000 {
				b.Fatal(len(got))
			}
		}
		figureOf(b, name, "ms/page", float64(time.Since(start).Microseconds())/1e3/pages)
		close(done)
		wg.Wait()
		slices.Sort(waited)
		figureOf(b, name, "renew-p99-µs", float64(waited[len(waited)*99/100].Nanoseconds())/1e3)
	}
}

// BenchmarkSparse: the heap that ten million pairs leave behind in a /64, with the allocator's Run
// beside them, and the rate.
func BenchmarkSparse(b *testing.B) {
	a := newAllocator(b, vip.NewMemStore(), "fd00::/64")
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx) })
	lease(b, a, "kept")
	pair := func(i int) {
		l := lease(b, a, fmt.Sprintf("PAY-%d-sparse", i))
		if _, err := a.Release(ctx, l.ID, ""); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 100_000 {
		pair(i)
	}
	settle := func() float64 {
		if err := a.Sweep(ctx); err != nil {
			b.Fatal(err)
		}
		return heap()
	}
	before, start := settle(), time.Now()
	const pairs = 10_000_000
	for i := range pairs {
		pair(i)
	}
	figure(b, "pairs/s", pairs/time.Since(start).Seconds())
	figure(b, "MB-growth", (settle()-before)/1e6)
	stop()
	wg.Wait()
	runtime.KeepAlive(a)
}
