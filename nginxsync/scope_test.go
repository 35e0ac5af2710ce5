package nginxsync_test

import (
	"context"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	on := func(version string) []nginxsync.Instance {
		return []nginxsync.Instance{{ID: version, Version: version,
			Addr: netip.MustParseAddrPort("10.0.0.9:80")}}
	}
	ended := nginxsync.Ended{Task: "T-1", At: time.Unix(0, 0).Add(time.Hour),
		Versions: map[string]string{"web": "v2"}}
	s := nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"web": on("stable"), "api": on("stable"),
			"db": on("stable"), "mail": {}},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
			addr("10.58.0.1"): {"web": on("task"), "empty": {}},
			addr("10.58.0.2"): {"web": on("held")}},
		Branches: map[string]map[string][]nginxsync.Instance{
			"feature": {"web": on("feature"), "api": on("feature"), "db": {}},
			"next":    {"api": on("next"), "mail": on("next")}},
		Scopes: map[netip.Addr]nginxsync.Scope{
			addr("10.58.0.1"): {Branches: []string{"feature", "missing", "next"}},
			addr("10.58.0.2"): {Ended: ended},
			addr("10.58.0.3"): {Ended: ended},
			addr("10.58.0.4"): {}},
		Pools: []nginxsync.Range{{First: addr("10.58.0.1"), Last: addr("10.58.0.9")}},
		Tasks: map[string]netip.Addr{"T-1": addr("10.58.0.1"), "T-2": addr("::1:2")},
	}
	require.NoError(t, s.Validate())
	for _, tc := range []struct {
		vip, cluster string
		status       int
		from         string
	}{
		{"10.58.0.1", "web", 200, "vip 10.58.0.1"},
		{"10.58.0.1", "api", 200, "branch feature"},
		{"10.58.0.1", "mail", 200, "branch next"},
		{"10.58.0.1", "db", 503, "branch feature"},
		{"10.58.0.1", "empty", 503, "vip 10.58.0.1"},
		{"10.58.0.1", "none", 503, ""},
		{"10.58.0.2", "web", 200, "vip 10.58.0.2"},
		{"10.58.0.2", "api", 200, "baseline"},
		{"10.58.0.3", "web", 410, ""},
		{"::ffff:10.58.0.3", "", 410, ""},
		{"10.58.0.4", "web", 200, "baseline"},
		{"10.58.0.4", "", 200, ""},
		{"10.58.0.9", "web", 410, ""},
		{"10.58.0.10", "mail", 503, "baseline"},
		{"10.58.0.10", "web", 200, "baseline"},
	} {
		t.Run(tc.vip+"/"+tc.cluster, func(t *testing.T) {
			t.Parallel()
			got := s.Resolve(addr(tc.vip), tc.cluster)
			require.Equal(t, tc.status, got.Status)
			require.Equal(t, tc.from, got.From)
			require.NotEmpty(t, got.Why)
		})
	}
	require.Equal(t, []string{"task T-1 (web v2) had the address until 1970-01-01T01:00:00Z"},
		s.Resolve(addr("10.58.0.3"), "web").Why)

	text, err := nginxsync.NewRoutes(1, s).MarshalText()
	require.NoError(t, err)
	var read nginxsync.Routes
	require.NoError(t, read.UnmarshalText(text))
	require.Equal(t, nginxsync.NewRoutes(1, s), read)
}

// A record of a scope that is not valid harms only itself, and never shows the baseline in the place
// of what it names.
func TestScopesThatAreNotValid(t *testing.T) {
	t.Parallel()
	vip, other := netip.MustParseAddr("10.58.0.1"), netip.MustParseAddr("10.58.0.2")
	on := map[string][]nginxsync.Instance{"web": {{ID: "i",
		Addr: netip.MustParseAddrPort("10.0.0.9:80")}}}
	s := nginxsync.Snapshot{
		Baseline: on,
		Branches: map[string]map[string][]nginxsync.Instance{"a b": on, "good": on},
		Scopes: map[netip.Addr]nginxsync.Scope{
			vip: {Branches: []string{"a b"}},
			other: {Branches: []string{"good"}, Ended: nginxsync.Ended{Task: "a task",
				At: time.Unix(1, 0), Versions: map[string]string{"Web": "v1", "api": "v2"}}},
			netip.MustParseAddr("0.0.0.0"): {},
		},
		Pools: []nginxsync.Range{{First: other, Last: vip}, {First: vip, Last: other}},
		Tasks: map[string]netip.Addr{"a task": vip, "T": {}, "U": other},
	}
	usable, aside := s.Usable()
	require.NoError(t, usable.Validate())
	require.Equal(t, 503, usable.Resolve(vip, "web").Status)
	require.Equal(t, map[string]string{"api": "v2"}, usable.Scopes[other].Ended.Versions)
	require.Empty(t, usable.Scopes[other].Ended.Task)
	require.Len(t, usable.Pools, 1)
	require.Equal(t, map[string]netip.Addr{"U": other}, usable.Tasks)
	var lines []string
	for _, a := range aside {
		lines = append(lines, a.String())
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{`branch "a b": `, "vip 10.58.0.1: scope: branch: ",
		"vip 10.58.0.2: scope: ended: task", "vip 10.58.0.2: scope: ended: cluster",
		"vip 0.0.0.0: scope: want the address", "vip: task T: want the address",
		`vip 10.58.0.1: task "a task": `, "pool 10.58.0.2-10.58.0.1: want two addresses"} {
		require.Contains(t, all, want)
	}
	require.Len(t, lines, 8, all)
}

// The agent follows the VIPs of tasks, and Merge has those of the last source that names the task.
func TestTasksInRoutes(t *testing.T) {
	t.Parallel()
	vip1, vip2 := netip.MustParseAddr("10.58.0.1"), netip.MustParseAddr("10.58.0.2")
	type tasks = map[string]netip.Addr
	first := nginxsync.NewStaticSource(nginxsync.Snapshot{Tasks: tasks{"a": vip1, "b": vip1}})
	second := nginxsync.NewStaticSource(nginxsync.Snapshot{Tasks: tasks{"b": vip2}})
	driver := &memoryDriver{}
	source := nginxsync.Merge(first, second)
	agent := running(t, nginxsync.Config{Source: source, Driver: driver})
	verified := func(want tasks, aside int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for after := uint64(0); ; {
			_, revision, err := source.Watch(ctx, after)
			require.NoError(t, err)
			require.NoError(t, agent.WaitVerified(ctx, revision))
			if got := driver.now().Snapshot.Tasks; maps.Equal(got, want) {
				require.Len(t, agent.Status().SetAside, aside)
				// The agent may be ahead of the snapshot that was just watched.
				require.Equal(t, nginxsync.NewRoutes(1,
					nginxsync.Snapshot{Tasks: want}).Generation.Digest,
					driver.now().Generation.Digest)
				return
			}
			after = revision
		}
	}
	verified(tasks{"a": vip1, "b": vip2}, 0)
	first.Set(nginxsync.Snapshot{Tasks: tasks{"a": vip2, "c d": vip1}})
	verified(tasks{"a": vip2, "b": vip2}, 1)
	second.Set(nginxsync.Snapshot{})
	verified(tasks{"a": vip2}, 1)
	first.Set(nginxsync.Snapshot{})
	verified(nil, 0)
}
