package vip_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func TestHistory(t *testing.T) {
	t.Parallel()
	c := newClock()
	store, p := vip.NewMemStore(), pool(t, "p", "10.0.0.1")
	a := allocator(t, store, c, vip.Config{History: 4}, p)
	start := c.Now()
	first := allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1")})
	for i := range 2 {
		c.Add(time.Minute)
		_, err := a.Bind(t.Context(), first.ID,
			[]vip.Instance{{ID: fmt.Sprint("c", i), Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
		require.NoError(t, err)
	}
	c.Add(time.Minute)
	release(t, a, first)
	c.Add(10 * time.Minute)
	second := allocate(t, a, vip.Request{Owner: owner("T2", "web", "v2"), TTL: vip.Forever})

	a = allocator(t, store, c, vip.Config{History: 4}, p)
	for _, q := range []struct {
		minute         int
		task, instance string
	}{{-1, "", ""}, {0, "T1", ""}, {1, "T1", "c0"}, {2, "T1", "c1"}, {3, "", ""}, {9, "", ""},
		{13, "T2", ""}, {100, "T2", ""}} {
		l, err := a.At(t.Context(), addr("10.0.0.1"), start.Add(time.Duration(q.minute)*time.Minute+
			time.Second))
		if q.task == "" {
			require.ErrorIs(t, err, vip.ErrNotFound, "minute %d", q.minute)
			continue
		}
		require.NoError(t, err, "minute %d", q.minute)
		require.Equal(t, q.task, l.Owner.Task, "minute %d", q.minute)
		if q.instance == "" {
			require.Empty(t, l.Binding.Instances)
		} else {
			require.Equal(t, q.instance, l.Binding.Instances[0].ID)
		}
	}
	for range 9 {
		release(t, a, second)
		c.Add(10 * time.Minute)
		second = allocate(t, a, vip.Request{Owner: owner("T2", "web", "v2"), TTL: vip.Forever})
	}
	past, err := a.History(t.Context(), addr("10.0.0.1"))
	require.NoError(t, err)
	require.Len(t, past, 5, "four records and the live lease")
	require.Equal(t, second, past[4])
	_, err = a.History(t.Context(), addr("10.9.9.9"))
	require.ErrorIs(t, err, vip.ErrNotFound)
}

// A binding that was replaced at the very moment of the release is not in the way of the one before
// it.
func TestHistoryCoarseClock(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{History: 2}, pool(t, "p", "10.0.0.1"))
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	for i := range 3 {
		c.Add(time.Minute)
		_, err := a.Bind(t.Context(), l.ID,
			[]vip.Instance{{ID: fmt.Sprint("c", i), Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
		require.NoError(t, err)
	}
	release(t, a, l)
	had, err := a.At(t.Context(), l.Addr, c.Now().Add(-time.Second))
	require.NoError(t, err)
	require.Len(t, had.Binding.Instances, 1)
	require.Equal(t, "c1", had.Binding.Instances[0].ID)
}
