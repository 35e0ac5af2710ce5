package nginxsync_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/sourcetest"
)

func TestMergedSource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(*testing.T) *sourcetest.Harness {
		s := nginxsync.NewStaticSource(nginxsync.Snapshot{})
		return &sourcetest.Harness{
			Source: nginxsync.Merge(nginxsync.NewStaticSource(nginxsync.Snapshot{}), s),
			Set:    func(next nginxsync.Snapshot) { s.Set(next) },
		}
	})
}

func in(id string) []nginxsync.Instance {
	return []nginxsync.Instance{{ID: id, Addr: netip.MustParseAddrPort("127.0.0.1:80")}}
}

// Baseline and overlays of several sources stand side by side, and instances of one cluster serve
// together.
func TestMergeJoins(t *testing.T) {
	t.Parallel()
	vip1, vip2 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	type clusters = map[string][]nginxsync.Instance
	a := nginxsync.Snapshot{Baseline: clusters{"a": in("1"), "b": in("2")},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vip1: {"a": in("3")}},
		Planned:  []nginxsync.Intent{{Cluster: "x"}}}
	b := nginxsync.Snapshot{Baseline: clusters{"a": in("4"), "c": {}},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vip1: {"b": {}},
			vip2: {"a": in("5")}},
		Planned: []nginxsync.Intent{{Cluster: "y"}}}
	source := nginxsync.Merge(nginxsync.NewStaticSource(a), nginxsync.NewStaticSource(b))
	got, _, err := source.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, nginxsync.Snapshot{
		Baseline: clusters{"a": append(in("1"), in("4")...), "b": in("2"), "c": {}},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
			vip1: {"a": in("3"), "b": {}}, vip2: {"a": in("5")}},
		Planned: []nginxsync.Intent{{Cluster: "x"}, {Cluster: "y"}}}, got)
}

// silent is a source that says nothing, or fails, until it is let speak.
type silent struct {
	err   error
	speak chan struct{}
}

func (s *silent) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	if s.err != nil && after == 0 {
		select {
		case <-s.speak:
			return nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"s": in("1")}}, 1,
				nil
		default:
			return nginxsync.Snapshot{}, 0, s.err
		}
	}
	if after == 0 {
		select {
		case <-s.speak:
			return nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"s": in("1")}}, 1,
				nil
		case <-ctx.Done():
			return nginxsync.Snapshot{}, 0, context.Cause(ctx)
		}
	}
	if s.err != nil {
		return nginxsync.Snapshot{}, 0, s.err
	}
	<-ctx.Done()
	return nginxsync.Snapshot{}, 0, context.Cause(ctx)
}

// There is no snapshot while a source has said nothing, and a source that fails later stops no
// other.
func TestMergeOfASilentSource(t *testing.T) {
	t.Parallel()
	broken := errors.New("the registry is away")
	for _, err := range []error{nil, broken} {
		s := &silent{err: err, speak: make(chan struct{})}
		other := nginxsync.NewStaticSource(nginxsync.Snapshot{})
		source := nginxsync.Merge(s, other)
		if err == nil {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_, _, got := source.Watch(ctx, 0)
			cancel()
			require.ErrorIs(t, got, context.DeadlineExceeded)
		} else {
			_, _, got := source.Watch(t.Context(), 0)
			require.ErrorIs(t, got, broken)
		}

		close(s.speak)
		var revision uint64
		next := func(want int) { // clusters
			for {
				snapshot, now, err := source.Watch(t.Context(), revision)
				if errors.Is(err, broken) {
					continue
				}
				require.NoError(t, err)
				revision = now
				if len(snapshot.Baseline) == want {
					require.Contains(t, snapshot.Baseline, "s")
					return
				}
			}
		}
		next(1)
		other.Set(nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"o": in("1")}})
		next(2)
	}
}
