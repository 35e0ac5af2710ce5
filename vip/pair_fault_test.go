package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// Whichever call of the store goes wrong while one lease of a pair is changed, the two stay alike,
// for the allocator that made the call and for its successor.
func TestPairChangesWhenTheStoreFails(t *testing.T) {
	t.Parallel()
	bind := []vip.Instance{{ID: "c1", Addr: netip.MustParseAddrPort("192.0.2.1:80")}}
	for name, change := range map[string]func(context.Context, *vip.Allocator, vip.Lease) error{
		"release": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Release(ctx, l.ID, "done")
			return err
		},
		"renew": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Renew(ctx, l.ID, 2*time.Hour)
			return err
		},
		"bind": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Bind(ctx, l.ID, bind)
			return err
		},
		"quarantine": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Quarantine(ctx, l.Addr, "answers", time.Hour)
			return err
		},
		"release unchanged": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			s, err := a.Snapshot(ctx)
			if err == nil {
				_, err = a.ReleaseUnchanged(ctx, s, l.Addr, "leaked")
			}
			return err
		},
	} {
		for family := range 2 {
			for _, shared := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/shared_%t", name, family, shared), func(t *testing.T) {
					t.Parallel()
					for _, f := range faults {
						for at, went := 1, true; went; at++ {
							went = pairFault(t, &groupTest{shared: shared, fault: f, at: at},
								family, change)
						}
					}
				})
			}
		}
	}
}

// pairFault makes one change, and reports whether the store went wrong.
func pairFault(t *testing.T, g *groupTest, family int,
	change func(context.Context, *vip.Allocator, vip.Lease) error) bool {
	t.Helper()
	what := fmt.Sprintf("%s at call %d", g.fault.name, g.at)
	a := g.open(t, g.start())
	pair, err := dualStack(t.Context(), a, "T1")
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	g.store.cancel, g.store.at = cancel, g.at
	err = change(ctx, a, pair[family])
	g.store.at = 0
	alike := func() {
		all := g.live(t, "T1")
		require.Contains(t, []int{0, 2}, len(all), what)
		if len(all) == 2 {
			require.Equal(t, all[0].Expires, all[1].Expires, what)
			require.Equal(t, all[0].Binding, all[1].Binding, what)
		}
	}
	alike()
	if !g.fault.last {
		g.store.arrive()
		alike()
	}
	if err != nil {
		again := change(t.Context(), a, pair[family])
		if errors.Is(again, vip.ErrConflict) { // settling the first has changed the record
			again = change(t.Context(), a, pair[family])
		}
		if again != nil && !errors.Is(again, vip.ErrNotFound) { // the first was made
			require.ErrorIs(t, again, vip.ErrFenced, what)
		}
		alike()
	}
	g.store.arrive()
	alike()
	conserved(t, a)
	return g.store.went
}
