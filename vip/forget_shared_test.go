package vip_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// TestForgottenGenerations: another allocator has leased the address, and has forgotten it.
func TestForgottenGenerations(t *testing.T) {
	t.Parallel()
	store, c := vip.NewMemStore(), newClock()
	a := allocator(t, vip.Shared(store), c, vip.Config{}, pool(t, "p", "10.0.0.0/8"))
	b := allocator(t, vip.Shared(store), c, vip.Config{}, pool(t, "p", "10.0.0.0/8"))
	for _, name := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		release(t, b, allocate(t, b, vip.Request{Owner: owner("T-" + name), Addr: addr(name)}))
	}
	was := allocate(t, b, vip.Request{Owner: owner("T-1"), Addr: addr("10.0.0.9")})
	release(t, b, was)
	for range 2 {
		c.Add(10 * time.Minute)
		require.NoError(t, b.Sweep(t.Context()))
	}
	records, err := store.List(t.Context(), "addr/")
	require.NoError(t, err)
	require.Empty(t, records, "b has forgotten the addresses")

	again := allocate(t, a, vip.Request{Owner: owner("T-2"), Addr: was.Addr})
	require.Greater(t, again.Generation, was.Generation)
	release(t, a, again)
	for range 2 {
		c.Add(10 * time.Minute)
		require.NoError(t, a.Sweep(t.Context()))
	}
	back := allocate(t, b, vip.Request{Owner: owner("T-3"), Addr: was.Addr})
	require.Greater(t, back.Generation, again.Generation)
}
