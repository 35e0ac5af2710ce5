package consulstore_test

import (
	"context"
	"fmt"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
)

// Every machine runs this: whichever of them a task asks, it gets the same lease.
func Example() {
	client, err := api.NewClient(api.DefaultConfig()) // CONSUL_HTTP_ADDR and the like
	if err != nil {
		fmt.Println(err)
		return
	}
	store, err := consulstore.New(client, consulstore.Config{Prefix: "platform/vip/"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	pool, _ := vip.ParsePool("test", "10.58.0.0/24")
	a, err := vip.Open(ctx, vip.Config{Store: store, Pools: []vip.Pool{pool}})
	if err != nil {
		fmt.Println(err)
		return
	}
	lease, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "T-1"}})
	fmt.Println(lease.Addr, err)
}
