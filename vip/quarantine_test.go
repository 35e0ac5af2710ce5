package vip_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func TestQuarantine(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := pool(t, "p", "10.0.0.0/28")
	p.MaxQuarantined = 0.2 // of 16: 3
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p)
	held := allocate(t, a, vip.Request{Owner: owner("T1")})
	cooling := allocate(t, a, vip.Request{Owner: owner("T2")})
	release(t, a, cooling)

	got, err := a.Quarantine(t.Context(), held.Addr, "answers ARP for another", 0)
	require.NoError(t, err)
	require.Equal(t, vip.Quarantined, got.State)
	_, err = a.Renew(t.Context(), held.ID, 0)
	require.ErrorIs(t, err, vip.ErrFenced)
	_, err = a.Quarantine(t.Context(), cooling.Addr, "flaps", time.Hour)
	require.NoError(t, err)
	_, err = a.Quarantine(t.Context(), addr("10.0.0.9"), "never used", time.Hour)
	require.NoError(t, err)
	_, err = a.Quarantine(t.Context(), addr("10.0.0.10"), "one too many", time.Hour)
	require.ErrorIs(t, err, vip.ErrQuarantineFull)
	_, err = a.Quarantine(t.Context(), addr("10.0.0.9"), "again, longer", 2*time.Hour)
	require.NoError(t, err, "those that are in it may change")
	_, err = a.Quarantine(t.Context(), addr("10.0.0.0"), "", 0)
	require.ErrorIs(t, err, vip.ErrTaken)
	_, err = a.Quarantine(t.Context(), addr("10.9.0.0"), "", 0)
	require.ErrorIs(t, err, vip.ErrNotFound)
	require.Equal(t, uint64(3), conserved(t, a).Quarantined)

	c.Add(time.Hour)
	require.Equal(t, uint64(2), conserved(t, a).Quarantined)
	got, err = a.Restore(t.Context(), held.Addr, "replaced")
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, got.State)
	got, err = a.Restore(t.Context(), held.Addr, "replaced")
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, got.State)
	c.Add(time.Hour)
	require.Equal(t, uint64(14), conserved(t, a).Free)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("T3"), Addr: held.Addr})
	require.NoError(t, err)
}

// A quarantine is no way around the cool-down, nor around the proof that nothing uses the address
// any more.
func TestQuarantineKeepsCoolDown(t *testing.T) {
	t.Parallel()
	drained := false
	for _, cfg := range []vip.Config{{}, {DrainLimit: time.Minute, Drained: func(context.Context,
		vip.Lease) (bool, error) {
		return drained, nil
	}}} {
		c := newClock()
		a := allocator(t, vip.NewMemStore(), c, cfg, pool(t, "p", "10.0.0.1"))
		quarantine := func(rest time.Duration) time.Duration {
			l, err := a.Quarantine(t.Context(), addr("10.0.0.1"), "flaps", rest)
			require.NoError(t, err)
			return l.CoolUntil.Sub(c.Now())
		}
		require.Equal(t, time.Second, quarantine(time.Second), "it was never used")
		c.Add(time.Second)
		l := allocate(t, a, vip.Request{Owner: owner("T1")})
		require.Equal(t, vip.DefaultCoolDown+cfg.DrainLimit, quarantine(time.Second))
		require.Equal(t, vip.DefaultCoolDown+cfg.DrainLimit, quarantine(time.Second), "asked again")
		require.Equal(t, time.Hour, quarantine(time.Hour))

		from := a.Revision()
		restored, err := a.Restore(t.Context(), l.Addr, "a mistake")
		require.NoError(t, err)
		events, err := a.Watch(t.Context(), from)
		require.NoError(t, err)
		require.Equal(t, vip.Restored, events[0].Kind)
		if cfg.Drained != nil {
			require.Equal(t, vip.Draining, restored.State)
			drained = true
			require.NoError(t, a.Sweep(t.Context()))
			restored, err = a.Get(t.Context(), l.ID)
			require.NoError(t, err)
		}
		require.Equal(t, vip.Cooling, restored.State)
		require.LessOrEqual(t, quarantine(time.Second), vip.DefaultCoolDown, "it has drained")
		c.Add(vip.DefaultCoolDown)
		require.Equal(t, time.Second, quarantine(time.Second), "it has rested")
	}
}
