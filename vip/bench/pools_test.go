package bench

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// BenchmarkPools measures the cost of many pools, of which only the last has a free
// address: to lease and release that, to notice that it has cooled down, to refuse a request when
// it is leased, too; and how long Stats has the allocator's lock after one change.
func BenchmarkPools(b *testing.B) {
	for _, n := range []int{5, 5000} {
		b.Run(fmt.Sprintf("pools=%d", n), func(b *testing.B) {
			var now time.Time
			cooling := manyPools(b, n, vip.Config{Now: func() time.Time { return now }}, time.Second)
			var held time.Duration
			a := manyPools(b, n, vip.Config{Observe: func(op string, took time.Duration, _ error) {
				if op == "lock hold" {
					held += took
				}
			}}, -1)
			pair := func(a *vip.Allocator, i int) {
				l := lease(b, a, fmt.Sprintf("PAY-%d-pools", i))
				if _, err := a.Release(context.Background(), l.ID, ""); err != nil {
					b.Fatal(err)
				}
			}
			runtime.GC()
			const times = 1000
			for b.Loop() {
				took := map[string]time.Duration{}
				for i := range times {
					start := cpu()
					pair(a, i)
					took["pair"] += cpu() - start
					start = cpu()
					pair(cooling, i)
					now = now.Add(2 * time.Second)
					took["cooled-pair"] += cpu() - start
				}
				for i := range times {
					pair(a, i)
					held = 0
					a.Stats()
					took["stats-hold"] += held
				}
				last := lease(b, a, "last")
				start := cpu()
				for range times {
					if _, err := a.Allocate(context.Background(),
						vip.Request{Owner: vip.Owner{Task: "refused"}}); err == nil {
						b.Fatal("full pools have an address")
					}
				}
				took["refused"] = cpu() - start
				if _, err := a.Release(context.Background(), last.ID, ""); err != nil {
					b.Fatal(err)
				}
				for who, took := range took {
					figureOf(b, who, "µs", float64(took.Nanoseconds())/1e3/times)
				}
			}
		})
	}
}

// manyPools is an allocator with n pools of two addresses, of which the last one is free.
func manyPools(b *testing.B, n int, cfg vip.Config, coolDown time.Duration) *vip.Allocator {
	cfg.Store = vip.NewMemStore()
	for i := range n {
		p, err := vip.ParsePool(fmt.Sprint("pool-", i), fmt.Sprintf("10.%d.%d.0/30", i/256, i%256))
		if err != nil {
			b.Fatal(err)
		}
		p.CoolDown = coolDown
		cfg.Pools = append(cfg.Pools, p)
	}
	a, err := vip.Open(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 2*n - 1 {
		lease(b, a, fmt.Sprint("PAY-", i))
	}
	return a
}
