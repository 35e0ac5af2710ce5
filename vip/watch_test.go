package vip_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	c := newClock()
	store, p := vip.NewMemStore(), pool(t, "p", "10.0.0.1-10.0.0.2")
	a := allocator(t, store, c, vip.Config{Grace: time.Minute}, p)
	from := a.Revision()
	next := make(chan []vip.Event)
	go func() {
		events, err := a.Watch(t.Context(), from)
		if err != nil {
			t.Error(err)
		}
		next <- events
	}()
	l := allocate(t, a, vip.Request{Owner: owner("T1"), TTL: time.Minute})
	require.Equal(t, vip.Allocated, (<-next)[0].Kind)
	_, err := a.Bind(t.Context(), l.ID, l.Generation, []vip.Instance{{ID: "c", Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
	require.NoError(t, err)
	_, err = a.Renew(t.Context(), l.ID, l.Generation, 0)
	require.NoError(t, err)
	c.Add(time.Minute)
	require.NoError(t, a.Sweep(t.Context()))
	c.Add(time.Minute)
	require.NoError(t, a.Sweep(t.Context()))
	c.Add(time.Hour)
	require.NoError(t, a.Sweep(t.Context()))
	_, err = a.Quarantine(t.Context(), addr("10.0.0.2"), "answers ARP", time.Minute)
	require.NoError(t, err)

	events, err := a.Watch(t.Context(), from)
	require.NoError(t, err)
	var kinds []vip.EventKind
	for i, e := range events {
		kinds = append(kinds, e.Kind)
		require.Equal(t, from+uint64(i)+1, e.Revision)
	}
	require.Equal(t, []vip.EventKind{vip.Allocated, vip.Bound, vip.Renewed, vip.Expiring, vip.Ended, vip.BecameFree, vip.Quarantine}, kinds)
	require.Equal(t, "expired", events[4].Lease.Reason)
	rest, err := a.Watch(t.Context(), events[4].Revision)
	require.NoError(t, err)
	require.Equal(t, events[5:], rest, "a watch goes on where it was")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Watch(ctx, a.Revision())
	require.ErrorIs(t, err, context.Canceled)
	for range 3000 {
		release(t, a, allocate(t, a, vip.Request{Owner: owner("T2")}))
		c.Add(130 * time.Second)
	}
	_, err = a.Watch(t.Context(), from)
	require.ErrorIs(t, err, vip.ErrCompacted)

	b := allocator(t, store, c, vip.Config{}, p)
	require.Greater(t, b.Revision(), a.Revision())
	_, err = b.Watch(t.Context(), a.Revision())
	require.ErrorIs(t, err, vip.ErrCompacted, "another allocator")
}

// That a lease expires is told once, whatever happens to it in its grace; after a renewal it is
// told anew.
func TestWatchExpiringOnce(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.1-10.0.0.2")
	a := allocator(t, store, c, vip.Config{Grace: time.Minute}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1"), TTL: time.Hour})
	from := a.Revision()
	expiring := func() (n int) { // since the last call
		require.NoError(t, a.Sweep(t.Context()))
		require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
		require.NoError(t, a.Sweep(t.Context()))
		for a.Revision() > from {
			events, err := a.Watch(t.Context(), from)
			require.NoError(t, err)
			for _, e := range events {
				if from = e.Revision; e.Kind == vip.Expiring {
					n++
				}
			}
		}
		return n
	}
	c.Add(time.Hour)
	require.Equal(t, 1, expiring())
	_, err := a.Renew(t.Context(), l.ID, l.Generation, 0)
	require.NoError(t, err)
	require.Zero(t, expiring())
	c.Add(time.Hour)
	require.Equal(t, 1, expiring())
	_, err = a.Bind(t.Context(), l.ID, l.Generation, nil) // which renews nothing
	require.NoError(t, err)
	require.Zero(t, expiring())
	c.Add(time.Minute)
	require.Zero(t, expiring())
	require.Empty(t, a.List(vip.Query{States: []vip.State{vip.Leased, vip.Draining}}))
}
