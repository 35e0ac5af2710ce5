package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/vip"
)

func TestParsePool(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ranges   []string
		size     uint64
		reserved int
		err      string
	}{
		{ranges: []string{"10.0.0.0/24"}, size: 256, reserved: 2},
		{ranges: []string{"10.0.0.0/31", "10.0.1.7/32", "10.0.1.9"}, size: 4},
		{ranges: []string{"10.0.0.1 - 10.0.0.20", "fd00::/64"}, size: 1<<64 - 1, reserved: 129},
		{ranges: []string{"fd00::/66"}, size: 1 << 62, reserved: 1},
		{ranges: []string{"fd00::/65"}, size: 1 << 63, reserved: 1},
		{ranges: []string{"fd00::1-fd00::ffff:ffff:ffff:ffff"}, size: 1<<64 - 1, reserved: 128},
		{ranges: []string{"fd00::/48", "fd01::/16", "10.0.0.0/8"}, size: 1<<64 - 1,
			reserved: 2*16*129 + 2},
		{ranges: []string{"fd00::fff0-fd00::1:000f"}, size: 32},
		{ranges: nil, err: "Pool.Ranges: want at least one"},
		{ranges: []string{"10.0.0.1/24"}, err: "host bits are set: write 10.0.0.0/24"},
		{ranges: []string{"10.0.0.9-10.0.0.1"}, err: "first is after last"},
		{ranges: []string{"10.0.0.1-fd00::1"}, err: "two address families"},
		{ranges: []string{"fe80::1%eth0"}, err: "zones are not supported"},
		{ranges: []string{"::ffff:10.0.0.1"}, err: "IPv4 in IPv6 form"},
		{ranges: []string{"10.0.0.0/29", "10.0.0.7"}, err: "ranges 10.0.0.0-10.0.0.7 and " +
			"10.0.0.7 overlap"},
		{ranges: []string{"tgw", "10.0.0.0/33"},
			err: `range "tgw": want a prefix, an address or first-last`},
	} {
		p, err := vip.ParsePool("p", c.ranges...)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, "%q", c.ranges)
			require.ErrorContains(t, err, `pool "p": `)
			continue
		}
		require.NoError(t, err, "%q", c.ranges)
		require.Len(t, p.Reserved, c.reserved)
		a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p)
		require.Equal(t, c.size, conserved(t, a).Size, "%q", c.ranges)
	}
}

// A pool hands out exactly the addresses that walking its ranges gives, in their order.
func TestPoolHandsOutItsRanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		next := netip.MustParseAddr(rapid.SampledFrom([]string{"10.0.0.250", "fd00::fff0",
			"fd00::ffff:ffff:ffff:fff9"}).Draw(t, "start"))
		var ranges []vip.Range
		var want []netip.Addr
		for range rapid.IntRange(1, 5).Draw(t, "ranges") {
			for range rapid.IntRange(0, 9).Draw(t, "gap") {
				next = next.Next()
			}
			r := vip.Range{First: next}
			for range rapid.IntRange(1, 20).Draw(t, "length") {
				want = append(want, next)
				r.Last, next = next, next.Next()
			}
			ranges = append(ranges, r)
		}
		a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(),
			Pools: []vip.Pool{{Name: "p", Ranges: rapid.Permutation(ranges).Draw(t, "order")}}})
		require.NoError(t, err)
		for i, addr := range want {
			l, err := a.Allocate(t.Context(), vip.Request{Owner: owner(fmt.Sprint("T", i))})
			require.NoError(t, err)
			require.Equal(t, addr, l.Addr)
		}
		_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("one-more")})
		require.ErrorIs(t, err, vip.ErrExhausted)
	})
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"10.0.0.0/24", "10.0.0.1-10.0.0.3", "fd00::1", "::/0", "0.0.0.0/0",
		"-", "1.1.1.1-", "::ffff:1.2.3.4/120"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := vip.ParseRange(s)
		if err != nil {
			return
		}
		again, err := vip.ParseRange(r.String())
		if err != nil || again != r || r.Last.Less(r.First) {
			t.Errorf("%q: %v, and again: %v, %v", s, r, again, err)
		}
	})
}

func TestSelectorAndFallback(t *testing.T) {
	t.Parallel()
	bj, sh, off := pool(t, "bj", "10.0.0.1"), pool(t, "sh", "10.0.1.1-10.0.1.2"),
		pool(t, "off", "10.0.2.1")
	bj.Labels, sh.Labels = map[string]string{"region": "bj", "net": "a"},
		map[string]string{"region": "sh"}
	off.Labels, off.Disabled = map[string]string{"region": "off"}, true
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, bj, sh, off)
	in := func(region string, fallback bool) vip.Request {
		return vip.Request{Selector: map[string]string{"region": region}, Fallback: fallback}
	}
	req := in("sh", false)
	req.Owner = owner("T1")
	require.Equal(t, "sh", allocate(t, a, req).Pool)
	req = in("bj", true)
	req.Owner = owner("T2")
	require.Equal(t, "bj", allocate(t, a, req).Pool)
	req.Owner = owner("T3")
	require.Equal(t, "sh", allocate(t, a, req).Pool, "bj is full")

	for _, c := range []struct {
		req   vip.Request
		pools []string
		text  string
	}{
		{in("bj", false), []string{"bj"}, `pool bj: 0 free`},
		{in("off", false), nil, "no enabled pool matches"},
		{in("nowhere", false), nil, "no enabled pool matches"},
		{vip.Request{Pool: "off"}, nil, "no enabled pool matches"},
		{in("off", true), []string{"bj", "sh"}, "pool bj, sh: "},
	} {
		c.req.Owner = owner("T4")
		_, err := a.Allocate(t.Context(), c.req)
		var full *vip.ExhaustedError
		require.ErrorAs(t, err, &full)
		require.Equal(t, c.pools, full.Pools)
		require.ErrorContains(t, err, c.text)
	}
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T4"), Pool: "none"})
	require.ErrorIs(t, err, vip.ErrNotFound)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("T4"), Addr: addr("10.0.2.1")})
	require.ErrorContains(t, err, `pool "off" is disabled`)

	require.Len(t, a.List(vip.Query{Selector: map[string]string{"region": "sh"},
		States: []vip.State{vip.Leased, vip.Draining}}), 2)
	require.Len(t, a.List(vip.Query{Selector: map[string]string{"region": "bj", "net": "a"},
		States: []vip.State{vip.Leased, vip.Draining}}), 1)
	require.Empty(t, a.List(vip.Query{Selector: map[string]string{"region": "bj", "net": "b"},
		States: []vip.State{vip.Leased, vip.Draining}}))
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	p, q := pool(t, "p", "10.0.0.0/28"), pool(t, "q", "10.0.1.0/28")
	p.Quotas = map[string]int{"web": 2, vip.AnyTeam: 1}
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p)
	take := func(task, team string) (vip.Lease, error) {
		return a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task, Team: team}})
	}
	first, err := take("T1", "web")
	require.NoError(t, err)
	_, err = take("T2", "web")
	require.NoError(t, err)
	_, err = take("T3", "web")
	require.ErrorIs(t, err, vip.ErrQuota)
	require.ErrorContains(t, err, `pool "p": team "web": 2 of 2 leases`)
	_, err = take("T4", "")
	require.NoError(t, err)
	_, err = take("T5", "")
	require.ErrorIs(t, err, vip.ErrQuota)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T3", Team: "web"},
		Addr: addr("10.0.0.9")})
	require.ErrorIs(t, err, vip.ErrQuota)
	_, err = a.AllocateN(t.Context(), vip.Request{Owner: vip.Owner{Task: "T6", Team: "api"}}, 2)
	require.ErrorIs(t, err, vip.ErrQuota)

	release(t, a, first)
	_, err = take("T3", "web")
	require.NoError(t, err)

	p.Quotas["web"] = 1
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p, q}))
	l, err := take("T7", "web")
	require.NoError(t, err)
	require.Equal(t, "q", l.Pool, "another pool has no quota")
	require.Equal(t, uint64(3), conserved(t, a).Leased)
}

func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.0/29"),
		pool(t, "q", "10.0.1.0/28"))
	allocate(t, a, vip.Request{Owner: owner("T0")})
	req := vip.Request{Owner: owner("T1", "web", "v1")}
	group, err := a.AllocateN(t.Context(), req, 6)
	require.NoError(t, err)
	require.Len(t, group, 6)
	require.Equal(t, "q", group[0].Pool, "p has 5: they are all of one pool")
	again, err := a.AllocateN(t.Context(), req, 6)
	require.NoError(t, err)
	require.Equal(t, group, again)

	_, err = a.AllocateN(t.Context(), vip.Request{Owner: owner("T2")}, 9)
	require.ErrorIs(t, err, vip.ErrExhausted)
	require.Equal(t, []uint64{1, 6}, []uint64{a.Stats()[0].Leased, a.Stats()[1].Leased})
	_, err = a.AllocateN(t.Context(), req, 5)
	require.ErrorContains(t, err, `count is "6", asked for "5"`)
	release(t, a, group[2])
	_, err = a.AllocateN(t.Context(), req, 6)
	require.ErrorContains(t, err, `live leases of the group is "5", asked for "6"`)
	_, err = a.AllocateN(t.Context(), req, vip.MaxTogether+1)
	require.ErrorIs(t, err, vip.ErrInvalid)
}

// An address that goes to another pool takes its lease with it.
func TestLeaseSaysInWhichPoolItIs(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{},
		pool(t, "p", "10.0.0.1-10.0.0.9"))
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{pool(t, "q", "10.0.0.1-10.0.0.3"),
		pool(t, "p", "10.0.0.4-10.0.0.9")}))
	require.Empty(t, a.List(vip.Query{Pool: "p"}))
	require.Equal(t, "q", a.List(vip.Query{Pool: "q"})[0].Pool)
	require.Equal(t, "q", allocate(t, a, vip.Request{Owner: owner("T1"), Pool: "q"}).Pool)
	l, err := a.Renew(t.Context(), l.ID, 0)
	require.NoError(t, err)
	require.Equal(t, "q", l.Pool)
}

// The rest of an address lasts as long when its pool is taken away meanwhile and comes back.
func TestCoolDownOutlastsItsPool(t *testing.T) {
	t.Parallel()
	c, p := newClock(), pool(t, "p", "10.0.0.1")
	p.CoolDown = time.Hour
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p)
	ended := release(t, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{pool(t, "q", "10.0.1.1")}))
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
	l, err := a.Get(t.Context(), ended.ID)
	require.NoError(t, err)
	require.Equal(t, c.Now().Add(time.Hour), l.CoolUntil)
}

func TestSetPoolsLeavesLeasesAlone(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "p", "10.0.0.0/28"))
	var leases []vip.Lease
	for i := range 6 {
		leases = append(leases, allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", i))}))
	}
	release(t, a, leases[0])
	small := pool(t, "p", "10.0.0.2-10.0.0.3")
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{small}))
	require.Equal(t, []vip.Stats{
		{Pool: "p", Size: 2, Leased: 2},
		{Pool: "p", Size: 4, Leased: 3, Cooling: 1, Disabled: true, Gone: true},
	}, a.Stats())
	for _, l := range leases[1:] {
		_, err := a.Renew(t.Context(), l.ID, 0)
		require.NoError(t, err)
	}
	release(t, a, leases[4])
	c.Add(130 * time.Second)
	require.Equal(t, uint64(2), a.Stats()[1].Size)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("U")})
	require.ErrorIs(t, err, vip.ErrExhausted, "what left the pool is not handed out")

	grown := pool(t, "p", "10.0.0.0/27")
	grown.Reserved[addr("10.0.0.5")] = "gateway"
	grown.Reserved[addr("10.0.0.4")] = "taken while leased"
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{grown}))
	require.Equal(t, vip.Stats{Pool: "p", Size: 32, Leased: 4, Free: 25, Reserved: 3},
		conserved(t, a))
	release(t, a, leases[3])
	c.Add(130 * time.Second)
	require.Equal(t, vip.Stats{Pool: "p", Size: 32, Leased: 3, Free: 25, Reserved: 4},
		conserved(t, a))
	for i := range 25 {
		l := allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("V", i))})
		require.NotContains(t, grown.Reserved, l.Addr)
	}
	l, err := a.Get(t.Context(), leases[1].ID)
	require.NoError(t, err)
	require.Equal(t, leases[1].Acquired, l.Acquired)

	require.Error(t, a.SetPools(t.Context(), nil))
	require.Equal(t, uint64(28), conserved(t, a).Leased, "refused pools change nothing")
}

// An allocation whose outcome is not known counts until it is: it may turn out to have been made.
func TestQuotaCountsWhatIsInDoubt(t *testing.T) {
	t.Parallel()
	for _, made := range []bool{true, false} {
		p := pool(t, "p", "10.0.0.1-10.0.0.8")
		p.Quotas = map[string]int{"web": 1}
		store := &silent{Store: vip.NewMemStore(), made: made}
		a := allocator(t, store, newClock(), vip.Config{}, p)
		ctx, cancel := context.WithCancel(t.Context())
		store.lose = cancel
		_, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "A", Team: "web"}})
		require.ErrorIs(t, err, vip.ErrUncertain)
		next := vip.Request{Owner: vip.Owner{Task: "B", Team: "web"}}
		_, err = a.Allocate(t.Context(), next)
		require.ErrorIs(t, err, vip.ErrQuota)
		require.NoError(t, a.Sweep(t.Context()))
		if _, err = a.Allocate(t.Context(), next); made {
			require.ErrorIs(t, err, vip.ErrQuota)
		} else {
			require.NoError(t, err)
		}
		require.Len(t, a.List(vip.Query{Team: "web"}), 1)
	}
}

// SetPools keeps uncertain allocations: they count for the quotas of the pools that their addresses
// are in now, and no other owner gets these.
func TestSetPoolsKeepsWhatIsInDoubt(t *testing.T) {
	t.Parallel()
	for _, made := range []bool{true, false} {
		p := pool(t, "p", "10.0.0.1-10.0.0.4")
		p.Quotas = map[string]int{"web": 2}
		store := &silent{Store: vip.NewMemStore(), made: made}
		a := allocator(t, store, newClock(), vip.Config{}, p)
		ctx, cancel := context.WithCancel(t.Context())
		store.lose = cancel
		_, err := a.AllocateN(ctx, vip.Request{Owner: vip.Owner{Task: "A", Team: "web"}}, 2)
		require.ErrorIs(t, err, vip.ErrUncertain)
		away, q, r := pool(t, "away", "10.0.1.1"), pool(t, "q", "10.0.0.1", "10.0.0.3"),
			pool(t, "r", "10.0.0.2", "10.0.0.4")
		q.Quotas, r.Quotas = map[string]int{"web": 1}, map[string]int{"web": 1}
		for _, pools := range [][]vip.Pool{{away}, {q, r}} {
			require.NoError(t, a.SetPools(t.Context(), pools))
		}
		web := func(task, pool string) error {
			_, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task, Team: "web"},
				Pool: pool})
			return err
		}
		require.ErrorIs(t, web("B", "q"), vip.ErrQuota)
		require.ErrorIs(t, web("C", "r"), vip.ErrQuota)
		for _, task := range []string{"D", "E"} {
			require.Contains(t, []string{"10.0.0.3", "10.0.0.4"},
				allocate(t, a, vip.Request{Owner: owner(task)}).Addr.String())
		}
		require.NoError(t, a.Sweep(t.Context()))
		if made {
			require.ErrorIs(t, web("B", "q"), vip.ErrQuota)
			require.Len(t, a.List(vip.Query{Task: "A"}), 2)
			for _, l := range a.List(vip.Query{Task: "A"}) {
				release(t, a, l)
			}
		} else {
			require.NoError(t, web("B", "q"))
			require.NoError(t, web("C", "r"))
		}
		for _, s := range a.Stats() {
			require.Equal(t, s.Size, s.Free+s.Leased+s.Cooling, "%+v", s)
		}
	}
}

// An allocation that is in flight when SetPools sets a quota counts for it at once, and once.
func TestSetPoolsCountsInFlight(t *testing.T) {
	t.Parallel()
	p, q := pool(t, "p", "10.0.0.1-10.0.0.3"), pool(t, "q", "10.0.1.1")
	store := &hooked{Store: vip.NewMemStore()}
	a := allocator(t, store, newClock(), vip.Config{}, p)
	quota := p
	quota.Quotas = map[string]int{"web": 1}
	var poolsErr, err error
	hook := func() {
		poolsErr = a.SetPools(t.Context(), []vip.Pool{quota, q})
		_, err = a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "B", Team: "web"},
			Pool: "p"})
	}
	store.next.Store(&hook)
	l := allocate(t, a, vip.Request{Owner: vip.Owner{Task: "A", Team: "web"}})
	require.NoError(t, poolsErr)
	require.ErrorIs(t, err, vip.ErrQuota)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "B", Team: "web"},
		Pool: "p"})
	require.ErrorIs(t, err, vip.ErrQuota)
	release(t, a, l)
	allocate(t, a, vip.Request{Owner: vip.Owner{Task: "B", Team: "web"}, Pool: "p"})
}

// silent is a store that loses one answer, and its caller.
type silent struct {
	vip.Store
	made bool
	lose func()
}

func (*silent) Exclusive() bool { return true }

func (s *silent) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	lose := s.lose
	if s.lose = nil; lose == nil {
		return s.Store.Commit(ctx, changes...)
	}
	lose()
	if s.made {
		_, err := s.Store.Commit(context.WithoutCancel(ctx), changes...)
		return 0, errors.Join(context.Canceled, err)
	}
	return 0, context.Canceled
}

// Rules that change in place are in force for every lease that lives, is asked for, or waits; the
// events before show the pool as it is now.
func TestChangeRules(t *testing.T) {
	t.Parallel()
	p, q := pool(t, "p", "10.0.0.1-10.0.0.3"), pool(t, "q", "10.0.1.1-10.0.1.2")
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p, q)
	team := func(task string) vip.Request {
		return vip.Request{Owner: vip.Owner{Task: task, Team: "web"}}
	}
	from := a.Revision()
	first := allocate(t, a, team("T1"))
	require.Len(t, a.List(vip.Query{}), 1)
	var wg sync.WaitGroup
	for range 2 { // readers beside the changes
		wg.Go(func() {
			for range 50 {
				a.List(vip.Query{Selector: map[string]string{"net": "a"}})
				events, err := a.Watch(t.Context(), from)
				if err != nil || events[0].Lease().Addr != first.Addr {
					t.Error(err)
				}
			}
		})
	}
	for i := range 50 {
		p.Quotas, p.Disabled = map[string]int{vip.AnyTeam: i}, i%2 == 0
		require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p, q}))
	}
	wg.Wait()
	p.Quotas, p.Disabled, p.Labels = map[string]int{"web": 2}, false, map[string]string{"net": "a"}
	p.Details = map[netip.Addr]vip.Details{first.Addr: {Region: "bj"}}
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{q, p}))
	require.Equal(t, "bj",
		a.List(vip.Query{Selector: map[string]string{"net": "a"}})[0].Details.Region)
	require.Equal(t, "q", a.Stats()[0].Pool)
	require.Equal(t, "q", allocate(t, a, team("T2")).Pool)
	q.Disabled = true
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{q, p}))
	allocate(t, a, team("T3"))
	_, err := a.Allocate(t.Context(), team("T4"))
	require.ErrorIs(t, err, vip.ErrQuota, "the lease of before counts")

	waits := make(chan error)
	go func() {
		_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T5"), Pool: "q", Wait: true})
		waits <- err
	}()
	require.Eventually(t, func() bool {
		return len(a.Waiting()) == 1
	}, time.Minute, time.Millisecond)
	q.Disabled, q.MaxLease = false, time.Hour
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p, q}))
	require.NoError(t, <-waits)
	got := a.List(vip.Query{Task: "T5"})[0]
	require.Equal(t, got.Acquired.Add(time.Hour), got.Expires)
	conserved(t, a)
}

// WatchPools returns the pools of each SetPools, which has two ways to go about it.
func TestWatchPools(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.0/29")
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p)
	pools, revision, err := a.WatchPools(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, a.Pools(), pools)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	disabled := p
	disabled.Disabled = true
	for _, next := range []vip.Pool{pool(t, "p", "10.0.0.0/28"), p, disabled} {
		time.AfterFunc(time.Millisecond, func() {
			if err := a.SetPools(ctx, []vip.Pool{next}); err != nil {
				panic(err)
			}
		})
		var newer uint64
		pools, newer, err = a.WatchPools(ctx, revision)
		require.NoError(t, err)
		require.Greater(t, newer, revision)
		require.Equal(t, a.Pools(), pools)
		require.Equal(t, next.Ranges, pools[0].Ranges)
		require.Equal(t, next.Disabled, pools[0].Disabled)
		revision = newer
	}
}
