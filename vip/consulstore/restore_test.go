package consulstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
	"github.com/sluice-deploy/sluice/vip/internal/linear"
)

// A snapshot is restored under two allocators: what was promised after it is fenced, what was promised before it holds.
func TestRestoredSnapshot(t *testing.T) {
	t.Parallel()
	server := testbed.Consul(t)
	if server.Process == nil {
		t.Skip("somebody else's server is not put back")
	}
	load := linear.Load{Size: 2}
	store := open(t, server, consulstore.Config{})
	a, b := shared(t, store, load), shared(t, store, load)
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
		_, err := which.Release(t.Context(), lost.ID, lost.Generation, "")
		require.ErrorIs(t, err, vip.ErrFenced)
		_, err = which.Renew(t.Context(), kept.ID, kept.Generation, time.Hour)
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
