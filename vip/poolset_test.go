package vip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// flagsAreRight compares the things that save a look at every pool with a look at every pool.
func flagsAreRight(t require.TestingT, a *Allocator) {
	x := a.x
	for i, p := range x.pools {
		require.Equal(t, i, p.number, "pool %s", p.Name)
		require.True(t, x.flags.every.has(i), "pool %s", p.Name)
		if p.gone {
			continue
		}
		require.True(t, p.ready() == 0 || x.flags.ready.has(i), "pool %s has free addresses",
			p.Name)
		require.True(t, !p.tooManyCool() || x.flags.warm.has(i), "pool %s cools too many", p.Name)
		require.True(t, len(p.idles) == 0 || x.flags.idle.has(i), "pool %s may forget", p.Name)
		for _, r := range p.ranges {
			require.Same(t, p, x.poolOf(r.First))
			require.Same(t, p, x.poolOf(r.Last))
		}
	}
	var soonest time.Time
	for _, p := range x.pools {
		e := p.due.next()
		if e == nil {
			continue
		}
		require.NotZero(t, p.dueIndex, "pool %s has a deadline", p.Name)
		require.False(t, e.deadline.Before(p.dueAt), "pool %s", p.Name)
		if soonest.IsZero() || e.deadline.Before(soonest) {
			soonest = e.deadline
		}
	}
	require.False(t, x.soonest.IsZero() && !soonest.IsZero() || soonest.Before(x.soonest) &&
		!soonest.IsZero(), "the first deadline is %s, noted is %s", soonest, x.soonest)
	for i, p := range x.dues {
		require.Equal(t, i+1, p.dueIndex)
		require.False(t, p.dueAt.Before(x.dues[(i-min(i, 1))/2].dueAt), "heap of pools")
	}
	all := a.Stats()
	want := slices.DeleteFunc(allStats(x.pools), func(s Stats) bool { return s.Gone && s.Size == 0 })
	require.Equal(t, want, all)
}

func allStats(pools []*pool) (all []Stats) {
	for _, p := range pools {
		all = append(all, p.stats())
	}
	return all
}

// Of many pools, each with a cool-down of its own, every address is free at its time and not
// before, and the request that comes then gets it.
func TestDueInManyPools(t *testing.T) {
	t.Parallel()
	const n = 300
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	began := now
	pools := make([]Pool, n)
	rest := func(i int) time.Duration { return time.Duration(1+i*7919%n) * time.Second }
	for i := range pools {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i / 256), byte(i)})
		pools[i] = Pool{Name: fmt.Sprint("p", i), Ranges: []Range{{addr, addr}}, CoolDown: rest(i)}
	}
	a, err := Open(t.Context(), Config{Store: NewMemStore(), Pools: pools,
		Now: func() time.Time { return now }})
	require.NoError(t, err)
	ids := make([]string, n)
	for i := range ids {
		l, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: fmt.Sprint("T", i)}})
		require.NoError(t, err)
		require.Equal(t, pools[i].Name, l.Pool, "the first pool with a free address")
		ids[i] = l.ID
	}
	for _, id := range ids {
		_, err := a.Release(t.Context(), id, "")
		require.NoError(t, err)
	}
	for second := 1; second <= n; second++ {
		at := began.Add(time.Duration(second) * time.Second)
		now = at.Add(-time.Nanosecond)
		_, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: "early"}})
		var full *ExhaustedError
		require.ErrorAs(t, err, &full)
		require.Equal(t, ExhaustedError{Pools: full.Pools, Cooling: uint64(n + 1 - second),
			Soonest: at}, *full)
		require.Len(t, full.Pools, n)
		now = at
		due := slices.IndexFunc(pools, func(p Pool) bool {
			return p.CoolDown == time.Duration(second)*time.Second
		})
		l, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: fmt.Sprint("late", second)}})
		require.NoError(t, err)
		require.Equal(t, pools[due].Name, l.Pool)
		if second%50 == 0 {
			flagsAreRight(t, a)
		}
	}
}

// Requests choose by label, with and without fallback, as a look at every pool does, whatever has
// been asked for before and whichever pools are full, disabled or without leases that do not end.
func TestChoicesInManyPools(t *testing.T) {
	t.Parallel()
	const n = 200
	var pools []Pool
	for i := range n {
		first := netip.AddrFrom4([4]byte{10, 0, byte(i), 1})
		p := Pool{Name: fmt.Sprint("p", i), Ranges: []Range{{first, first.Next()}},
			Labels: map[string]string{"region": fmt.Sprint("r", i%5), "tier": fmt.Sprint(i % 3)}}
		if i%7 == 0 {
			p.MaxLease = time.Hour
		}
		p.Disabled = i%11 == 0
		pools = append(pools, p)
	}
	a, err := Open(t.Context(), Config{Store: NewMemStore(), Pools: pools})
	require.NoError(t, err)
	left := make([]int, n)
	for i := range left {
		left[i] = 2
	}
	// the pool that the request gets, by a look at all
	want := func(req Request) int {
		for _, matching := range []bool{true, false} {
			for i := range pools {
				p := &pools[i]
				if p.Disabled || left[i] == 0 || req.TTL == Forever && p.MaxLease > 0 ||
					p.has(req.Selector) != matching || !matching && !req.Fallback {
					continue
				}
				return i
			}
		}
		return -1
	}
	got := 0
	for i := range 3 * n {
		if i == n { // other pools are disabled now
			for j := range pools {
				pools[j].Disabled = j%13 == 0
			}
			require.NoError(t, a.SetPools(t.Context(), pools))
		}
		req := Request{Owner: Owner{Task: fmt.Sprint("T", i)}, Fallback: i%4 == 0,
			Selector: map[string]string{"region": fmt.Sprint("r", i%6)}}
		if i%3 == 0 {
			req.Selector["tier"] = fmt.Sprint(i % 4)
		}
		if i%5 == 0 {
			req.TTL = Forever
		}
		at := want(req)
		l, err := a.Allocate(t.Context(), req)
		if at < 0 {
			require.Error(t, err, "request %d: %v", i, req)
			continue
		}
		require.NoError(t, err, "request %d: %v", i, req)
		require.Equal(t, pools[at].Name, l.Pool, "request %d: %v", i, req)
		left[at]--
		got++
	}
	require.Greater(t, got, n)
	flagsAreRight(t, a)
}

// A request for an address of each family meets a pool that SetPools is about to fill, or has
// emptied: it passes over it.
func TestDualBesideSetPools(t *testing.T) {
	t.Parallel()
	pool := func(name, first, last string) Pool {
		return Pool{Name: name, CoolDown: -1,
			Ranges: []Range{{netip.MustParseAddr(first), netip.MustParseAddr(last)}}}
	}
	four, six := pool("four", "10.0.0.0", "10.0.0.99"), pool("six", "fd00::1", "fd00::99")
	more, more6 := pool("more", "10.0.1.0", "10.0.1.99"), pool("more6", "fd00::1:0", "fd00::1:99")
	a, err := Open(t.Context(), Config{Store: NewMemStore(), Pools: []Pool{four, six}})
	require.NoError(t, err)
	a.poolsAtOnce = 1
	for i := range 20 { // entries that move, one at a time
		l, err := a.Allocate(t.Context(), Request{Pool: "four", Owner: Owner{Task: fmt.Sprint(i)}})
		require.NoError(t, err)
		_, err = a.Release(t.Context(), l.ID, "")
		require.NoError(t, err)
	}
	var callers sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		callers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				l, _, err := a.AllocateDual(context.Background(),
					Request{Owner: Owner{Task: fmt.Sprint("D", i)}})
				if err == nil {
					_, err = a.Release(context.Background(), l.ID, "")
				}
				if err != nil {
					t.Errorf("dual: %v", err)
					return
				}
			}
		})
	}
	renamed := four
	renamed.Name = "renamed"
	for range 5 {
		require.NoError(t, a.SetPools(t.Context(), []Pool{more, more6, four, six}))
		require.NoError(t, a.SetPools(t.Context(), []Pool{more, more6, renamed, six}))
		require.NoError(t, a.SetPools(t.Context(), []Pool{four, six}))
	}
	close(done)
	callers.Wait()
	flagsAreRight(t, a)
}
