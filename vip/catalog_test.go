package vip

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A viewSet is a map in order of addresses.
func TestViewSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var set viewSet
		want := map[netip.Addr]*view{}
		at := func(n int) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
		}
		var changes []viewChange
		for i := range rapid.IntRange(0, 1500).Draw(t, "filled") {
			change := viewChange{addr: at(i * 7 % 1000)} // a third of them twice
			if delete(want, change.addr); i%5 != 0 {
				change.to = &view{addr: change.addr}
				want[change.addr] = change.to
			}
			changes = append(changes, change)
		}
		set.fill(changes)
		for range rapid.IntRange(1, 12).Draw(t, "runs") {
			first, step := rapid.IntRange(0, 3000).Draw(t, "first"), rapid.IntRange(-3, 3).Draw(t,
				"step")
			remove := rapid.Bool().Draw(t, "remove")
			for i := range rapid.IntRange(1, 600).Draw(t, "length") {
				n := at(max(0, first+i*step))
				if remove {
					set.remove(n)
					delete(want, n)
					continue
				}
				v := &view{addr: n}
				set.put(v)
				want[n] = v
			}
		}
		require.Equal(t, len(want), set.len)
		order := slices.SortedFunc(maps.Keys(want), netip.Addr.Compare)
		after := at(rapid.IntRange(0, 3000).Draw(t, "after"))
		var got []netip.Addr
		for v := range set.after(after) {
			require.Same(t, want[v.addr], v)
			got = append(got, v.addr)
		}
		order = slices.DeleteFunc(order, func(a netip.Addr) bool { return !after.Less(a) })
		require.Equal(t, len(order), len(got))
		for i := range order {
			require.Equal(t, order[i], got[i])
		}
		for _, c := range set.chunks {
			require.NotEmpty(t, c)
			require.LessOrEqual(t, len(c), longestChunk)
		}
	})
}
