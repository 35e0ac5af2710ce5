package nginxsync

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"
)

// thousands are 5,000 clusters of the baseline with two instances each, and 10,000 of overlays.
func thousands() Snapshot {
	s := Snapshot{Baseline: map[string][]Instance{},
		Overlays: map[netip.Addr]map[string][]Instance{}}
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 8080)
	}
	for i := range 5000 {
		name := fmt.Sprint("cluster-", i)
		s.Baseline[name] = []Instance{{ID: name + "-1", Version: "v1", Addr: at(i)},
			{ID: name + "-2", Version: "v1", Addr: at(i + 1)}}
	}
	for i := range 10_000 {
		vip := netip.AddrFrom4([4]byte{127, 60, byte(i >> 8), byte(i)})
		name := fmt.Sprint("cluster-", i%5000)
		s.Overlays[vip] = map[string][]Instance{name: {{ID: name, Version: "v2", Addr: at(i)}}}
	}
	return s
}

// BenchmarkAccept gives the table of an agent with 15,000 rows a snapshot with one other row: one
// that shares the maps of the scopes that did not change, and one that shares only the lists.
func BenchmarkAccept(b *testing.B) {
	for _, c := range []struct {
		name string
		copy func(Snapshot) Snapshot
	}{
		{"shared_maps", func(s Snapshot) Snapshot {
			s.Overlays = maps.Clone(s.Overlays)
			return s
		}},
		{"other_maps", func(s Snapshot) Snapshot {
			s.Baseline, s.Overlays = maps.Clone(s.Baseline), maps.Clone(s.Overlays)
			for vip, clusters := range s.Overlays {
				s.Overlays[vip] = maps.Clone(clusters)
			}
			return s
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, now := thousands(), time.Unix(1_700_000_000, 0)
			t := newTable(Guard{Share: 0.5})
			t.accept(s, 1, now)
			t.accepted()
			vip := netip.MustParseAddr("127.58.0.1")
			revision := uint64(1)
			var next [2]Snapshot
			for i := range next {
				next[i] = c.copy(s)
				next[i].Overlays[vip] = map[string][]Instance{"a": {{ID: fmt.Sprint("i", i),
					Addr: netip.MustParseAddrPort("127.0.0.1:9")}}}
			}
			b.ReportAllocs()
			for b.Loop() {
				revision++
				t.accept(next[revision%2], revision, now)
				if d := t.delta(t.base); len(d.Rows) != 1 && revision > 2 {
					b.Fatal(len(d.Rows))
				}
				t.accepted()
			}
		})
	}
}
