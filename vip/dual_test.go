package vip_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// dual opens an allocator with pools of both families.
func dual(t *testing.T, c *clock, cfg vip.Config) *vip.Allocator {
	t.Helper()
	return allocator(t, vip.NewMemStore(), c, cfg, pool(t, "four", "10.0.0.1-10.0.0.3"),
		pool(t, "six", "fd00::1-fd00::2"))
}

func TestAllocateDual(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := dual(t, c, vip.Config{})
	req := vip.Request{Owner: owner("T1"), TTL: time.Hour}
	v4, v6, err := a.AllocateDual(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, addr("10.0.0.1"), v4.Addr)
	require.Equal(t, addr("fd00::1"), v6.Addr)
	require.Equal(t, []string{v6.ID, v4.ID}, []string{v4.Peer, v6.Peer})
	again4, again6, err := a.AllocateDual(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, []vip.Lease{v4, v6}, []vip.Lease{again4, again6}, "asked twice")

	_, err = a.Allocate(t.Context(), req)
	require.ErrorIs(t, err, vip.ErrConflict)
	_, err = a.AllocateN(t.Context(), req, 2)
	require.ErrorIs(t, err, vip.ErrConflict)
	single := allocate(t, a, vip.Request{Owner: owner("T2")})
	_, _, err = a.AllocateDual(t.Context(), vip.Request{Owner: owner("T2")})
	require.ErrorIs(t, err, vip.ErrConflict)
	release(t, a, single)

	instances := []vip.Instance{{ID: "c1", Addr: netip.MustParseAddrPort("192.0.2.1:80")}}
	_, err = a.Bind(t.Context(), v6.ID, instances)
	require.NoError(t, err)
	c.Add(time.Minute)
	_, err = a.Renew(t.Context(), v4.ID, 2*time.Hour)
	require.NoError(t, err)
	both := a.List(vip.Query{Task: "T1"})
	require.Len(t, both, 2)
	for _, l := range both {
		require.Equal(t, c.Now().Add(2*time.Hour), l.Expires)
		require.Equal(t, instances, l.Binding.Instances)
	}
	require.Len(t, a.List(vip.Query{InstanceAddr: instances[0].Addr}), 2)

	_, err = a.Release(t.Context(), v6.ID, "done")
	require.NoError(t, err)
	for _, l := range []vip.Lease{v4, v6} {
		l, err = a.Get(t.Context(), l.ID)
		require.NoError(t, err)
		require.Equal(t, vip.Cooling, l.State)
		require.Equal(t, "done", l.Reason)
		release(t, a, l) // the other one's end is no error
	}
	_, err = a.Renew(t.Context(), v4.ID, 0)
	require.ErrorIs(t, err, vip.ErrFenced)
	again4, again6, err = a.AllocateDual(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, []netip.Addr{v4.Addr, v6.Addr}, []netip.Addr{again4.Addr, again6.Addr},
		"the owner keeps both")
	conserved(t, a)
}

func TestDualIsBothOrNone(t *testing.T) {
	t.Parallel()
	a := dual(t, newClock(), vip.Config{})
	for _, task := range []string{"T1", "T2"} {
		_, _, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner(task)})
		require.NoError(t, err)
	}
	_, _, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T3")})
	var full *vip.ExhaustedError
	require.ErrorAs(t, err, &full)
	require.Equal(t, []string{"six"}, full.Pools)
	require.False(t, full.Never)
	require.Empty(t, a.List(vip.Query{Task: "T3"}))
	require.Equal(t, addr("10.0.0.3"), allocate(t, a, vip.Request{Owner: owner("T4")}).Addr,
		"the address that was picked is free still")

	only4 := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.1"),
		pool(t, "mixed", "10.0.1.1", "fd00::1"))
	_, _, err = only4.AllocateDual(t.Context(), vip.Request{Owner: owner("T1"), Wait: true})
	require.ErrorAs(t, err, &full)
	require.True(t, full.Never, "a pool of both families serves neither")
	for _, bad := range []vip.Request{{Owner: owner("T1"), Pool: "p"},
		{Owner: owner("T1"), Addr: addr("10.0.0.1")}} {
		_, _, err = only4.AllocateDual(t.Context(), bad)
		require.ErrorIs(t, err, vip.ErrInvalid)
	}
}

// However one of the two ends, the other one ends with it.
func TestDualEndsTogether(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, c *clock, a *vip.Allocator, l vip.Lease){
		"expiry": func(t *testing.T, c *clock, a *vip.Allocator, _ vip.Lease) {
			c.Add(24 * time.Hour)
			require.NoError(t, a.Sweep(t.Context()))
		},
		"expiry that the next request finds": func(t *testing.T, c *clock, a *vip.Allocator,
			_ vip.Lease) {
			c.Add(24 * time.Hour)
			_, _, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T1"), TTL: 1})
			require.NoError(t, err)
			c.Add(time.Second)
			require.NoError(t, a.Sweep(t.Context()))
		},
		"quarantine": func(t *testing.T, _ *clock, a *vip.Allocator, l vip.Lease) {
			_, err := a.Quarantine(t.Context(), l.Addr, "bad", 0)
			require.NoError(t, err)
		},
	} {
		for family := range 2 {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := newClock()
				a := dual(t, c, vip.Config{})
				v4, v6, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T1")})
				require.NoError(t, err)
				end(t, c, a, []vip.Lease{v4, v6}[family])
				require.Empty(t, a.List(vip.Query{Task: "T1", States: []vip.State{vip.Leased}}))
				for _, l := range []vip.Lease{v4, v6} {
					_, err := a.Renew(t.Context(), l.ID, 0)
					require.ErrorIs(t, err, vip.ErrFenced)
				}
				conserved(t, a)
			})
		}
	}
}

// The shorter Pool.MaxLease bounds both, over renewals.
func TestDualExpiresTogether(t *testing.T) {
	t.Parallel()
	c := newClock()
	four, six := pool(t, "four", "10.0.0.1"), pool(t, "six", "fd00::1")
	four.MaxLease, six.MaxLease = 3*time.Hour, time.Hour
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, four, six)
	v4, v6, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T1"), TTL: 2 * time.Hour})
	require.NoError(t, err)
	ends := c.Now().Add(time.Hour)
	require.Equal(t, []time.Time{ends, ends}, []time.Time{v4.Expires, v6.Expires})
	c.Add(time.Minute)
	v4, err = a.Renew(t.Context(), v4.ID, 0)
	require.NoError(t, err)
	require.Equal(t, ends, v4.Expires)
}

// A dual request that waits takes nothing from others until both are free.
func TestDualWaits(t *testing.T) {
	t.Parallel()
	c := newClock()
	four, six := pool(t, "four", "10.0.0.1-10.0.0.2"), pool(t, "six", "fd00::1")
	four.CoolDown, six.CoolDown = -1, -1
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, four, six)
	_, v6, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T1")})
	require.NoError(t, err)
	type answer struct {
		v4, v6 vip.Lease
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		v4, v6, err := a.AllocateDual(context.Background(), vip.Request{Owner: owner("T2"),
			Wait: true})
		done <- answer{v4, v6, err}
	}()
	require.Eventually(t, func() bool { return len(a.Waiting()) == 1 }, time.Minute,
		time.Millisecond)
	w := a.Waiting()[0]
	require.True(t, w.DualStack)
	require.Equal(t, 2, w.Count)
	require.Equal(t, v6.Expires, w.Estimate)
	other := allocate(t, a, vip.Request{Owner: owner("T3"), Pool: "four"})
	release(t, a, v6)
	got := <-done
	require.NoError(t, got.err)
	require.NotEqual(t, other.Addr, got.v4.Addr)
	require.Equal(t, v6.Addr, got.v6.Addr)
	conserved(t, a)
}

// Another allocator, which knows of neither or of one, ends both.
func TestDualShared(t *testing.T) {
	t.Parallel()
	c, store := newClock(), vip.NewMemStore()
	pools := []vip.Pool{pool(t, "four", "10.0.0.1-10.0.0.3"), pool(t, "six", "fd00::1-fd00::2")}
	a := allocator(t, vip.Shared(store), c, vip.Config{}, pools...)
	b := allocator(t, vip.Shared(store), c, vip.Config{}, pools...)
	v4, v6, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T1")})
	require.NoError(t, err)
	again4, again6, err := b.AllocateDual(t.Context(), vip.Request{Owner: owner("T1")})
	require.NoError(t, err)
	require.Equal(t, []string{v4.ID, v6.ID}, []string{again4.ID, again6.ID})
	b = allocator(t, vip.Shared(store), c, vip.Config{}, pools...)
	other4, other6, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T2")})
	require.NoError(t, err)
	for _, l := range []vip.Lease{v4, other6} { // b has not heard of the second pair
		release(t, b, l)
	}
	for _, l := range []vip.Lease{v4, v6, other4, other6} {
		_, err = a.Renew(t.Context(), l.ID, 0)
		require.ErrorIs(t, err, vip.ErrFenced)
	}
}
