package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sluice-deploy/sluice/vip"
)

func Example() {
	ctx := context.Background()
	pool, _ := vip.ParsePool("test", "127.58.0.0/24")
	a, _ := vip.Open(ctx, vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{pool}})

	task := vip.Request{Owner: vip.Owner{Task: "T-1",
		Overrides: map[string]string{"hello_web": "v2"}}}
	lease, _ := a.Allocate(ctx, task)
	again, _ := a.Allocate(ctx, task)
	fmt.Println(lease.Addr, lease.State, "same lease:", again.ID == lease.ID)

	where := netip.MustParseAddrPort("10.1.2.3:8080")
	_, _ = a.Bind(ctx, lease.ID,
		[]vip.Instance{{ID: "c1", Addr: where, Cluster: "hello_web", Version: "v2"}})
	for _, l := range a.List(vip.Query{InstanceAddr: where, States: []vip.State{vip.Leased,
		vip.Draining}}) {
		fmt.Println(where, "answers on", l.Addr, "for task", l.Owner.Task)
	}

	ended, _ := a.Release(ctx, lease.ID, "task finished")
	_, err := a.Renew(ctx, lease.ID, 0)
	fmt.Println(ended.State, "fenced:", errors.Is(err, vip.ErrFenced))
	// Output:
	// 127.58.0.1 leased same lease: true
	// 10.1.2.3:8080 answers on 127.58.0.1 for task T-1
	// cooling fenced: true
}
