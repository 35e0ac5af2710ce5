package cutoff

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

var (
	vip    = netip.MustParseAddr("10.58.0.2")
	first  = netip.MustParseAddrPort("10.0.0.1:80")
	second = netip.MustParseAddrPort("10.0.0.2:80")
)

func row(on netip.Addr, cluster string, list ...nginxsync.Instance) nginxsync.Row {
	return nginxsync.Row{VIP: on, Cluster: cluster, Instances: list}
}

func instance(id, version string, addr netip.AddrPort) nginxsync.Instance {
	return nginxsync.Instance{ID: id, Version: version, Addr: addr, Weight: 1}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	number := uint64(0)
	var l ledger
	push := func(want string, full bool, rows ...nginxsync.Row) {
		t.Helper()
		number++
		d := nginxsync.Delta{From: l.at, To: nginxsync.Generation{Number: number, Digest: "d"},
			Full: full, Rows: rows}
		require.Equal(t, want, fmt.Sprint(l.handed(l.change(d))))
		l.commit(d, now)
	}
	due := func(want ...netip.AddrPort) {
		t.Helper()
		got, _, _ := l.due(now, time.Minute)
		require.Equal(t, want, got)
	}
	base := netip.Addr{}
	push("[]", true, row(base, "a", instance("1", "v1", first)),
		row(vip, "a", instance("2", "v2", second)))
	// the weight is no owner's
	heavy := instance("1", "v1", first)
	heavy.Weight = 9
	push("[]", false, row(base, "a", heavy))
	// a second row with the same owner, and one with another cluster beside it
	push("[]", false, row(vip, "b", heavy), row(vip, "a", heavy))
	due()
	now = now.Add(time.Minute)
	due(second)
	// one owner of two goes, the other stays
	push("[]", false, row(vip, "a"), row(base, "a"))
	push("["+first.String()+"]", false, row(vip, "b", instance("1", "v2", first)))
	push("["+first.String()+"]", false, row(vip, "b"), row(vip, "c",
		instance("1", "v2", first)))
	// gone, and back with another owner before its time; second was gone and is back as it was
	push("[]", false, nginxsync.Row{VIP: vip, Cluster: "c", Gone: true})
	push("["+first.String()+"]", false, row(vip, "c", instance("3", "v3", first)),
		row(vip, "a", instance("2", "v2", second)))
	due()
	// all rows at once
	push("["+second.String()+"]", true, row(base, "z", instance("2", "v2", second)))
	due()
	_, next, waits := l.due(now, time.Minute)
	require.True(t, waits)
	require.Equal(t, now.Add(time.Minute), next)
	now = now.Add(-time.Hour) // the clock is set back: the minute begins once more
	due()
	now = now.Add(time.Minute)
	due(first)
}

// After every push the ledger has the owners that the rows have, counted again, and an address
// has left only when no row has it.
func TestLedgerCountsRows(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		draw := func() (list []nginxsync.Instance) {
			for range r.IntN(3) {
				addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(4))}), 80)
				list = append(list, instance(fmt.Sprint(r.IntN(2)), "v", addr))
			}
			return list
		}
		var l ledger
		rows := map[place]nginxsync.Row{}
		for n := range uint64(20) {
			d := nginxsync.Delta{From: l.at, To: nginxsync.Generation{Number: n + 1, Digest: "d"},
				Full: n == 0 || r.IntN(8) == 0}
			if d.Full {
				clear(rows)
			}
			for _, cluster := range []string{"a", "b", "c"} {
				if r.IntN(2) == 0 {
					next := row(vip, cluster, draw()...)
					if next.Gone = !d.Full && r.IntN(4) == 0; next.Gone {
						next.Instances = nil
					}
					d.Rows = append(d.Rows, next)
					rows[placeOf(next)] = next
				}
			}
			handed := l.handed(l.change(d))
			had := maps.Clone(l.owners)
			l.commit(d, time.Unix(int64(n), 0))
			want := map[netip.AddrPort]map[owner]int{}
			for _, row := range rows {
				for _, in := range row.Instances {
					if want[in.Addr] == nil {
						want[in.Addr] = map[owner]int{}
					}
					want[in.Addr][owner{row.Cluster, in.ID, in.Version}]++
				}
			}
			require.Equal(t, want, l.owners, "seed %d, push %d", seed, n)
			for addr := range had {
				_, has := want[addr]
				_, gone := l.gone[addr]
				require.NotEqual(t, has, gone, "seed %d, push %d: %s", seed, n, addr)
			}
			for _, addr := range handed {
				require.Contains(t, want, addr, "seed %d, push %d", seed, n)
			}
			require.True(t, slices.IsSortedFunc(handed, netip.AddrPort.Compare))
		}
	}
}
