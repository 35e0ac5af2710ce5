package consulstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
	"github.com/sluice-deploy/sluice/vip/internal/linear"
)

func shared(t *testing.T, store vip.Store, load linear.Load) *vip.Allocator {
	t.Helper()
	a, err := vip.New(t.Context(), store, []vip.Pool{load.Pool()}, vip.Config{Shared: true, Refresh: 100 * time.Millisecond})
	require.NoError(t, err)
	return a
}

// The callers of four allocators see a history that one caller after the other could have seen.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	server := testbed.Consul(t)
	var total linear.Counts
	for seed := range uint64(5) {
		load := linear.Load{Seed: seed, Callers: 8, Calls: 30, Tasks: 7, Size: 4}
		store := open(t, server, consulstore.Config{})
		var all []*vip.Allocator
		for range 4 {
			all = append(all, shared(t, store, load))
		}
		total.Add(linear.Check(t, all, load))
	}
	t.Logf("%+v", total)
	require.NotZero(t, total.Allocated)
	require.Zero(t, total.Unknown)
}
