package bench

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// BenchmarkTask: what it costs that one task has many leases, of as many clusters: to renew one, to
// release one and lease it again, and to lease to another task an address that was this one's.
func BenchmarkTask(b *testing.B) {
	ctx := context.Background()
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			a := newAllocator(b, vip.NewMemStore(), "10.0.0.0/18")
			allocate := func(req vip.Request) vip.Lease {
				l, err := a.Allocate(ctx, req)
				if err != nil {
					b.Fatal(err)
				}
				return l
			}
			request := func(i int) vip.Request {
				return vip.Request{Owner: vip.Owner{Task: "PAY-1",
					Overrides: map[string]string{fmt.Sprint("cluster-", i): "v1"}}}
			}
			leases := make([]vip.Lease, n)
			for i := range leases {
				leases[i] = allocate(request(i))
			}
			release := func(id string) {
				if _, err := a.Release(ctx, id, ""); err != nil {
					b.Fatal(err)
				}
			}
			runtime.GC()
			const times = 2000
			for b.Loop() {
				each := func(who string, do func(i int)) {
					start := cpu()
					for i := range times {
						do(i * 7 % n)
					}
					figureOf(b, who, "µs", float64((cpu()-start).Nanoseconds())/1e3/times)
				}
				each("renew", func(i int) {
					if _, err := a.Renew(ctx, leases[i].ID, time.Hour); err != nil {
						b.Fatal(err)
					}
				})
				each("again", func(i int) {
					release(leases[i].ID)
					leases[i] = allocate(request(i))
				})
				each("other", func(i int) {
					release(leases[i].ID)
					other := vip.Request{Addr: leases[i].Addr, Owner: vip.Owner{Task: "PAY-2"}}
					release(allocate(other).ID)
					mine := request(i)
					mine.Addr = leases[i].Addr
					leases[i] = allocate(mine)
				})
			}
		})
	}
}
