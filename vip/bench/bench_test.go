// Package bench measures vip beside what else hands out addresses, in one run. It is a module of its own so that the peers
// stay out of the library's module graph.
package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/cilium/pkg/ipalloc"
	"go.etcd.io/bbolt"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

const size = 1<<14 - 2 // addresses of a /18

func newAllocator(tb testing.TB, store vip.Store, ranges ...string) *vip.Allocator {
	tb.Helper()
	return configured(tb, store, vip.Config{}, ranges...)
}

func newShared(tb testing.TB, store vip.Store, ranges ...string) *vip.Allocator {
	tb.Helper()
	return configured(tb, store, vip.Config{Shared: true}, ranges...)
}

func configured(tb testing.TB, store vip.Store, cfg vip.Config, ranges ...string) *vip.Allocator {
	tb.Helper()
	p, err := vip.ParsePool("p", ranges...)
	if err != nil {
		tb.Fatal(err)
	}
	p.CoolDown = -1
	cfg.Store, cfg.Pools = store, []vip.Pool{p}
	a, err := vip.Open(context.Background(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func lease(tb testing.TB, a *vip.Allocator, task string) vip.Lease {
	l, err := a.Allocate(context.Background(), vip.Request{Owner: vip.Owner{Task: task, Overrides: nil}})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint("task-", i)
	}
	return all
}

// cpu is the processor time of this process: on a busy machine it says more than the clock on the wall.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pairs runs one allocation and release after the other and reports the rate by the wall and by the processor.
func pairs(b *testing.B, pair func(i int)) {
	b.ReportAllocs()
	runtime.GC() // what was made to fill the pool
	start, i := cpu(), 0
	for b.Loop() {
		pair(i)
		i++
	}
	figure(b, "pairs/s", float64(i)/b.Elapsed().Seconds())
	figure(b, "pairs/cpu-s", float64(i)/(cpu()-start).Seconds())
}

// BenchmarkMemory: pairs on a /18 that is so many per cent full. vip keeps owner, generation, expiry, history and events;
// Kubernetes keeps a bit,
// Cilium the owner's name.
func BenchmarkMemory(b *testing.B) {
	tasks := names(1000)
	for _, full := range []int{0, 50, 99} {
		b.Run(fmt.Sprintf("vip/full=%d", full), func(b *testing.B) {
			a := newAllocator(b, vip.NewMemStore(), "10.0.0.0/18")
			for i := range size * full / 100 {
				lease(b, a, fmt.Sprint("held-", i))
			}
			pairs(b, func(i int) {
				l := lease(b, a, tasks[i%len(tasks)])
				if _, err := a.Release(context.Background(), l.ID, l.Generation, "done"); err != nil {
					b.Fatal(err)
				}
			})
		})
		b.Run(fmt.Sprintf("cilium/full=%d", full), func(b *testing.B) {
			a, err := ipalloc.NewHashAllocator[string](netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.63.254"), size)
			if err != nil {
				b.Fatal(err)
			}
			for range size * full / 100 {
				if _, err := a.AllocAny("held"); err != nil {
					b.Fatal(err)
				}
			}
			pairs(b, func(i int) {
				ip, err := a.AllocAny(tasks[i%len(tasks)])
				if err == nil {
					err = a.Free(ip)
				}
				if err != nil {
					b.Fatal(err)
				}
			})
		})
		b.Run(fmt.Sprintf("kubernetes/full=%d", full), func(b *testing.B) {
			_, cidr, _ := net.ParseCIDR("10.0.0.0/18")
			a, err := ipallocator.NewInMemory(cidr)
			if err != nil {
				b.Fatal(err)
			}
			for range size * full / 100 {
				if _, err := a.AllocateNext(); err != nil {
					b.Fatal(err)
				}
			}
			pairs(b, func(int) {
				ip, err := a.AllocateNext()
				if err == nil {
					err = a.Release(ip)
				}
				if err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

// BenchmarkLatency: 64 goroutines on one allocator that has had every address of its pool in use as often as its history is
// kept; the slowest hundredth of the allocations.
func BenchmarkLatency(b *testing.B) {
	a := newAllocator(b, vip.NewMemStore(), "10.0.0.0/18")
	pair := func(task string) time.Duration {
		start := time.Now()
		l := lease(b, a, task)
		took := time.Since(start)
		_, _ = a.Release(context.Background(), l.ID, l.Generation, "")
		return took
	}
	for i := range 17 * size {
		pair(fmt.Sprint("earlier-", i))
	}
	took := make([][]time.Duration, 64)
	var wg sync.WaitGroup
	each := max(b.N/64, 1)
	b.ResetTimer()
	for g := range took {
		wg.Go(func() {
			for i := range each {
				took[g] = append(took[g], pair(fmt.Sprint(g, "-", i)))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	figure(b, "p50-µs", float64(all[len(all)*50/100].Nanoseconds())/1e3)
	figure(b, "p99-µs", float64(all[len(all)*99/100].Nanoseconds())/1e3)
	figure(b, "slowest-µs", float64(all[len(all)-1].Nanoseconds())/1e3)
}

// BenchmarkDurable: pairs on bbolt with fsync, 64 writers, beside bbolt's own commits: each commit alone, and by its Batch.
func BenchmarkDurable(b *testing.B) {
	b.Run("vip/writers=64", func(b *testing.B) {
		s, err := boltstore.Open(filepath.Join(b.TempDir(), "vip.db"))
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		a := newAllocator(b, s, "10.0.0.0/18")
		callers(b, 64, func(g, i int) {
			l := lease(b, a, fmt.Sprint(g, "-", i))
			_, _ = a.Release(context.Background(), l.ID, l.Generation, "")
		})
	})
	for name, commit := range map[string]func(*bbolt.DB, func(*bbolt.Tx) error) error{
		"bbolt-update/writers=64": (*bbolt.DB).Update, "bbolt-batch/writers=64": (*bbolt.DB).Batch,
	} {
		b.Run(name, func(b *testing.B) {
			db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			db.MaxBatchDelay = time.Millisecond
			value := make([]byte, 120)
			callers(b, 64, func(g, i int) {
				for range 2 { // a pair is two commits
					err := commit(db, func(tx *bbolt.Tx) error {
						bucket, err := tx.CreateBucketIfNotExists([]byte("b"))
						if err != nil {
							return err
						}
						return bucket.Put([]byte(fmt.Sprint(g)), value)
					})
					if err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkRecovery: a new allocator on a bbolt file with 100,000 leases.
func BenchmarkRecovery(b *testing.B) {
	const leases = 100_000
	s, err := boltstore.Open(filepath.Join(b.TempDir(), "vip.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	a := newAllocator(b, s, "10.0.0.0/15")
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := g; i < leases; i += 64 {
				lease(b, a, fmt.Sprint("task-", i))
			}
		})
	}
	wg.Wait()
	start, n := cpu(), 0
	for b.Loop() {
		a = newAllocator(b, s, "10.0.0.0/15")
		n++
	}
	if a.Stats()[0].Leased != leases {
		b.Fatal(a.Stats())
	}
	figure(b, "ms/recovery", float64(b.Elapsed().Milliseconds())/float64(n))
	figure(b, "cpu-ms/recovery", float64((cpu()-start).Milliseconds())/float64(n))
}

// BenchmarkMemoryPerLease: heap of the allocator and its MemStore, by the size of the pool, full up to 100,000 leases.
func BenchmarkMemoryPerLease(b *testing.B) {
	for _, bits := range []int{24, 20, 16, 12} {
		b.Run(fmt.Sprintf("pool=%d", bits), func(b *testing.B) {
			leases := min(1<<(32-bits)-2, 100_000)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			a := newAllocator(b, vip.NewMemStore(), fmt.Sprintf("10.0.0.0/%d", bits))
			for i := range leases {
				lease(b, a, fmt.Sprint("task-", i))
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			figure(b, "B/lease", float64(after.HeapAlloc-before.HeapAlloc)/float64(leases))
			runtime.KeepAlive(a)
		})
	}
}

// BenchmarkGrowth: pairs by the size of the pool, half full, up to 100,000 leases.
func BenchmarkGrowth(b *testing.B) {
	for _, bits := range []int{24, 20, 16, 12} {
		b.Run(fmt.Sprintf("pool=%d", bits), func(b *testing.B) {
			a := newAllocator(b, vip.NewMemStore(), fmt.Sprintf("10.0.0.0/%d", bits))
			for i := range min(1<<(32-bits)/2, 100_000) {
				lease(b, a, fmt.Sprint("held-", i))
			}
			tasks := names(100)
			pairs(b, func(i int) {
				l := lease(b, a, tasks[i%len(tasks)])
				if _, err := a.Release(context.Background(), l.ID, l.Generation, "done"); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}
