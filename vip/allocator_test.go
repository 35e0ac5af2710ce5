package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func TestOwnerGetsItsLeaseAgain(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.0/29"))
	first := allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1")})
	require.Equal(t, first, allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1"), Pool: "p"}))
	require.Equal(t, "10.0.0.1", first.Addr.String())
	require.Equal(t, uint64(1), conserved(t, a).Leased)

	other := allocate(t, a, vip.Request{Owner: owner("T1", "api", "v1")})
	require.NotEqual(t, first.Addr, other.Addr, "another cluster of the task")
	require.Len(t, a.List(vip.Query{Task: "T1", States: []vip.State{vip.Leased, vip.Draining}}), 2)
}

func TestConflictNamesTheDifference(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.0/29"),
		pool(t, "q", "10.0.1.0/29"))
	held := allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1")})

	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T1", "web", "v2", "api", "v3"),
		Pool: "q"})
	require.ErrorIs(t, err, vip.ErrConflict)
	var conflict *vip.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, held, conflict.Lease)
	require.Equal(t, []vip.Difference{{"pool", "p", "q"}, {"overrides.api", "", "v3"},
		{"overrides.web", "v1", "v2"}}, conflict.Diff)
	require.ErrorContains(t, err, `overrides.web is "v1", asked for "v2"`)
}

func TestCoolDownThenOldestFreedFirst(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "p", "10.0.0.1-10.0.0.3"))
	var leases []vip.Lease
	for i := range 3 {
		leases = append(leases, allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", i))}))
	}
	for _, i := range []int{1, 2, 0} {
		ended := release(t, a, leases[i])
		require.Equal(t, vip.Cooling, ended.State)
		require.Equal(t, c.Now().Add(130*time.Second), ended.CoolUntil)
		c.Add(time.Second)
	}
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("U0")})
	var full *vip.ExhaustedError
	require.ErrorAs(t, err, &full)
	require.ErrorIs(t, err, vip.ErrExhausted)
	require.Equal(t, uint64(3), full.Cooling)
	require.Equal(t, c.Now().Add(127*time.Second), full.Soonest)

	c.Add(130 * time.Second)
	require.Equal(t, uint64(3), conserved(t, a).Free)
	for i, want := range []int{1, 2, 0} {
		got := allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("U", i))})
		require.Equal(t, leases[want].Addr, got.Addr)
		require.Greater(t, got.Generation, leases[want].Generation)
	}
}

func TestLastAddressIsKept(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "p", "10.0.0.0/29"))
	first := allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1")})
	release(t, a, first)
	c.Add(time.Hour)
	require.Equal(t, first.Addr, allocate(t, a, vip.Request{Owner: owner("T1", "web", "v2")}).Addr)

	slow, quick := pool(t, "slow", "10.0.0.0/29"), pool(t, "quick", "10.0.1.0/29")
	slow.CoolDown, quick.CoolDown = time.Hour, time.Second
	a = allocator(t, vip.NewMemStore(), c, vip.Config{}, slow, quick)
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T1"), Pool: "slow"}))
	c.Add(time.Minute)
	last := release(t, a, allocate(t, a, vip.Request{Owner: owner("T1"), Pool: "quick"}))
	c.Add(time.Hour)
	require.Equal(t, last.Addr, allocate(t, a, vip.Request{Owner: owner("T1")}).Addr,
		"free for longer than the one it had before")
}

func TestStaleCallsAreFenced(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := pool(t, "p", "10.0.0.1")
	p.CoolDown = -1
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p)
	old := allocate(t, a, vip.Request{Owner: owner("T1"), RequestID: "r1"})
	for id, want := range map[string]error{
		strings.Replace(old.ID, "-1-", "-2-", 1):  vip.ErrNotFound, // of the future
		"10.0.0.1-1":                              vip.ErrFenced,
		"10.0.0.1-1-aaaaa":                        vip.ErrFenced,
		"10.0.0.1-1-" + strings.Repeat("a", 1<<9): vip.ErrNotFound,
		"10.0.0.1%\n-1-aaaaa":                     vip.ErrNotFound,
		"":                                        vip.ErrNotFound,
	} {
		_, err := a.Renew(t.Context(), id, 0)
		require.ErrorIs(t, err, want, id)
		require.Less(t, len(err.Error()), 200)
	}
	release(t, a, old)
	release(t, a, old)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T1"), RequestID: "r1"})
	require.ErrorIs(t, err, vip.ErrFenced, "late duplicate")

	held := allocate(t, a, vip.Request{Owner: owner("T2")})
	require.Equal(t, old.Addr, held.Addr)
	for what, call := range map[string]func() error{
		"renew": func() error {
			_, err := a.Renew(t.Context(), old.ID, 0)
			return err
		},
		"bind": func() error {
			_, err := a.Bind(t.Context(), old.ID, nil)
			return err
		},
		"release": func() error {
			_, err := a.Release(t.Context(), old.ID, "")
			return err
		},
	} {
		require.ErrorIs(t, call(), vip.ErrFenced, what)
	}
	got, err := a.Get(t.Context(), held.ID)
	require.NoError(t, err)
	require.Equal(t, held, got)
	for _, id := range []string{"", "x", "10.9.9.9-1", "10.0.0.1-3-abcde"} {
		_, err = a.Get(t.Context(), id)
		require.ErrorIs(t, err, vip.ErrNotFound, id)
	}
}

// A request id counts for one set of clusters, as the owner's identity does.
func TestLateDuplicateIsOfOneOwner(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{},
		pool(t, "p", "10.0.0.1-10.0.0.3"))
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1"), RequestID: "r1"}))
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T1", "web", "v1"), RequestID: "r1"})
	require.ErrorIs(t, err, vip.ErrFenced)
	allocate(t, a, vip.Request{Owner: owner("T1", "api", "v1"), RequestID: "r1"})
	allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1"), RequestID: "r2"})
}

func TestExpiryGraceAndRenew(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := pool(t, "p", "10.0.0.0/29")
	p.MaxLease = time.Hour
	a := allocator(t, vip.NewMemStore(), c, vip.Config{Grace: time.Minute}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1"), TTL: 10 * time.Minute})
	require.Equal(t, c.Now().Add(10*time.Minute), l.Expires)

	c.Add(10*time.Minute + 59*time.Second)
	require.NoError(t, a.Sweep(t.Context()))
	l, err := a.Renew(t.Context(), l.ID, 0)
	require.NoError(t, err, "within the grace")
	l, err = a.Renew(t.Context(), l.ID, 5*time.Hour)
	require.NoError(t, err)
	require.Equal(t, l.Acquired.Add(time.Hour), l.Expires, "the pool's maximum")

	c.Add(51 * time.Minute)
	_, err = a.Renew(t.Context(), l.ID, 0)
	require.ErrorIs(t, err, vip.ErrFenced, "not swept, and over all the same")
	require.NoError(t, a.Sweep(t.Context()))
	got, err := a.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, got.State)
	require.Equal(t, "expired", got.Reason)
	require.Empty(t, a.List(vip.Query{Task: "T1", States: []vip.State{vip.Leased, vip.Draining}}))

	for _, name := range []string{"", "p"} {
		_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("T2"), TTL: vip.Forever,
			Pool: name})
		require.ErrorIs(t, err, vip.ErrInvalid)
	}
	require.Equal(t, uint64(5), conserved(t, a).Free, "a refused request takes nothing")
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p, pool(t, "endless", "10.0.1.0/29")}))
	require.Equal(t, "endless", allocate(t, a, vip.Request{Owner: owner("T2"),
		TTL: vip.Forever}).Pool)
}

func TestAnAddressByName(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.0/29")
	p.Reserved[addr("10.0.0.4")] = "gateway"
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1"), Addr: addr("10.0.0.3")})
	require.Equal(t, addr("10.0.0.3"), l.Addr)

	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T2"), Addr: l.Addr})
	require.ErrorIs(t, err, vip.ErrTaken)
	require.ErrorContains(t, err, "leased, until")
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("T2"), Addr: addr("10.0.0.4")})
	require.ErrorContains(t, err, "reserved (gateway)")
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("T2"), Addr: addr("10.0.0.9")})
	require.ErrorIs(t, err, vip.ErrNotFound)

	got := map[netip.Addr]bool{l.Addr: true}
	for i := range 4 {
		got[allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("U", i))}).Addr] = true
	}
	require.Len(t, got, 5)
	require.NotContains(t, got, addr("10.0.0.4"))
	s := conserved(t, a)
	require.Equal(t, vip.Stats{Pool: "p", Size: 8, Leased: 5, Reserved: 3}, s)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("V")})
	require.ErrorIs(t, err, vip.ErrExhausted)
}

func TestBindAndFind(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.0/28"))
	l := allocate(t, a, vip.Request{Owner: owner("T1", "web", "v2", "api", "v3")})
	allocate(t, a, vip.Request{Owner: owner("T2", "web", "v4")})
	at := netip.MustParseAddrPort("192.0.2.1:8080")
	l, err := a.Bind(t.Context(), l.ID,
		[]vip.Instance{{ID: "c1", Addr: at, Cluster: "web", Version: "v2", Digest: "sha256:1"}})
	require.NoError(t, err)

	for _, q := range []vip.Query{{Addr: l.Addr}, {Task: "T1"}, {Cluster: "api"},
		{Cluster: "web", Version: "v2"}, {Version: "v3"}, {Instance: "c1"}, {InstanceAddr: at},
		{Pool: "p", InstanceAddr: at, Task: "T1"}} {
		require.Equal(t, []vip.Lease{l}, a.List(q), "%+v", q)
	}
	for _, q := range []vip.Query{{Addr: addr("10.0.0.9")}, {Task: "T3"},
		{Cluster: "api", Version: "v2"}, {Instance: "c2"}, {Task: "T2", InstanceAddr: at}, {Pool: "q"}} {
		require.Empty(t, a.List(q), "%+v", q)
	}
	moved := netip.MustParseAddrPort("192.0.2.1:9090")
	_, err = a.Bind(t.Context(), l.ID, []vip.Instance{{ID: "c1", Addr: moved}})
	require.NoError(t, err)
	leased := []vip.State{vip.Leased, vip.Draining}
	require.Empty(t, a.List(vip.Query{InstanceAddr: at, States: leased}))
	require.Len(t, a.List(vip.Query{InstanceAddr: moved, States: leased}), 1)

	_, err = a.Bind(t.Context(), l.ID, []vip.Instance{{ID: "c1"}})
	require.ErrorIs(t, err, vip.ErrInvalid)
	require.Len(t, a.List(vip.Query{InstanceAddr: moved, States: leased}), 1,
		"a refused binding changes nothing")
}

func TestCoolDownAwaitsDrained(t *testing.T) {
	t.Parallel()
	c := newClock()
	proof := map[netip.Addr]bool{}
	cfg := vip.Config{Drained: func(_ context.Context, l vip.Lease) (bool, error) {
		if !proof[l.Addr] {
			return false, errors.New("a connection is open")
		}
		return true, nil
	}}
	a := allocator(t, vip.NewMemStore(), c, cfg, pool(t, "p", "10.0.0.0/29"))
	first, second := allocate(t, a, vip.Request{Owner: owner("T1")}),
		allocate(t, a, vip.Request{Owner: owner("T2")})
	require.Equal(t, vip.Draining, release(t, a, first).State)
	release(t, a, second)
	require.ErrorContains(t, a.Sweep(t.Context()), "a connection is open")
	require.Equal(t, uint64(2), conserved(t, a).Draining)
	_, err := a.AllocateN(t.Context(), vip.Request{Owner: owner("T3")}, 5)
	var full *vip.ExhaustedError
	require.ErrorAs(t, err, &full)
	require.Equal(t, c.Now().Add(130*time.Second), full.Soonest, "if it is drained now")

	c.Add(time.Minute)
	proof[first.Addr] = true
	require.Error(t, a.Sweep(t.Context()))
	got, err := a.Get(t.Context(), first.ID)
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, got.State)
	require.Equal(t, c.Now().Add(130*time.Second), got.CoolUntil)

	c.Add(10 * time.Minute)
	require.NoError(t, a.Sweep(t.Context()), "the limit has passed")
	s := conserved(t, a)
	require.Equal(t, []uint64{0, 1, 5}, []uint64{s.Draining, s.Cooling, s.Free})
}

func TestEverythingSurvivesARestart(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.0/28")
	a := allocator(t, store, c, vip.Config{}, p)
	var leases []vip.Lease
	for i := range 5 {
		leases = append(leases, allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", i), "web",
			"v1"), TTL: time.Hour, RequestID: "r"}))
	}
	_, err := a.Bind(t.Context(), leases[0].ID,
		[]vip.Instance{{ID: "c", Addr: netip.MustParseAddrPort("[::1]:80")}})
	require.NoError(t, err)
	release(t, a, leases[1])
	c.Add(time.Second)
	release(t, a, leases[2])

	b := allocator(t, store, c, vip.Config{}, p)
	require.Equal(t, a.List(vip.Query{}), b.List(vip.Query{}))
	require.Equal(t, a.Stats(), b.Stats())
	require.Len(t, b.List(vip.Query{InstanceAddr: netip.MustParseAddrPort("[::1]:80"),
		States: []vip.State{vip.Leased, vip.Draining}}), 1)
	_, err = b.Allocate(t.Context(), vip.Request{Owner: owner("T1", "web", "v1"), RequestID: "r"})
	require.ErrorIs(t, err, vip.ErrFenced)
	c.Add(130 * time.Second)
	c.Add(time.Hour)
	require.NoError(t, b.Sweep(t.Context()))
	require.Equal(t, uint64(3), conserved(t, b).Cooling)
}

func TestLeasesOutliveTheirPool(t *testing.T) {
	t.Parallel()
	c, store := newClock(), vip.NewMemStore()
	a := allocator(t, store, c, vip.Config{}, pool(t, "old", "10.0.0.0/29"))
	l := allocate(t, a, vip.Request{Owner: owner("T1")})

	b := allocator(t, store, c, vip.Config{}, pool(t, "new", "10.0.1.0/29"))
	l, err := b.Renew(t.Context(), l.ID, 0)
	require.NoError(t, err)
	conserved(t, b)
	require.Equal(t, vip.Stats{Pool: "old", Size: 1, Leased: 1, Disabled: true, Gone: true},
		b.Stats()[1])
	release(t, b, l)
	c.Add(time.Hour)
	require.Len(t, b.Stats(), 1)
	require.Equal(t, addr("10.0.1.1"), allocate(t, b, vip.Request{Owner: owner("T1")}).Addr)
}

func TestBadPoolsAreAllNamed(t *testing.T) {
	t.Parallel()
	p, q := pool(t, "p", "10.0.0.0/29"), pool(t, "p", "10.0.0.4-10.0.0.20")
	_, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(),
		Pools: []vip.Pool{p, q, {Name: "empty"}}})
	require.ErrorContains(t, err,
		`pools "p" and "p": Pool.Ranges: 10.0.0.0-10.0.0.7 and 10.0.0.4-10.0.0.20 overlap`)
	require.ErrorContains(t, err, `pool "p": Pool.Name: another pool has this name`)
	require.ErrorContains(t, err, `pool "empty": Pool.Ranges: want at least one`)
}

func TestNobodySharesAnAddress(t *testing.T) {
	t.Parallel()
	eachMemStore(t, testNobodySharesAnAddress)
}

func testNobodySharesAnAddress(t *testing.T, store vip.Store) {
	p := pool(t, "p", "10.0.0.0/26")
	p.CoolDown = -1
	a := allocator(t, store, newClock(), vip.Config{}, p)
	var held holders
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := range 50 {
				task := fmt.Sprint("T", w, "-", i%3)
				l, err := a.Allocate(t.Context(), vip.Request{Owner: owner(task)})
				if errors.Is(err, vip.ErrExhausted) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				held.take(t, l.Addr, task)
				runtime.Gosched()
				held.give(l.Addr)
				if _, err := a.Release(t.Context(), l.ID, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, uint64(62), conserved(t, a).Free)
}

func TestOneOwnerInParallel(t *testing.T) {
	t.Parallel()
	eachMemStore(t, testOneOwnerInParallel)
}

func testOneOwnerInParallel(t *testing.T, store vip.Store) {
	a := allocator(t, store, newClock(), vip.Config{}, pool(t, "p", "10.0.0.0/24"))
	ids := make(chan string, 64)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			l, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T1", "web", "v1")})
			if err != nil {
				t.Error(err)
			}
			ids <- l.ID
		})
	}
	wg.Wait()
	close(ids)
	first := <-ids
	for id := range ids {
		require.Equal(t, first, id)
	}
	require.Equal(t, uint64(1), conserved(t, a).Leased)
}

func TestRunEndsWhatExpires(t *testing.T) {
	t.Parallel()
	eachMemStore(t, testRunEndsWhatExpires)
}

func testRunEndsWhatExpires(t *testing.T, store vip.Store) {
	c := newClock()
	a := allocator(t, store, c, vip.Config{Interval: time.Millisecond},
		pool(t, "p", "10.0.0.0/24"))
	for i := range 40 {
		allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", i)), TTL: time.Minute})
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	c.Add(time.Minute)
	require.Eventually(t, func() bool {
		return a.Stats()[0].Cooling == 40
	}, time.Minute, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

// A Drained that takes its time, as one that asks another service does, does not hold up the expiry
// of leases.
func TestRunDoesNotWaitForDrained(t *testing.T) {
	t.Parallel()
	c := newClock()
	asked := make(chan struct{}, 1000)
	drained := func(ctx context.Context, _ vip.Lease) (bool, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return false, ctx.Err()
	}
	cfg := vip.Config{Interval: time.Millisecond, Drained: drained}
	a := allocator(t, vip.NewMemStore(), c, cfg, pool(t, "p", "10.0.0.0/28"))
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
	allocate(t, a, vip.Request{Owner: owner("T2"), TTL: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	<-asked
	c.Add(time.Minute)
	require.Eventually(t, func() bool {
		return a.Stats()[0].Draining == 2
	}, time.Minute, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Empty(t, asked)
}

// Work that is due at the very moment at which Run is to end is not begun any more.
func TestRunAfterCancel(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	a := allocator(t, vip.NewMemStore(), newClock(),
		vip.Config{Drained: func(context.Context, vip.Lease) (bool, error) {
			asked.Add(1)
			return false, nil
		}}, pool(t, "p", "10.0.0.0/28"))
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		require.ErrorIs(t, a.Run(ctx), context.Canceled)
	}
	require.Zero(t, asked.Load())
}

// A sweep that waits for the store leaves due addresses as they are. Config.Drained is not called
// again and again for them.
func TestRunAsksSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		store := &hooked{Store: vip.NewMemStore()}
		a, err := vip.Open(t.Context(), vip.Config{Store: store,
			Pools: []vip.Pool{pool(t, "p", "10.0.0.0/28")}, Drained: func(context.Context,
				vip.Lease) (bool, error) {
				asked++
				return false, nil
			}})
		require.NoError(t, err)
		release(t, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
		for i := range 2 {
			allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("expires", i)),
				TTL: time.Duration(i+1) * time.Minute})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		hang := func() { <-ctx.Done() }
		store.next.Store(&hang)
		require.ErrorIs(t, a.Run(ctx), context.DeadlineExceeded)
		require.InDelta(t, 180, asked, 5, "once a second")
	})
}
