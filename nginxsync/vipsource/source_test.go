package vipsource_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/vipsource"
	"github.com/sluice-deploy/sluice/vip"
)

func allocator(t *testing.T) *vip.Allocator {
	t.Helper()
	pool, err := vip.ParsePool("p", "10.0.0.0/24")
	require.NoError(t, err)
	pool.CoolDown = time.Nanosecond
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{pool}})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return a
}

func allocate(t *testing.T, a *vip.Allocator, task string, clusters ...string) vip.Lease {
	t.Helper()
	overrides := map[string]string{}
	for _, c := range clusters {
		overrides[c] = "v1"
	}
	l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task,
		Overrides: overrides}})
	require.NoError(t, err)
	return l
}

// want returns the snapshot that the leases stand for, by a list.
func want(a *vip.Allocator) nginxsync.Snapshot {
	s := nginxsync.Snapshot{Overlays: map[netip.Addr]map[string][]nginxsync.Instance{},
		Scopes: map[netip.Addr]nginxsync.Scope{}, Pools: []nginxsync.Range{{
			First: netip.MustParseAddr("10.0.0.1"), Last: netip.MustParseAddr("10.0.0.254")}}}
	for _, l := range a.List(vip.Query{States: []vip.State{vip.Leased, vip.Draining, vip.Cooling,
		vip.Free}}) {
		if l.State != vip.Leased && l.State != vip.Draining {
			s.Scopes[l.Addr] = nginxsync.Scope{Ended: vipsource.Ended(l)}
			continue
		}
		if s.Overlays[l.Addr] = vipsource.Overlay(l); len(s.Overlays[l.Addr]) == 0 {
			s.Scopes[l.Addr] = nginxsync.Scope{}
		}
	}
	return s
}

// follow watches until the source supplies the snapshot that the leases stand for.
func follow(t *testing.T, s *vipsource.Source, a *vip.Allocator, after uint64) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		snapshot, revision, err := s.Watch(ctx, after)
		require.NoError(t, err)
		require.Greater(t, revision, after)
		if snapshot.Equal(want(a)) {
			return revision
		}
		after = revision
	}
}

// After any events of leases the source has the snapshot of a list of them.
func TestOverlaysFollowLeases(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	s, err := vipsource.New(vipsource.Config{Leases: a})
	require.NoError(t, err)
	revision := follow(t, s, a, 0)
	r := rand.New(rand.NewPCG(1, 2))
	leases := map[string]vip.Lease{}
	for n := range 300 {
		task := fmt.Sprint("t", r.IntN(20))
		l, ok := leases[task]
		changes := true
		switch {
		case !ok:
			leases[task] = allocate(t, a, task, "web", "api")
		case r.IntN(3) == 0:
			_, err := a.Release(t.Context(), l.ID, "done")
			require.NoError(t, err)
			delete(leases, task)
		case r.IntN(3) == 0:
			_, err := a.Renew(t.Context(), l.ID, time.Hour)
			require.NoError(t, err)
			changes = false // no overlay changes: the source stays where it is
		default:
			_, err := a.Bind(t.Context(), l.ID, []vip.Instance{{
				ID: fmt.Sprint("i", n), Cluster: "web", Version: "v1",
				Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(n+1))}})
			require.NoError(t, err)
		}
		if changes {
			revision = follow(t, s, a, revision)
		}
	}
}

// A renewal alone is no change.
func TestRenewalShowsNothing(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	s, err := vipsource.New(vipsource.Config{Leases: a})
	require.NoError(t, err)
	l := allocate(t, a, "t", "web")
	revision := follow(t, s, a, 0)
	_, err = a.Renew(t.Context(), l.ID, time.Hour)
	require.NoError(t, err)
	allocate(t, a, "u", "web")
	require.Equal(t, revision+1, follow(t, s, a, revision))
}

// compacted is an allocator whose events are gone at every second look.
type compacted struct {
	vipsource.Leases
	mu    sync.Mutex
	looks int
}

func (c *compacted) Watch(ctx context.Context, after uint64) ([]vip.Event, error) {
	c.mu.Lock()
	c.looks++
	gone := c.looks%2 == 1
	c.mu.Unlock()
	if gone {
		return nil, vip.ErrCompacted
	}
	return c.Leases.Watch(ctx, after)
}

// A source that has missed events reads the leases again.
func TestMissedEvents(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	s, err := vipsource.New(vipsource.Config{Leases: &compacted{Leases: a},
		Pools: a.WatchPools})
	require.NoError(t, err)
	revision := follow(t, s, a, 0)
	for n := range 10 {
		allocate(t, a, fmt.Sprint("t", n), "web")
		revision = follow(t, s, a, revision)
	}
}

// A change of the pools is a snapshot by itself, without an event of a lease.
func TestPoolsWakeTheWatch(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	s, err := vipsource.New(vipsource.Config{Leases: a})
	require.NoError(t, err)
	l := allocate(t, a, "t", "web")
	revision := follow(t, s, a, 0)
	grown, err := vip.ParsePool("p", "10.0.0.0/23")
	require.NoError(t, err)
	grown.CoolDown = time.Nanosecond
	time.AfterFunc(10*time.Millisecond, func() {
		if err := a.SetPools(t.Context(), []vip.Pool{grown}); err != nil {
			panic(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, next, err := s.Watch(ctx, revision)
	require.NoError(t, err)
	require.Equal(t, revision+1, next)
	require.Equal(t, []nginxsync.Range{{First: netip.MustParseAddr("10.0.0.1"),
		Last: netip.MustParseAddr("10.0.1.254")}}, got.Pools)
	require.Contains(t, got.Overlays, l.Addr)

	// Rules that change no address change no snapshot, and the next lease does.
	grown.Disabled = true
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{grown}))
	_, err = a.Release(t.Context(), l.ID, "done")
	require.NoError(t, err)
	got, next, err = s.Watch(ctx, next)
	require.NoError(t, err)
	require.Equal(t, revision+2, next)
	require.NotContains(t, got.Overlays, l.Addr)
}

// Pools that cannot be read are an error of the watch, and the next one reads them again.
func TestPoolsFail(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	broken := errors.New("away")
	var fails atomic.Bool
	fails.Store(true)
	s, err := vipsource.New(vipsource.Config{Leases: a,
		Pools: func(ctx context.Context, after uint64) ([]vip.Pool, uint64, error) {
			if fails.Load() {
				return nil, 0, broken
			}
			return a.WatchPools(ctx, after)
		}})
	require.NoError(t, err)
	_, _, err = s.Watch(t.Context(), 0)
	require.ErrorIs(t, err, broken)
	fails.Store(false)
	revision := follow(t, s, a, 0)
	fails.Store(true)
	_, _, err = s.Watch(t.Context(), revision)
	require.ErrorIs(t, err, broken)
}

func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	s, err := vipsource.New(vipsource.Config{Leases: a})
	require.NoError(t, err)
	revision := follow(t, s, a, 0)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	_, _, err = s.Watch(ctx, revision)
	require.ErrorIs(t, err, cause)
	_, err = vipsource.New(vipsource.Config{KeepEnded: -1})
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
	require.ErrorContains(t, err, "Config.Leases: is required")
	require.ErrorContains(t, err, "Config.KeepEnded: -1")
}

func Example() {
	pool, _ := vip.ParsePool("test", "10.0.0.0/28")
	leases, err := vip.Open(context.Background(), vip.Config{Store: vip.NewMemStore(),
		Pools: []vip.Pool{pool}})
	if err != nil {
		fmt.Println(err)
		return
	}
	overlays, err := vipsource.New(vipsource.Config{Leases: leases})
	if err != nil {
		fmt.Println(err)
		return
	}
	baseline := nginxsync.NewStaticSource(
		nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
			"web": {{ID: "stable-1", Addr: netip.MustParseAddrPort("10.1.0.1:80"),
				Version: "v1"}}}})
	source := nginxsync.Merge(baseline, overlays) // for nginxsync.Config.Source

	lease, err := leases.Allocate(context.Background(), vip.Request{Owner: vip.Owner{Task: "4711",
		Overrides: map[string]string{"web": "v2"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	snapshot, _, err := source.Watch(context.Background(), 0)
	fmt.Println(len(snapshot.Baseline["web"]), snapshot.Overlays[lease.Addr], err)
	// Output: 1 map[web:[]] <nil>
}
