//go:build linux

package luadriver_test

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// large are 5,000 clusters of the baseline with two instances each, and 10,000 of overlays.
func large() nginxsync.Snapshot {
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 8080)
	}
	for i := range 5000 {
		name := fmt.Sprint("cluster-", i)
		s.Baseline[name] = append(one(name+"-1", "v1", at(i)), one(name+"-2", "v1", at(i+1))...)
	}
	for i := range 10_000 {
		vip := netip.AddrFrom4([4]byte{127, 60, byte(i >> 8), byte(i)})
		name := fmt.Sprint("cluster-", i%5000)
		s.Overlays[vip] = map[string][]nginxsync.Instance{name: one(name, "v2", at(i))}
	}
	return s
}

// changed is s with another instance on vipA.
func changed(s nginxsync.Snapshot, n int) nginxsync.Snapshot {
	s.Overlays = maps.Clone(s.Overlays)
	s.Overlays[vipA] = map[string][]nginxsync.Instance{"a": one(fmt.Sprint("i", n), "v3",
		netip.MustParseAddrPort("127.0.0.1:9"))}
	return s
}

// BenchmarkFull pushes 15,000 rows over as many others.
func BenchmarkFull(b *testing.B) {
	bed := start(b, 32<<20)
	s := large()
	n := 0
	for b.Loop() {
		n++
		all := nginxsync.NewRoutes(uint64(n), changed(s, n)).All()
		require.NoError(b, bed.driver.Apply(b.Context(), all))
	}
}

// BenchmarkSetVerified gives an agent with 15,000 rows one change and waits until it is verified.
func BenchmarkSetVerified(b *testing.B) {
	bed := start(b, 32<<20)
	s := large()
	source := nginxsync.NewStaticSource(s)
	agent, err := nginxsync.OpenAgent(b.Context(), nginxsync.Config{Source: source,
		Driver: bed.driver})
	require.NoError(b, err)
	go agent.Run(b.Context())
	require.NoError(b, agent.WaitVerified(b.Context(), 1))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		require.NoError(b, agent.WaitVerified(b.Context(), source.Set(changed(s, n))))
	}
}
