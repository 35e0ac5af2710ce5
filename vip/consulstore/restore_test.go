//go:build linux

package consulstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
)

// shared returns an allocator of two addresses without cool-down, on a store that others use.
func shared(t *testing.T, store vip.Store) *vip.Allocator {
	t.Helper()
	p, err := vip.ParsePool("p", "10.0.0.1-10.0.0.2")
	require.NoError(t, err)
	p.CoolDown = -1
	cfg := vip.Config{Refresh: 100 * time.Millisecond}
	cfg.Store, cfg.Pools = store, []vip.Pool{p}
	a, err := vip.Open(t.Context(), cfg)
	require.NoError(t, err)
	return a
}

// A snapshot is restored under two allocators: the leases acknowledged after it are fenced, the
// leases acknowledged before it hold.
func TestRestoredSnapshot(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	if server.Process == nil {
		t.Skip("somebody else's server is not put back")
	}
	store := open(t, server, consulstore.Config{})
	a, b := shared(t, store), shared(t, store)
	ask := func(a *vip.Allocator, task string) vip.Lease {
		l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task}, Wait: true})
		require.NoError(t, err)
		return l
	}
	kept := ask(a, "kept")
	snapshot := server.Snapshot(t)
	lost := ask(a, "lost")
	server.Restore(t, snapshot)

	next := ask(b, "next")
	require.Equal(t, lost.Addr, next.Addr)
	for _, which := range []*vip.Allocator{a, b} {
		_, err := which.Release(t.Context(), lost.ID, "")
		require.ErrorIs(t, err, vip.ErrFenced)
		_, err = which.Renew(t.Context(), kept.ID, time.Hour)
		require.NoError(t, err)
	}
	testbed.Poll(t, "both allocators to see the same", func() error {
		for _, which := range []*vip.Allocator{a, b} {
			if err := which.Sweep(t.Context()); err != nil {
				return err
			}
		}
		if x, y := fmt.Sprint(a.List(vip.Query{})), fmt.Sprint(b.List(vip.Query{})); x != y {
			return fmt.Errorf("%s, and %s", x, y)
		}
		return nil
	})
}
