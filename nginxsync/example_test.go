package nginxsync_test

import (
	"fmt"
	"net/netip"

	"github.com/sluice-deploy/sluice/nginxsync"
)

func ExampleDiff() {
	stable := []nginxsync.Instance{{ID: "s1", Addr: netip.MustParseAddrPort("10.1.0.1:8080"),
		Version: "v1"}}
	tested := []nginxsync.Instance{{ID: "t1", Addr: netip.MustParseAddrPort("10.2.0.1:8080"),
		Version: "v2"}}
	before := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"hello_web": stable}}
	after := before
	after.Overlays = map[netip.Addr]map[string][]nginxsync.Instance{
		netip.MustParseAddr("127.58.0.1"): {"hello_web": tested},
	}
	for _, change := range nginxsync.Diff(before, after) {
		fmt.Println(change.VIP, change.Cluster, change.After[0].Version, change.After[0].Addr)
	}
	// Output: 127.58.0.1 hello_web v2 10.2.0.1:8080
}
