package vip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// In a pool of any size index and store hold the addresses that are leased or cool down, and
// nothing when that is over.
func TestForget(t *testing.T) {
	t.Parallel()
	for _, ranges := range []string{"fd00::/64", "fd00::/65", "fd00::/48", "10.0.0.0/8",
		"10.0.0.0/15", "fd00::-fd00::1:0000"} {
		t.Run(ranges, func(t *testing.T) {
			t.Parallel()
			now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			store := NewMemStore()
			p, err := ParsePool("p", ranges)
			require.NoError(t, err)
			cfg := Config{Store: store, Pools: []Pool{p}, Now: func() time.Time { return now }}
			a, err := Open(t.Context(), cfg)
			require.NoError(t, err)
			kept, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: "kept"}, TTL: Forever})
			require.NoError(t, err)
			seen := map[netip.Addr]bool{}
			var last Lease
			for i := range 2000 {
				l, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: fmt.Sprint("T", i)}})
				require.NoError(t, err)
				require.Greater(t, l.Generation, last.Generation)
				_, err = a.Bind(t.Context(), l.ID,
					[]Instance{{ID: "c", Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
				require.NoError(t, err)
				last, err = a.Release(t.Context(), l.ID, "")
				require.NoError(t, err)
				seen[l.Addr] = true
				now = now.Add(time.Second)
				require.NoError(t, a.Sweep(t.Context()))
				require.LessOrEqual(t, a.x.entries.len, 1+131, "those that cool down, and the "+
					"one that lives")
				require.LessOrEqual(t, store.records.len, 2+2*131+1)
				require.LessOrEqual(t, a.x.owned.len, 1+131)
				require.LessOrEqual(t, len(a.x.dirty), 2*(1+131), "with those that List has to "+
					"leave out from now on")
				if i == 500 {
					require.Equal(t, 130, len(a.List(Query{})))
				}
			}
			require.Len(t, seen, 2000)
			now = now.Add(time.Hour)
			_, err = a.Renew(t.Context(), kept.ID, 0)
			require.NoError(t, err)
			require.NoError(t, a.Sweep(t.Context()))
			require.Equal(t, 1, a.x.entries.len)
			require.Equal(t, 3, store.records.len, "epoch, mark, and the lease that lives")
			require.Len(t, a.List(Query{States: []State{Free, Leased, Cooling}}), 1)
			s := a.Stats()[0]
			require.Equal(t, s.Size, s.Free+s.Leased+s.Reserved)
			_, err = a.Release(t.Context(), last.ID, "")
			require.ErrorIs(t, err, ErrNotFound)

			b, err := Open(t.Context(), cfg)
			require.NoError(t, err)
			l, err := b.Allocate(t.Context(), Request{Owner: Owner{Task: "T"}, Addr: last.Addr})
			require.NoError(t, err)
			require.Greater(t, l.Generation, last.Generation, "after a restart, too")
			_, err = b.Renew(t.Context(), last.ID, 0)
			require.ErrorIs(t, err, ErrFenced)
			past, err := b.History(t.Context(), last.Addr)
			require.NoError(t, err)
			require.Len(t, past, 1)
		})
	}
}

// When all addresses were handed out and forgotten, the first are handed out again.
func TestForgetWraps(t *testing.T) {
	t.Parallel()
	p, err := ParsePool("p", "fd00::1-fd00::8")
	require.NoError(t, err)
	p.CoolDown = -1
	p.Reserved[netip.MustParseAddr("fd00::2")] = "gateway"
	a, err := Open(t.Context(), Config{Store: NewMemStore(), Pools: []Pool{p}, sparseAbove: 4})
	require.NoError(t, err)
	kept, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: "kept"}})
	require.NoError(t, err)
	got := map[netip.Addr]int{}
	for i := range 60 {
		l, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: fmt.Sprint("T", i)}})
		require.NoError(t, err)
		_, err = a.Release(t.Context(), l.ID, "")
		require.NoError(t, err)
		require.NoError(t, a.Sweep(t.Context()))
		got[l.Addr]++
	}
	require.Len(t, got, 6)
	for at, n := range got {
		require.Equal(t, 10, n, "%s", at)
	}
	require.Zero(t, got[kept.Addr])
}

// Two allocators on one store, of which each sweeps, restarts and is cut off now and then: the
// generation of an address only grows, and no two live leases have one address.
func TestForgetShared(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		p, err := ParsePool("p", "fd00::/64")
		require.NoError(t, err)
		p.CoolDown = rapid.SampledFrom([]time.Duration{-1, time.Second, time.Minute}).Draw(t,
			"cool-down")
		cfg := Config{Store: Shared(NewMemStore()), Pools: []Pool{p},
			Now: func() time.Time { return now }}
		all := make([]*Allocator, 2)
		for i := range all {
			all[i], err = Open(ctx, cfg)
			require.NoError(t, err)
		}
		which, asked := rapid.IntRange(0, 1), 0
		addr := rapid.SampledFrom([]string{"fd00::", "fd00::1", "fd00::ffff:0:0:0"})
		generation, live := map[netip.Addr]uint64{}, map[netip.Addr]Lease{}
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) {
				asked++
				at := netip.MustParseAddr(addr.Draw(t, "addr"))
				a, task := all[which.Draw(t, "by")], fmt.Sprint("T", asked)
				l, err := a.Allocate(ctx, Request{Owner: Owner{Task: task}, Addr: at, TTL: Forever})
				if err != nil {
					require.ErrorIs(t, err, ErrTaken)
					return
				}
				require.NotContains(t, live, at)
				require.Greater(t, l.Generation, generation[at])
				generation[at], live[at] = l.Generation, l
			},
			"release": func(t *rapid.T) {
				at := netip.MustParseAddr(addr.Draw(t, "addr"))
				if l, ok := live[at]; ok {
					_, err := all[which.Draw(t, "by")].Release(ctx, l.ID, "")
					require.NoError(t, err)
					delete(live, at)
				}
			},
			"sweep": func(t *rapid.T) { require.NoError(t, all[which.Draw(t, "who")].Sweep(ctx)) },
			"restart": func(t *rapid.T) {
				i := which.Draw(t, "who")
				all[i], err = Open(ctx, cfg)
				require.NoError(t, err)
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t,
					"seconds")) * time.Second)
			},
			"": func(t *rapid.T) {
				for at, l := range live {
					got, err := all[which.Draw(t, "by")].Holder(ctx, at)
					require.NoError(t, err)
					require.Equal(t, l.ID, got.ID)
				}
			},
		})
		var tasks []string
		for _, l := range live {
			tasks = append(tasks, ownerPrefix+l.Owner.Task)
		}
		for range 3 {
			now = now.Add(time.Hour)
			for _, a := range all {
				require.NoError(t, a.Sweep(ctx))
			}
		}
		for _, a := range all {
			require.LessOrEqual(t, a.x.entries.len, len(live))
		}
		records, err := cfg.Store.List(ctx, ownerPrefix)
		require.NoError(t, err)
		for _, r := range records {
			require.True(t, slices.Contains(tasks, r.Key), "%s", r.Key)
		}
	})
}
