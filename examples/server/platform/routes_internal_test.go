package platform

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/vip"
)

func served(id, cluster, environment, task, version string, port uint16) rollout.Instance {
	return rollout.Instance{
		Spec: rollout.Spec{ID: id, Image: rollout.Image{Version: version},
			Target: promote.Target{Cluster: cluster, Environment: environment, Task: task}},
		Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
	}
}

func leased(addr, task string, overrides map[string]string) vip.Lease {
	return vip.Lease{Addr: netip.MustParseAddr(addr), Owner: vip.Owner{Task: task,
		Overrides: overrides}}
}

func entry(i rollout.Instance) nginxsync.Instance {
	return nginxsync.Instance{ID: i.ID, Addr: i.Addr, Version: i.Image.Version}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	webStable, apiStable := served("w1", "web", "stable", "", "v1", 1),
		served("a1", "api", "stable", "", "v1", 2)
	webTask, webTest := served("w2", "web", "test", "redesign", "v2", 3),
		served("w3", "web", "test", "", "v3", 4)
	baseline := map[string][]nginxsync.Instance{"web": {entry(webStable)},
		"api": {entry(apiStable)}}
	all := []rollout.Instance{webStable, apiStable, webTask, webTest}
	redesign := leased("127.0.2.1", "redesign", map[string]string{"web": "v2"})
	addr := redesign.Addr
	for name, tc := range map[string]struct {
		instances []rollout.Instance
		leases    []vip.Lease
		overlays  map[netip.Addr]map[string][]nginxsync.Instance
	}{
		"no task": {all, nil,
			map[netip.Addr]map[string][]nginxsync.Instance{}},
		"a task overrides its cluster only": {all, []vip.Lease{redesign},
			map[netip.Addr]map[string][]nginxsync.Instance{addr: {"web": {entry(webTask)}}}},
		"a task without instance": {all[:2], []vip.Lease{redesign},
			map[netip.Addr]map[string][]nginxsync.Instance{addr: {"web": nil}}},
		"another task's instances are not its": {all,
			[]vip.Lease{leased("127.0.2.1", "other", map[string]string{"web": "v2"})},
			map[netip.Addr]map[string][]nginxsync.Instance{addr: {"web": nil}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := routes(tc.instances, tc.leases, "stable")
			require.Equal(t, baseline, got.Baseline)
			require.Equal(t, tc.overlays, got.Overlays)
		})
	}
}

// TestRoutesAsAPlainRule draws any instances and leases, and compares with the instances that a
// tester expects on every VIP for every cluster.
func TestRoutesAsAPlainRule(t *testing.T) {
	t.Parallel()
	clusters, tasks := []string{"a", "b", "c"}, []string{"t1", "t2", "t3"}
	rapid.Check(t, func(t *rapid.T) {
		var instances []rollout.Instance
		for n := range rapid.IntRange(0, 12).Draw(t, "instances") {
			environment := rapid.SampledFrom([]string{"test", "production", "stable"}).Draw(t,
				"environment")
			task := ""
			if environment == "test" {
				task = rapid.SampledFrom(append(tasks, "")).Draw(t, "task")
			}
			cluster := rapid.SampledFrom(clusters).Draw(t, "cluster")
			instances = append(instances, served(fmt.Sprint("i", n), cluster, environment, task,
				"v1", uint16(n+1)))
		}
		var leases []vip.Lease
		for n, task := range tasks {
			if !rapid.Bool().Draw(t, "has a lease") {
				continue
			}
			overrides := map[string]string{}
			for _, cluster := range rapid.SliceOfNDistinct(rapid.SampledFrom(clusters), 1, 3,
				rapid.ID).Draw(t, "overrides") {
				overrides[cluster] = "v1"
			}
			leases = append(leases, leased(fmt.Sprintf("127.0.2.%d", n+1), task, overrides))
		}
		got := routes(instances, leases, "stable")
		if err := got.Validate(); err != nil {
			t.Fatal(err)
		}
		serving := func(cluster, environment, task string) (ids []string) {
			for _, i := range instances {
				if i.Target == (promote.Target{Cluster: cluster, Environment: environment,
					Task: task}) {
					ids = append(ids, i.ID)
				}
			}
			return ids
		}
		for _, cluster := range clusters {
			require.Equal(t, serving(cluster, "stable", ""), ids(got.Baseline[cluster]),
				"the plain address")
			for _, lease := range leases {
				instances, found := got.Overlays[lease.Addr][cluster]
				_, overridden := lease.Owner.Overrides[cluster]
				require.Equal(t, overridden, found, "the baseline serves what the task is not "+
					"about, and never what it is about")
				if overridden {
					require.Equal(t, serving(cluster, "test", lease.Owner.Task), ids(instances))
				}
			}
		}
		require.Len(t, got.Overlays, len(leases))
	})
}

func ids(instances []nginxsync.Instance) (ids []string) {
	for _, i := range instances {
		ids = append(ids, i.ID)
	}
	return ids
}

func TestRoutable(t *testing.T) {
	t.Parallel()
	d := promote.Deployment{Target: promote.Target{Cluster: "web", Environment: "production"}}
	d.Version = "v1"
	require.NoError(t, routable(d))
	d.Version = strings.Repeat("a", 64) // a tag of an image may be longer than a version
	err := deployer{}.Deploy(t.Context(), d)
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
}

func TestKeepBaseline(t *testing.T) {
	t.Parallel()
	s := routes(nil, []vip.Lease{leased("127.0.2.1", "a", nil)}, "stable")
	p := &Platform{config: Config{KeepBaseline: true}} // it needs no leases
	require.Equal(t, s, p.unleased(s))
}
