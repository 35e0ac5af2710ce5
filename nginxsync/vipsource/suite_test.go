package vipsource_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/sourcetest"
	"github.com/sluice-deploy/sluice/nginxsync/vipsource"
	"github.com/sluice-deploy/sluice/vip"
)

// only shows the overlay of the only VIP as the baseline, of which the suite speaks.
type only struct{ nginxsync.Source }

func (o only) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	snapshot, revision, err := o.Source.Watch(ctx, after)
	for _, clusters := range snapshot.Overlays {
		return nginxsync.Snapshot{Baseline: clusters}, revision, err
	}
	return nginxsync.Snapshot{}, revision, err
}

func TestSource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Harness {
		a := allocator(t)
		l := allocate(t, a, "task", "a")
		s, err := vipsource.New(vipsource.Config{Leases: a})
		require.NoError(t, err)
		return &sourcetest.Harness{Source: only{s}, Set: func(next nginxsync.Snapshot) {
			var bound []vip.Instance
			for _, in := range next.Baseline["a"] {
				bound = append(bound, vip.Instance{ID: in.ID, Addr: in.Addr, Cluster: "a",
					Version: in.Version})
			}
			_, err := a.Bind(t.Context(), l.ID, bound)
			require.NoError(t, err)
		}}
	})
}
