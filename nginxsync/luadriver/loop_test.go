//go:build linux

package luadriver_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// An instance that is Nginx itself is not asked, and the answer says so: a request would go round
// until no connection is left.
func TestLoopsAreRefused(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    upstream a { server 10.9.9.1:80; }
    server { listen 80; listen [::]:80; location / { proxy_pass http://a; } }
}
`, transform.Rules{})
	good := one("g", "1", nginxtest.Backend(t, "good"))
	at := func(vip netip.Addr) []nginxsync.Instance {
		return one("l", "1", netip.AddrPortFrom(vip, uint16(b.port)))
	}
	pools := []nginxsync.Range{{First: vipA, Last: vipB}}
	type clusters = map[string][]nginxsync.Instance
	ask := func(s nginxsync.Snapshot, to netip.Addr, status int, reason string) {
		t.Helper()
		b.apply(t, s)
		for range 4 {
			got := b.answer(t, to, "/")
			require.Equal(t, status, got.status, got.body)
			require.Equal(t, reason, got.header.Get("X-Sluice-Reason"))
		}
		if len(s.Pools) > 0 {
			require.Equal(t, status, s.Resolve(to, "a").Status)
		}
	}
	loop := func(vip netip.Addr) string {
		return "loop; address=" + netip.AddrPortFrom(vip, uint16(b.port)).String() + "; cluster=a"
	}
	// two VIPs that lead to each other, and one that leads to itself
	overlays := map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": at(vipB)},
		vipB: {"a": at(vipA)}}
	ask(nginxsync.Snapshot{Baseline: clusters{"a": good}, Overlays: overlays, Pools: pools}, vipA,
		503, loop(vipB))
	ask(nginxsync.Snapshot{Baseline: clusters{"a": at(vipA)}, Pools: pools}, plain, 503, loop(vipA))
	own := map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": at(vipA)}}
	ask(nginxsync.Snapshot{Overlays: own}, vipA, 503, loop(vipA))
	six := netip.IPv6Loopback()
	ask(nginxsync.Snapshot{Baseline: clusters{"a": at(six)}}, six, 503, loop(six))

	// The same rows are asked again when the pools are others, and one that loops harms only
	// itself.
	elsewhere := []nginxsync.Range{{First: vipB, Last: vipB}}
	named := netip.MustParseAddrPort("127.58.0.2:1")
	mixed := append(one("x", "1", named), good...)
	ask(nginxsync.Snapshot{Baseline: clusters{"a": mixed}, Pools: pools}, plain, 200, "")
	ask(nginxsync.Snapshot{Baseline: clusters{"a": one("x", "1", named)}, Pools: pools}, plain, 503,
		"loop; address=127.58.0.2:1; cluster=a")
	ask(nginxsync.Snapshot{Baseline: clusters{"a": mixed}, Pools: elsewhere}, plain, 200, "")
	b.apply(t, nginxsync.Snapshot{Baseline: clusters{"a": one("x", "1", named)}, Pools: elsewhere})
	require.Equal(t, 502, b.answer(t, plain, "/").status, "it is asked, and refuses")
}
