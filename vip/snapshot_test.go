package vip_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func TestSnapshot(t *testing.T) {
	t.Parallel()
	c, store := newClock(), vip.Shared(vip.NewMemStore())
	cfg := vip.Config{Refresh: time.Hour}
	p := pool(t, "p", "10.0.0.1-10.0.0.4")
	a, other := allocator(t, store, c, cfg, p), allocator(t, store, c, cfg, p)
	first := allocate(t, a, vip.Request{Owner: owner("T1")})
	second := allocate(t, other, vip.Request{Owner: owner("T2")})

	before, err := a.Snapshot(t.Context())
	require.NoError(t, err)
	require.Equal(t, []vip.Lease{first, second}, before.Leases, "with the other allocator's")
	require.Equal(t, c.Now(), before.At)
	require.Zero(t, before.Revision(addr("10.0.0.4")))
	require.False(t, before.OutOfPool(first.Addr))

	allocate(t, a, vip.Request{Owner: owner("T1")})
	_, err = other.Renew(t.Context(), second.ID, 0)
	require.NoError(t, err)
	after, err := a.Snapshot(t.Context())
	require.NoError(t, err)
	require.Equal(t, before.Revision(first.Addr), after.Revision(first.Addr))
	require.NotEqual(t, before.Asked(first.Addr), after.Asked(first.Addr))
	require.Greater(t, after.Revision(second.Addr), before.Revision(second.Addr))
}

func TestReleaseUnchanged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		between func(t *testing.T, a, other *vip.Allocator, l vip.Lease)
		want    error
	}{
		"nothing happened": {func(*testing.T, *vip.Allocator, *vip.Allocator, vip.Lease) {}, nil},
		"the owner asked": {func(t *testing.T, a, _ *vip.Allocator, l vip.Lease) {
			allocate(t, a, vip.Request{Owner: l.Owner})
		}, vip.ErrConflict},
		"it was renewed elsewhere": {func(t *testing.T, _, other *vip.Allocator, l vip.Lease) {
			_, err := other.Renew(t.Context(), l.ID, 0)
			require.NoError(t, err)
		}, vip.ErrConflict},
		"it ended": {func(t *testing.T, a, _ *vip.Allocator, l vip.Lease) {
			release(t, a, l)
		}, vip.ErrConflict},
		"it has another owner": {func(t *testing.T, a, _ *vip.Allocator, l vip.Lease) {
			release(t, a, l)
			allocate(t, a, vip.Request{Owner: owner("T2"), Addr: l.Addr})
		}, vip.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, store, cfg := newClock(), vip.Shared(vip.NewMemStore()),
				vip.Config{Refresh: time.Hour}
			p := pool(t, "p", "10.0.0.1-10.0.0.4")
			p.CoolDown = -1
			a, other := allocator(t, store, c, cfg, p), allocator(t, store, c, cfg, p)
			l := allocate(t, a, vip.Request{Owner: owner("T1")})
			seen, err := a.Snapshot(t.Context())
			require.NoError(t, err)
			test.between(t, a, other, l)
			ended, err := a.ReleaseUnchanged(t.Context(), seen, l.Addr, "gone")
			require.ErrorIs(t, err, test.want)
			if test.want == nil {
				require.Equal(t, []any{l.ID, "gone"}, []any{ended.ID, ended.Reason})
			}
			_, err = a.ReleaseUnchanged(t.Context(), seen, addr("10.0.0.4"), "")
			require.ErrorIs(t, err, vip.ErrNotFound)
		})
	}
}

// TestReleaseUnchangedWithDoneContext wants no effect: the snapshot still holds after it.
func TestReleaseUnchangedWithDoneContext(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{},
		pool(t, "p", "10.0.0.1-10.0.0.4"))
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	seen, err := a.Snapshot(t.Context())
	require.NoError(t, err)
	why := errors.New("the program ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err = a.ReleaseUnchanged(ctx, seen, l.Addr, "gone")
	require.ErrorIs(t, err, why)
	require.NotErrorIs(t, err, vip.ErrUncertain)
	_, err = a.ReleaseUnchanged(t.Context(), seen, l.Addr, "gone")
	require.NoError(t, err)
}

func TestHolder(t *testing.T) {
	t.Parallel()
	c, store, cfg := newClock(), vip.Shared(vip.NewMemStore()), vip.Config{Refresh: time.Hour}
	p := pool(t, "p", "10.0.0.1-10.0.0.4")
	a, other := allocator(t, store, c, cfg, p), allocator(t, store, c, cfg, p)
	l := allocate(t, other, vip.Request{Owner: owner("T1")})
	held, err := a.Holder(t.Context(), addr("::ffff:"+l.Addr.String()))
	require.NoError(t, err)
	require.Equal(t, l, held)
	release(t, other, l)
	_, err = a.Holder(t.Context(), l.Addr)
	require.ErrorIs(t, err, vip.ErrNotFound)
	_, err = a.Holder(t.Context(), addr("10.9.9.9"))
	require.ErrorIs(t, err, vip.ErrNotFound)
}
