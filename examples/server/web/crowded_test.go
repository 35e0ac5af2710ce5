package web

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/vip"
)

var digest = "sha256:" + strings.Repeat("0123456789abcdef", 4)

// long is a name of 60 bytes without a place where a line may break, or with many.
func long(separator string, n int) string {
	name := fmt.Sprintf("%s%s%02d", "advertisement", separator, n)
	for len(name) < 60 {
		name += separator + "engine"
	}
	return strings.TrimRight(name[:60], separator)
}

// longError is of the kind that a registry gives: long words, and many.
var longError = "build 127.0.0.1:5800/" + long("_", 1) + ": tag 127.0.0.1:5800/" + long("_", 1) +
	":" + long("-", 2) + " names " + digest +
	" already, the build gave " + digest + ": choose another tag; " +
	strings.Repeat("a tag is never moved unasked. ", 20)

// CrowdedPage is a front page with 40 tasks, long names and long errors.
func CrowdedPage() any {
	now := time.Now().Add(-30 * time.Hour)
	page := indexPage{
		Problem: &Problem{Problem: httpproblem.New(httpproblem.Conflict, longError),
			Missing: []string{strings.Repeat("app/conf/", 20)}},
		Overview: platform.Overview{Environments: []string{"test", "sandbox", "production",
			"stable"}}, Baseline: "stable",
		Pools:     []platform.Pool{{Pool: "trial", Size: 256, Leased: 40, Free: 216}},
		Templates: builder.Default().Templates(), Template: "go-static",
		Nginx: platform.NginxStatus{Port: 18880,
			Workers: []platform.Worker{{PID: 1234567, Verified: true}, {PID: 1234568}},
			Error:   longError},
	}
	for n := range 40 {
		separator := []string{"_", "-"}[n%2]
		cluster, version, addr := long(separator, n%8), long(separator, n),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 171, 100, byte(100 + n)}), 38888)
		d := platform.Deployment{Cluster: cluster, Version: version, Digest: digest, Actor: "ann",
			Since: now}
		task := d
		task.Task = long(separator, n)
		if n < 8 {
			page.Overview.Clusters = append(page.Overview.Clusters,
				platform.ClusterOverview{Cluster: cluster,
					Deployments: map[string][]platform.Deployment{
						"test": {d, task}, "sandbox": {d}, "stable": {d},
					}})
			page.Sources = append(page.Sources, cluster+"-"+version)
		}
		page.Versions = append(page.Versions, platform.Version{Cluster: cluster, Version: version,
			Digest: digest, Actor: "ann", Bound: now})
		page.Tasks = append(page.Tasks, platform.Task{
			Task: task.Task, VIP: addr.Addr(), State: vip.Leased, Since: now,
			Expires:   now.Add(72 * time.Hour),
			Clusters:  []platform.TaskCluster{{Cluster: cluster, Version: version, Digest: digest}},
			Instances: []vip.Instance{{ID: "a", Addr: addr}, {ID: "b", Addr: addr}},
		})
		page.Instances = append(page.Instances, Instance{
			ID: cluster + "-test-" + task.Task, Cluster: cluster, Version: version, Digest: digest,
			Addr: addr, PID: 1234567, Restarts: 12,
		})
		build := platform.Build{
			ID: fmt.Sprintf("b%06d", n), State: []platform.BuildState{platform.BuildFailed,
				platform.BuildSucceeded}[n%2],
			BuildRequest: platform.BuildRequest{Cluster: cluster, Version: version,
				Template: "go-static", Actor: "wang.fang", Source: cluster},
			Digest: digest, Queued: now, Started: now,
			Ended: now.Add(3*time.Minute + 12345*time.Millisecond),
		}
		entry := platform.Entry{
			Time: now, Kind: "succeeded", Op: "promote", Cluster: cluster, Version: version,
			Environment: "production", Digest: digest,
			Actor: "wang.fang", Task: task.Task, Reason: strings.Repeat("because of the release ",
				5),
		}
		if n%2 == 0 {
			build.Error, entry.Error, entry.Kind = longError, longError, "failed"
		}
		page.Builds, page.Journal = append(page.Builds, build), append(page.Journal, entry)
	}
	page.Rows, page.Changes = matrix(page.Overview), len(page.Nginx.Changes)
	page.Pagers = map[string]pager{"vips": {Text: "26–50 of 1000", First: "/", Before: "/",
		Next: "/"}}
	return page
}

// CrowdedBuild is the page of a build with a long error.
func CrowdedBuild() any {
	page := CrowdedPage().(indexPage)
	return map[string]any{"Build": page.Builds[0], "Log": []string{longError,
		strings.Repeat("x", 500)}}
}
