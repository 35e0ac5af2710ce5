package vip_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func lostOf(a *vip.Allocator) []netip.Addr {
	var all []netip.Addr
	for _, l := range a.Lost() {
		all = append(all, l.Addr)
	}
	return all
}

// drop deletes all records of addresses from the store.
func drop(t *testing.T, s vip.Store) {
	t.Helper()
	records, err := s.List(t.Context(), "addr/")
	require.NoError(t, err)
	for _, r := range records {
		_, err := s.Commit(t.Context(), vip.Change{Key: r.Key, Revision: vip.AnyRevision})
		require.NoError(t, err)
	}
}

func TestLost(t *testing.T) {
	t.Parallel()
	store, c := vip.NewMemStore(), newClock()
	a := allocator(t, vip.Shared(store), c, vip.Config{}, pool(t, "p", "10.0.0.1-10.0.0.9"))
	held := allocate(t, a, vip.Request{Owner: owner("T-1")})
	other := allocate(t, a, vip.Request{Owner: owner("T-2")})
	rests := release(t, a, allocate(t, a, vip.Request{Owner: owner("T-3")}))
	require.Equal(t, vip.Cooling, rests.State)
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T-4"), Addr: addr("10.0.0.9")}))
	c.Add(time.Second)
	require.NoError(t, a.Sweep(t.Context()))
	require.Empty(t, a.Lost(), "a lease that was ended is not lost")

	drop(t, store)
	c.Add(time.Minute)
	require.NoError(t, a.Sweep(t.Context()))
	require.Empty(t, a.List(vip.Query{}))
	require.Equal(t, []netip.Addr{held.Addr, other.Addr, rests.Addr, addr("10.0.0.9")}, lostOf(a))
	require.Equal(t, held.ID, a.Lost()[0].ID)
	require.Equal(t, vip.Leased, a.Lost()[0].State)

	again := allocate(t, a, vip.Request{Owner: owner("T-5"), Addr: held.Addr})
	require.NotEqual(t, held.ID, again.ID)
	require.Equal(t, []netip.Addr{other.Addr, rests.Addr, addr("10.0.0.9")}, lostOf(a))

	b := allocator(t, vip.Shared(store), c, vip.Config{}, pool(t, "p", "10.0.0.1-10.0.0.9"))
	allocate(t, b, vip.Request{Owner: owner("T-6"), Addr: other.Addr})
	c.Add(time.Minute)
	require.NoError(t, a.Sweep(t.Context()))
	require.Equal(t, []netip.Addr{rests.Addr, addr("10.0.0.9")}, lostOf(a),
		"another allocator has leased it")

	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{pool(t, "p", "10.0.0.1-10.0.0.8")}))
	require.Equal(t, []netip.Addr{rests.Addr}, lostOf(a), "no pool has the other")
}

// TestLostInBackup: the store was put back to before the tenure of an address.
func TestLostInBackup(t *testing.T) {
	t.Parallel()
	store, c := &rewound{Store: vip.NewMemStore()}, newClock()
	a := allocator(t, vip.Shared(store), c, vip.Config{}, pool(t, "p", "10.0.0.1"))
	was := allocate(t, a, vip.Request{Owner: owner("T-1")})
	release(t, a, was)
	store.backUp(t)
	c.Add(time.Hour)
	held := allocate(t, a, vip.Request{Owner: owner("T-2")})
	store.putBack(t)
	c.Add(time.Minute)
	require.NoError(t, a.Sweep(t.Context()))
	require.Len(t, a.Lost(), 1)
	require.Equal(t, held.ID, a.Lost()[0].ID)
	allocate(t, a, vip.Request{Owner: owner("T-3")})
	require.Empty(t, a.Lost())
}

// TestForgottenIsNotLost: another allocator has ended the lease and forgotten the address.
func TestForgottenIsNotLost(t *testing.T) {
	t.Parallel()
	store, c := vip.NewMemStore(), newClock()
	a := allocator(t, vip.Shared(store), c, vip.Config{}, pool(t, "p", "10.0.0.0/8"))
	b := allocator(t, vip.Shared(store), c, vip.Config{}, pool(t, "p", "10.0.0.0/8"))
	held := allocate(t, a, vip.Request{Owner: owner("T-1")})
	require.NoError(t, b.Sweep(t.Context()))
	release(t, b, held)
	for range 3 {
		c.Add(10 * time.Minute)
		require.NoError(t, b.Sweep(t.Context()))
	}
	records, err := store.List(t.Context(), "addr/")
	require.NoError(t, err)
	require.Empty(t, records, "b has forgotten the address")
	require.NoError(t, a.Sweep(t.Context()))
	require.Empty(t, a.List(vip.Query{}))
	require.Empty(t, a.Lost())
}
