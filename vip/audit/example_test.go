package audit_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

// routes is a View of a proxy's routing table.
type routes map[netip.Addr]string // VIP → task

func (routes) Name() string { return "routes" }

func (r routes) Observe(context.Context) ([]audit.Observation, error) {
	var all []audit.Observation
	for addr, task := range r {
		all = append(all, audit.Observation{Addr: addr, Task: task})
	}
	return all, nil
}

func (r routes) Repair(_ context.Context, f audit.Finding) error {
	delete(r, f.Addr)
	if f.Lease != nil {
		r[f.Addr] = f.Lease.Owner.Task
	}
	return nil
}

func Example() {
	ctx := context.Background()
	pool, _ := vip.ParsePool("test", "127.58.0.0/24")
	a, _ := vip.Open(ctx, vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{pool}})
	lease, _ := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "T-1"}})

	proxy := routes{lease.Addr: "T-0", netip.MustParseAddr("127.58.0.9"): "T-9"}
	auditor, _ := audit.New(audit.Config{Leases: a, Views: []audit.View{proxy}})
	report, _ := auditor.Check(ctx)
	for _, f := range report.Findings {
		fmt.Printf("%s: %s: %s\n", f.Addr, f.Kind, f.Detail)
	}
	repaired, _ := auditor.Repair(ctx, report, nil)
	fmt.Println(repaired, "repaired:", proxy)
	// Output:
	// 127.58.0.1: other task: used for task "T-0", held by task "T-1"
	// 127.58.0.9: not leased: used for task "T-9", nobody holds it
	// 2 repaired: map[127.58.0.1:T-1]
}
