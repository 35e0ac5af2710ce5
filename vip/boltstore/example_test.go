package boltstore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

// A lease is there after a restart.
func Example() {
	dir, err := os.MkdirTemp("", "vip")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	pool, _ := vip.ParsePool("test", "127.58.0.0/24")
	for range 2 {
		store, err := boltstore.Open(filepath.Join(dir, "vip.db"))
		if err != nil {
			fmt.Println(err)
			return
		}
		a, err := vip.Open(ctx, vip.Config{Store: store, Pools: []vip.Pool{pool}})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("leased at the start:", a.Stats()[0].Leased)
		lease, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "T-1"}})
		fmt.Println(lease.Addr, lease.Generation, err)
		_ = store.Close()
	}
	// Output:
	// leased at the start: 0
	// 127.58.0.1 1 <nil>
	// leased at the start: 1
	// 127.58.0.1 1 <nil>
}
