package vipsource_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/vipsource"
	"github.com/sluice-deploy/sluice/vip"
)

func snapshotOf(t *testing.T, cfg vipsource.Config) nginxsync.Snapshot {
	t.Helper()
	s, err := vipsource.New(cfg)
	require.NoError(t, err)
	snapshot, _, err := s.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, snapshot.Validate())
	return snapshot
}

// The address of a lease that has ended names the task and what it showed last.
func TestEndedLease(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	l := allocate(t, a, "T-1", "web", "api")
	l, err := a.Bind(t.Context(), l.ID, []vip.Instance{{ID: "i", Cluster: "web",
		Version: "v1.2", Addr: netip.MustParseAddrPort("127.0.0.1:80")}})
	require.NoError(t, err)
	source, err := vipsource.New(vipsource.Config{Leases: a})
	require.NoError(t, err)
	before, revision, err := source.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, 200, before.Resolve(l.Addr, "web").Status)
	l, err = a.Release(t.Context(), l.ID, "done")
	require.NoError(t, err)
	after, _, err := source.Watch(t.Context(), revision)
	require.NoError(t, err)
	want := nginxsync.Ended{Task: "T-1", At: l.Ended,
		Versions: map[string]string{"web": "v1.2", "api": "v1"}}
	require.Equal(t, map[netip.Addr]nginxsync.Scope{l.Addr: {Ended: want}}, after.Scopes)
	require.Equal(t, 410, after.Resolve(l.Addr, "web").Status)
	require.Equal(t, 410, after.Resolve(l.Addr.Next(), "web").Status, "never leased")

	open := snapshotOf(t, vipsource.Config{Leases: a, KeepBaseline: true})
	require.Empty(t, open.Scopes)
	require.Empty(t, open.Pools)
}

// A lease that overrides nothing is answered by its branches and the baseline.
func TestLeaseWithoutOverrides(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	l := allocate(t, a, "T-1")
	other := allocate(t, a, "T-2", "web")
	branches := func(l vip.Lease) []string { return []string{"branch-of-" + l.Owner.Task} }
	got := snapshotOf(t, vipsource.Config{Leases: a})
	require.Equal(t, map[netip.Addr]nginxsync.Scope{l.Addr: {}}, got.Scopes)
	got = snapshotOf(t, vipsource.Config{Leases: a, Branches: branches})
	require.Equal(t, map[netip.Addr]nginxsync.Scope{
		l.Addr:     {Branches: []string{"branch-of-T-1"}},
		other.Addr: {Branches: []string{"branch-of-T-2"}},
	}, got.Scopes)
}

// Of many leases that have ended the last are known.
func TestKeepEnded(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	var last []netip.Addr
	for n := range 10 {
		l := allocate(t, a, fmt.Sprint("t", n), "web")
		_, err := a.Release(t.Context(), l.ID, "done")
		require.NoError(t, err)
		last = append(last, l.Addr)
	}
	got := snapshotOf(t, vipsource.Config{Leases: a, KeepEnded: 3})
	require.Len(t, got.Scopes, 3)
	for i, addr := range last {
		require.Equal(t, 410, got.Resolve(addr, "web").Status)
		require.Equal(t, i >= 7, got.Scopes[addr].Ended.At.After(time.Time{}), i)
	}
}

// The pools are all addresses that may be leased.
func TestPools(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	for _, tc := range []struct{ ranges, want string }{
		{"10.0.0.0/30", "[{10.0.0.1 10.0.0.2}]"},
		{"10.0.0.0/31", "[{10.0.0.0 10.0.0.1}]"},
		{"2001:db8::/126", "[{2001:db8::1 2001:db8::3}]"},
	} {
		pool, err := vip.ParsePool("p", tc.ranges)
		require.NoError(t, err)
		require.Equal(t, tc.want, fmt.Sprint(vipsource.Pools([]vip.Pool{pool})), tc.ranges)
	}
	pool, err := vip.ParsePool("p", "10.0.0.4-10.0.0.8")
	require.NoError(t, err)
	for _, reserved := range []string{"10.0.0.5", "10.0.0.8"} {
		pool.Reserved[addr(reserved)] = "gateway"
	}
	require.Equal(t, "[{10.0.0.4 10.0.0.4} {10.0.0.6 10.0.0.7}]",
		fmt.Sprint(vipsource.Pools([]vip.Pool{pool})))
	for a := addr("10.0.0.4"); a != addr("10.0.0.9"); a = a.Next() {
		pool.Reserved[a] = "all"
	}
	require.Empty(t, vipsource.Pools([]vip.Pool{pool}))
}

// A task is known by the first of its VIPs for as long as its lease is live.
func TestTasks(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	first, second := allocate(t, a, "T-1", "web"), allocate(t, a, "T-2")
	require.Nil(t, snapshotOf(t, vipsource.Config{Leases: a}).Tasks)
	s, err := vipsource.New(vipsource.Config{Leases: a, Tasks: true, KeepBaseline: true})
	require.NoError(t, err)
	got, revision, err := s.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, map[string]netip.Addr{"T-1": first.Addr, "T-2": second.Addr}, got.Tasks)
	third := allocate(t, a, "T-3")
	got, revision, err = s.Watch(t.Context(), revision)
	require.NoError(t, err)
	require.Equal(t, third.Addr, got.Tasks["T-3"])
	_, err = a.Release(t.Context(), second.ID, "done") // without an overlay and without a scope
	require.NoError(t, err)
	got, _, err = s.Watch(t.Context(), revision)
	require.NoError(t, err)
	require.Equal(t, map[string]netip.Addr{"T-1": first.Addr, "T-3": third.Addr}, got.Tasks)
}
