package nginxsync_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
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

// Of scopes and tasks the last source counts; branches join cluster by cluster, and the pools are
// those of all.
func TestMergePrecedence(t *testing.T) {
	t.Parallel()
	vip1, vip2 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	type clusters = map[string][]nginxsync.Instance
	pool1, pool2 := nginxsync.Range{First: vip1, Last: vip1}, nginxsync.Range{First: vip2,
		Last: vip2}
	a := nginxsync.NewStaticSource(nginxsync.Snapshot{
		Branches: map[string]map[string][]nginxsync.Instance{"x": {"a": in("1")},
			"y": {"a": in("2")}},
		Scopes: map[netip.Addr]nginxsync.Scope{vip1: {Branches: []string{"x"}},
			vip2: {Branches: []string{"y"}}},
		Pools: []nginxsync.Range{pool1}, Tasks: map[string]netip.Addr{"t": vip1, "u": vip1}})
	b := nginxsync.NewStaticSource(nginxsync.Snapshot{
		Branches: map[string]map[string][]nginxsync.Instance{"x": {"a": in("3"), "b": {}}},
		Scopes:   map[netip.Addr]nginxsync.Scope{vip1: {}},
		Pools:    []nginxsync.Range{pool2}, Tasks: map[string]netip.Addr{"t": vip2}})
	want := nginxsync.Snapshot{Baseline: clusters{},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{},
		Branches: map[string]map[string][]nginxsync.Instance{
			"x": {"a": append(in("1"), in("3")...), "b": {}}, "y": {"a": in("2")}},
		Scopes: map[netip.Addr]nginxsync.Scope{vip1: {}, vip2: {Branches: []string{"y"}}},
		Pools:  []nginxsync.Range{pool1, pool2},
		Tasks:  map[string]netip.Addr{"t": vip2, "u": vip1}}
	source := nginxsync.Merge(a, b)
	got, revision, err := source.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.True(t, want.Equal(got), "%+v", got)

	// A row that one source takes back comes from the other again.
	b.Set(nginxsync.Snapshot{})
	got, _, err = source.Watch(t.Context(), revision)
	require.NoError(t, err)
	require.Equal(t, []string{"x"}, got.Scopes[vip1].Branches)
	require.Equal(t, vip1, got.Tasks["t"])
	require.Equal(t, []nginxsync.Range{pool1}, got.Pools)
	require.Equal(t, in("1"), got.Branches["x"]["a"])
}

// wedged is a source that supplies what it is given until it is wedged: then it fails, or is
// silent.
type wedged struct {
	*nginxsync.StaticSource
	fails, silent atomic.Bool
}

func (w *wedged) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	switch {
	case w.fails.Load():
		return nginxsync.Snapshot{}, 0, errors.New("away")
	case w.silent.Load():
		<-ctx.Done()
		return nginxsync.Snapshot{}, 0, context.Cause(ctx)
	}
	return w.StaticSource.Watch(ctx, after)
}

// Whichever part of the sources goes silent or fails, for however many changes of the others, each
// snapshot has its last routes, and its new ones as soon as it is back.
func TestMergeWipesNothing(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	parts := make([]*wedged, 3)
	sources := make([]nginxsync.Source, 3)
	last := make([]string, 3) // what each has said
	said := func(i, n int) nginxsync.Snapshot {
		return nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
			fmt.Sprint("c", i): in(fmt.Sprint(n))}}
	}
	for i := range parts {
		parts[i] = &wedged{StaticSource: nginxsync.NewStaticSource(said(i, 0))}
		sources[i], last[i] = parts[i], "0"
	}
	source := nginxsync.Merge(sources...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	revision := uint64(0)
	until := func() {
		t.Helper()
		for first := true; ; first = false {
			snapshot, next, err := source.Watch(ctx, revision)
			if first && err != nil && ctx.Err() == nil {
				continue // told once
			}
			if err != nil {
				require.NoError(t, ctx.Err())
				continue
			}
			revision = next
			all := true
			for i := range parts {
				list := snapshot.Baseline[fmt.Sprint("c", i)]
				require.Len(t, list, 1, "source %d of %d", i, next)
				all = all && list[0].ID == last[i]
			}
			if all {
				return
			}
		}
	}
	until()
	for n := 1; n < 40; n++ {
		i := r.IntN(3)
		parts[i].fails.Store(r.IntN(2) == 0)
		parts[i].silent.Store(r.IntN(2) == 0)
		other := (i + 1) % 3
		parts[other].fails.Store(false)
		parts[other].silent.Store(false)
		parts[other].Set(said(other, n))
		last[other] = fmt.Sprint(n)
		until()
	}
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
