package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// After any change of pools the allocator is as one that is opened with them on the same store:
// same counts, same leases, same states, same quotas.
func TestSetPoolsIsLikeOpening(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		store := NewMemStore()
		// most entries change their pool in a step of their own
		cfg := Config{Store: store, Now: func() time.Time { return now }, sparseAbove: 60,
			Pools: drawPools(t)}
		a, err := Open(t.Context(), cfg)
		require.NoError(t, err)
		a.poolsAtOnce = rapid.IntRange(1, 5).Draw(t, "at once")
		var held []Lease
		for i := range rapid.IntRange(5, 40).Draw(t, "calls") {
			switch rapid.IntRange(0, 9).Draw(t, "call") {
			case 0, 1, 2, 3:
				l, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: fmt.Sprint("T", i),
					Team: rapid.SampledFrom([]string{"", "web", "api"}).Draw(t, "team")}})
				if err == nil {
					held = append(held, l)
				} else if !errors.Is(err, ErrExhausted) && !errors.Is(err, ErrQuota) {
					require.NoError(t, err)
				}
			case 4:
				if len(held) > 0 {
					n := rapid.IntRange(0, len(held)-1).Draw(t, "lease")
					_, _ = a.Release(t.Context(), held[n].ID, "") // or it is quarantined
				}
			case 5:
				if len(held) > 0 {
					n := rapid.IntRange(0, len(held)-1).Draw(t, "bad")
					_, _ = a.Quarantine(t.Context(), held[n].Addr, "bad", time.Minute)
				}
			case 6:
				now = now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "s")) * time.Second)
				require.NoError(t, a.Sweep(t.Context()))
			default:
				cfg.Pools = drawPools(t)
				require.NoError(t, a.SetPools(t.Context(), cfg.Pools))
				likeOpened(t, a, cfg)
			}
		}
	})
}

// drawPools draws one to three pools of 10.0.0.0-99, which do not overlap.
func drawPools(t *rapid.T) []Pool {
	var pools []Pool
	at := 0
	names := rapid.Permutation([]string{"a", "b", "c"}).Draw(t, "names")
	for range rapid.IntRange(1, 6).Draw(t, "ranges") {
		first := at + rapid.IntRange(0, 8).Draw(t, "gap")
		last := first + rapid.IntRange(0, 20).Draw(t, "length")
		at = last + 1
		r := Range{ip(first), ip(last)}
		n := rapid.IntRange(0, 2).Draw(t, "pool")
		i := slices.IndexFunc(pools, func(p Pool) bool { return p.Name == names[n] })
		if i < 0 {
			p := Pool{Name: names[n], Reserved: map[netip.Addr]string{}, MaxQuarantined: 1}
			if rapid.Bool().Draw(t, "quota") {
				p.Quotas = map[string]int{AnyTeam: rapid.IntRange(0, 3).Draw(t, "limit")}
			}
			i, pools = len(pools), append(pools, p)
		}
		pools[i].Ranges = append(pools[i].Ranges, r)
		for range rapid.IntRange(0, 2).Draw(t, "reserved") {
			pools[i].Reserved[ip(rapid.IntRange(first, last).Draw(t, "addr"))] = "gateway"
		}
	}
	return pools
}

func ip(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }

// likeOpened compares a with an allocator that is opened now, and its counts with its entries.
func likeOpened(t require.TestingT, a *Allocator, cfg Config) {
	fresh, err := Open(context.Background(), cfg)
	require.NoError(t, err)
	all := Query{States: []State{Leased, Draining, Cooling, Quarantined}}
	require.Equal(t, statsOf(fresh), statsOf(a))
	leases := func(of *Allocator) []Lease {
		all := of.List(all)
		for i := range all {
			if a.x.poolOf(all[i].Addr) == nil {
				all[i].Pool = "gone"
			}
		}
		return all
	}
	require.Equal(t, leases(fresh), leases(a))
	for name, p := range a.x.byName {
		want := fresh.x.byName[name]
		require.Equal(t, want.ready(), p.ready(), "pool %s", name)
		require.Equal(t, want.knownReserved, p.knownReserved, "pool %s", name)
		require.Equal(t, want.capacity, p.capacity, "pool %s", name)
		if len(p.Quotas) > 0 {
			require.Equal(t, want.teams, p.teams, "pool %s", name)
		}
		for e := p.first; e != nil; e = e.after {
			require.Equal(t, p, e.pool)
			require.True(t, p.contains(e.addr), "pool %s hands out %s", name, e.addr)
			require.NotContains(t, p.Reserved, e.addr)
			require.Equal(t, p.sparse(), e.idle, "%s may be forgotten", e.addr)
		}
	}
	for e := range a.x.entries.all {
		p := a.x.poolOf(e.addr)
		require.True(t, p == e.pool || p == nil && e.pool.gone, "%s", e.addr)
	}
	flagsAreRight(t, a)
	require.Empty(t, a.x.created)
	require.False(t, a.x.notesCreated)
}

// statsOf are the counts of the pools, all that are gone together: a record has the pool that an
// address was leased from, not the one that it was in when it lost that.
func statsOf(a *Allocator) (all []Stats) {
	gone := Stats{Gone: true, Disabled: true}
	for _, s := range a.Stats() {
		if !s.Gone {
			all = append(all, s)
			continue
		}
		gone.Size += s.Size
		gone.Leased += s.Leased
		gone.Cooling += s.Cooling
		gone.Quarantined += s.Quarantined
	}
	return append(all, gone)
}

// However many leases there are, SetPools has the lock for a few hundred of them at most: it gives
// no more another pool at once, and to change other ranges it takes the lock no oftener.
func TestSetPoolsHoldsUpNobody(t *testing.T) {
	t.Parallel()
	holds := map[int]int{} // by the number of leases, to grow the pool
	for _, leases := range []int{100, 5_000} {
		p, err := ParsePool("p", "10.0.0.0/17")
		require.NoError(t, err)
		var a *Allocator
		before, n, most := uint64(leases), 0, uint64(0)
		cfg := Config{Store: NewMemStore(), Pools: []Pool{p}}
		cfg.Observe = func(op string, _ time.Duration, _ error) {
			if op != "lock hold" || a == nil { // this test has no other goroutine
				return
			}
			n++
			for _, p := range a.x.pools {
				if p.Name == "p" && !p.gone {
					most, before = max(most, before-min(before, p.counts[Leased])), p.counts[Leased]
				}
			}
		}
		opened, err := Open(t.Context(), cfg)
		require.NoError(t, err)
		for i := range leases {
			_, err := opened.Allocate(t.Context(), Request{Owner: Owner{Task: fmt.Sprint("T", i)}})
			require.NoError(t, err)
		}
		a = opened
		grown := p
		grown.Ranges = append(slices.Clone(p.Ranges), Range{netip.MustParseAddr("10.1.0.0"),
			netip.MustParseAddr("10.1.0.255")})
		grown.Reserved = map[netip.Addr]string{netip.MustParseAddr("10.0.127.7"): "gateway"}
		require.NoError(t, a.SetPools(t.Context(), []Pool{grown}))
		holds[leases], n = n, 0
		require.Zero(t, most)

		renamed := grown
		renamed.Name = "q"
		require.NoError(t, a.SetPools(t.Context(), []Pool{renamed}))
		require.LessOrEqual(t, most, uint64(poolsAtOnce))
		require.Greater(t, n, leases/poolsAtOnce)
		require.Equal(t, uint64(leases), a.Stats()[0].Leased)
	}
	require.Equal(t, holds[100], holds[5_000])
}

// Allocations go on while addresses change their pool and back, and none is given twice.
func TestSetPoolsBesideAllocations(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, shared := range []bool{false, true} {
		var store Store = NewMemStore()
		if shared {
			store = Shared(store)
		}
		both := func(first, second string, border int) []Pool {
			p := Pool{Name: first, Ranges: []Range{{ip(1), ip(border)}}, CoolDown: -1}
			q := Pool{Name: second, Ranges: []Range{{ip(border + 1), ip(200)}}, CoolDown: -1,
				Reserved: map[netip.Addr]string{ip(199): "gateway"}}
			p.Quotas = map[string]int{AnyTeam: 200}
			return []Pool{p, q}
		}
		cfg := Config{Store: store, Now: func() time.Time { return now },
			Pools: both("a", "b", 100)}
		a, err := Open(t.Context(), cfg)
		require.NoError(t, err)
		a.poolsAtOnce = 3
		var held [256]atomic.Int32
		var callers sync.WaitGroup
		done := make(chan struct{})
		for i := range 4 {
			callers.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-done:
						return
					default:
					}
					l, err := a.Allocate(context.Background(), Request{Owner: Owner{
						Task: fmt.Sprintf("T%d-%d", i, n%40), Team: "web"}})
					if err != nil {
						t.Errorf("allocate: %v", err)
						return
					}
					at := &held[l.Addr.As4()[3]]
					if at.Add(1) != 1 {
						t.Errorf("%s is leased twice", l.Addr)
					}
					at.Add(-1)
					if n%3 > 0 { // the others stay for a while
						if _, err := a.Release(context.Background(), l.ID, ""); err != nil {
							t.Errorf("release: %v", err)
						}
					}
				}
			})
		}
		for i := range 10 {
			cfg.Pools = both("a", "b", 20+4*i)
			if i%2 == 1 {
				cfg.Pools = both("c", "a", 180-4*i)
			}
			require.NoError(t, a.SetPools(t.Context(), cfg.Pools))
		}
		close(done)
		callers.Wait()
		likeOpened(t, a, cfg)
	}
}
