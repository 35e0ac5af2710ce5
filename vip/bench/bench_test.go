// Package bench measures vip beside other address allocators, in one run. It is a module of its own
// so that the peers stay out of the library's module graph.
package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

const size = 1<<14 - 2 // addresses of a /18

func newAllocator(tb testing.TB, store vip.Store, ranges ...string) *vip.Allocator {
	tb.Helper()
	return configured(tb, store, vip.Config{}, ranges...)
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
	l, err := a.Allocate(context.Background(),
		vip.Request{Owner: vip.Owner{Task: task, Overrides: nil}})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// cpu is the processor time of this process: on a busy machine it says more than the clock on the
// wall.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pairs runs one allocation and release after the other and reports the rate by the wall and by the
// processor.
func pairs(b *testing.B, pair func(i int)) {
	b.ReportAllocs()
	runtime.GC() // frees the garbage of filling the pool
	start, i := cpu(), 0
	for b.Loop() {
		pair(i)
		i++
	}
	figure(b, "pairs/s", float64(i)/b.Elapsed().Seconds())
	figure(b, "pairs/cpu-s", float64(i)/(cpu()-start).Seconds())
}

// BenchmarkDurable: pairs on bbolt with fsync, 64 writers, beside bbolt's own commits: each commit
// alone, and by its Batch with several sizes.
func BenchmarkDurable(b *testing.B) {
	s, err := boltstore.Open(filepath.Join(b.TempDir(), "vip.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	a := newAllocator(b, s, "10.0.0.0/18")
	type writer struct {
		name string
		pair func(g, i int)
	}
	all := []writer{{"vip", func(g, i int) {
		l := lease(b, a, fmt.Sprint(g, "-", i))
		_, _ = a.Release(context.Background(), l.ID, "")
	}}}
	for _, batch := range []int{1, 32, 64, 128, 1000} {
		db, err := bbolt.Open(filepath.Join(b.TempDir(), fmt.Sprint(batch, ".db")), 0o600,
			&bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		db.MaxBatchSize, db.MaxBatchDelay = batch, time.Millisecond
		value := make([]byte, 120)
		all = append(all, writer{fmt.Sprint("bbolt-batch=", batch), func(g, i int) {
			for range 2 { // a pair is two commits
				err := db.Batch(func(tx *bbolt.Tx) error {
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
		}})
	}
	made, took := make([]atomic.Int64, len(all)), make([]time.Duration, len(all))
	used, best := make([]time.Duration, len(all)), make([]float64, len(all))
	for b.Loop() {
		for which, w := range all {
			start, spent, before := time.Now(), cpu(), made[which].Load()
			var wg sync.WaitGroup
			for g := range 64 {
				wg.Go(func() {
					for i := 0; time.Since(start) < 100*time.Millisecond; i++ {
						w.pair(g, i)
						made[which].Add(1)
					}
				})
			}
			wg.Wait()
			turn := time.Since(start)
			took[which] += turn
			used[which] += cpu() - spent
			best[which] = max(best[which], float64(made[which].Load()-before)/turn.Seconds())
		}
	}
	for which, w := range all {
		figureOf(b, w.name, "pairs/s", float64(made[which].Load())/took[which].Seconds())
		figureOf(b, w.name, "pairs/cpu-s", float64(made[which].Load())/used[which].Seconds())
		figureOf(b, w.name, "best-pairs/s", best[which])
	}
}

// BenchmarkRecovery: a new allocator on a bbolt file with a million leases, and the heap that it
// takes: the file holds the records.
func BenchmarkRecovery(b *testing.B) {
	const leases = 1_000_000
	s, err := boltstore.Open(filepath.Join(b.TempDir(), "vip.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	fill(b, s, leases)
	var a *vip.Allocator
	start, n := cpu(), 0
	for b.Loop() {
		a = newAllocator(b, s, "10.0.0.0/12")
		n++
	}
	if a.Stats()[0].Leased != leases {
		b.Fatal(a.Stats())
	}
	figure(b, "ms/recovery", float64(b.Elapsed().Milliseconds())/float64(n))
	figure(b, "cpu-ms/recovery", float64((cpu()-start).Milliseconds())/float64(n))
	with := heap()
	runtime.KeepAlive(a)
	a = nil
	figure(b, "B/lease", (with-heap())/leases)
}

// fill makes so many leases in s, which is empty.
func fill(b *testing.B, s vip.Store, leases int) {
	mem := vip.NewMemStore()
	a := newAllocator(b, mem, "10.0.0.0/12")
	for i := range leases {
		lease(b, a, fmt.Sprintf("PAY-%d-held", i))
	}
	records, err := mem.List(context.Background(), "")
	for some := range slices.Chunk(records, 50_000) {
		var changes []vip.Change
		for _, r := range some {
			changes = append(changes, vip.Change{Key: r.Key, Value: r.Value})
		}
		if err == nil {
			_, err = s.Commit(context.Background(), changes...)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMemoryPerLease: heap of the allocator and its MemStore, by the size of the pool, full up
// to 100,000 leases.
func BenchmarkMemoryPerLease(b *testing.B) {
	for _, bits := range []int{24, 20, 16, 12} {
		b.Run(fmt.Sprintf("pool=%d", bits), func(b *testing.B) {
			leases := min(1<<(32-bits)-2, 100_000)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			a := newAllocator(b, vip.NewMemStore(), fmt.Sprintf("10.0.0.0/%d", bits))
			for i := range leases {
				lease(b, a, fmt.Sprintf("PAY-%d-held", i))
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
			tasks := realistic(100)
			pairs(b, func(i int) {
				l := lease(b, a, tasks[i%len(tasks)])
				if _, err := a.Release(context.Background(), l.ID,
					"done"); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}
