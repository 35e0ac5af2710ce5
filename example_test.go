package sluice_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/vip"
)

// runtime stands for a container runtime.
type runtime struct{ addr netip.AddrPort }

func (r *runtime) Deploy(_ context.Context, d promote.Deployment) error {
	fmt.Printf("run %s for %s with DEPLOY_ENV=%s\n", d.Version, d.Task, d.Environment)
	r.addr = netip.MustParseAddrPort("10.1.2.3:8080")
	return nil
}

func (r *runtime) Remove(context.Context, promote.Deployment) error { return nil }

// A version is deployed for a test task, gets a VIP, and becomes the overlay on it. The serving
// version is a value that an nginxsync.Agent would put into Nginx.
func Example() {
	ctx, containers := context.Background(), &runtime{}
	promoter, _ := promote.New(promote.Config{Journal: promote.NewMemJournal(),
		Deployer: containers})
	pool, _ := vip.ParsePool("test", "127.58.0.0/24")
	leases, _ := vip.Open(ctx, vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{pool}})

	digest, _ := promote.ParseDigest(
		"sha256:5faa310062d3c2067f8e6676d7f476fa187cd63ea407f3d1205a8a650f4eacad")
	_ = promoter.Bind(ctx, promote.Binding{Cluster: "hello_web", Version: "v2", Digest: digest,
		Repository: "registry/hello_web", Actor: "ci"})
	target := promote.Target{Cluster: "hello_web", Environment: "test", Task: "search-redesign"}
	_, _ = promoter.Promote(ctx, promote.Request{Expect: promote.Any, Target: target, Version: "v2", Actor: "bob"})

	lease, _ := leases.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "search-redesign",
		Overrides: map[string]string{"hello_web": "v2"}}})
	routes := nginxsync.Snapshot{Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
		lease.Addr: {"hello_web": {{ID: "c1", Addr: containers.addr, Version: "v2"}}},
	}}
	for _, change := range nginxsync.Diff(nginxsync.Snapshot{}, routes) {
		fmt.Println("on", change.VIP, change.Cluster, "is served by", change.After[0].Version, "at",
			change.After[0].Addr)
	}

	target = promote.Target{Cluster: "hello_web", Environment: "production"}
	_, err := promoter.Promote(ctx, promote.Request{Expect: promote.Any, Target: target, Version: "v2", Actor: "ann"})
	fmt.Println(err)
	// Output:
	// run v2 for search-redesign with DEPLOY_ENV=test
	// on 127.58.0.1 hello_web is served by v2 at 10.1.2.3:8080
	// promote hello_web in production v2 is refused; order gate: hello_web v2 (sha256:5faa310062d3) has never been live in sandbox: deploy it there first
}
