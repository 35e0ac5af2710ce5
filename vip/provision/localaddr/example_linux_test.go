package localaddr_test

import (
	"context"
	"fmt"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/provision"
	"github.com/sluice-deploy/sluice/vip/provision/localaddr"
)

// It needs CAP_NET_ADMIN.
func Example() {
	ctx := context.Background()
	pool, _ := vip.ParsePool("test", "10.58.0.0/24")
	a, err := vip.Open(ctx, vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{pool}})
	if err != nil {
		fmt.Println(err)
		return
	}
	k := &provision.Keeper{Allocator: a, Driver: &localaddr.Driver{}}
	fmt.Println(k.Run(ctx))
}
