package sluice_test

import (
	"maps"
	"net/netip"
	"testing"
	"testing/fstest"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/internal/names/namestest"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/vip"
)

// entrances are the places where names enter the five packages, by word and by kind.
func entrances(t *testing.T) map[namestest.Word]map[string]func(string) error {
	const digest = "sha256:5faa310062d3c2067f8e6676d7f476fa187cd63ea407f3d1205a8a650f4eacad"
	ctx := t.Context()
	template, err := builder.Default().Template("go-static")
	if err != nil {
		t.Fatal(err)
	}
	bind := func(cluster, version string) error {
		p, err := promote.New(promote.Config{Journal: promote.NewMemJournal(),
			Deployer: &runtime{}})
		if err != nil {
			return err
		}
		return p.Bind(ctx, promote.Binding{Cluster: cluster, Version: version, Digest: digest,
			Repository: "registry/a", Actor: "ci"})
	}
	snapshot := func(cluster, version, id string) error {
		instance := nginxsync.Instance{ID: id, Version: version,
			Addr: netip.MustParseAddrPort("10.1.2.3:8080")}
		return nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{cluster: {instance}}}.Validate()
	}
	allocate := func(task, cluster, version string) error {
		pool, err := vip.ParsePool("test", "127.58.0.0/24")
		if err != nil {
			return err
		}
		leases, err := vip.Open(ctx, vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{pool}})
		if err != nil {
			return err
		}
		_, err = leases.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: task,
			Overrides: map[string]string{cluster: version}}})
		return err
	}
	return map[namestest.Word]map[string]func(string) error{
		namestest.Cluster: {
			"builder: a template's value": func(name string) error {
				values := maps.Clone(template.Examples())
				values["CLUSTER_NAME"] = name
				_, err := template.Render(values)
				return err
			},
			"promote: a binding":    func(name string) error { return bind(name, "v1") },
			"vip: an override":      func(name string) error { return allocate("t1", name, "v1") },
			"nginxsync: a snapshot": func(name string) error { return snapshot(name, "v1", "i1") },
		},
		namestest.Version: {
			"builder: a tag": func(name string) error {
				return (&builder.Request{Dockerfile: []byte("FROM scratch\n"),
					Repository: "registry/a", Tag: name}).Validate()
			},
			"promote: a binding":    func(name string) error { return bind("a", name) },
			"vip: an override":      func(name string) error { return allocate("t1", "a", name) },
			"nginxsync: a snapshot": func(name string) error { return snapshot("a", name, "i1") },
		},
		namestest.Task: {
			"promote: a target": func(name string) error {
				p, err := promote.New(promote.Config{Journal: promote.NewMemJournal(),
					Deployer: &runtime{}})
				if err != nil {
					return err
				}
				target := promote.Target{Cluster: "a", Environment: "test", Task: name}
				return p.Retire(ctx, promote.RetireRequest{Expect: promote.Any, Target: target, Actor: "ann"})
			},
			"vip: an owner": func(name string) error { return allocate(name, "a", "v1") },
		},
		namestest.Environment: {
			"promote: a pipeline": func(name string) error {
				return promote.Pipeline{name}.Validate()
			},
			"envconfig: a tree": func(name string) error {
				_, err := envconfig.Scan(fstest.MapFS{"envs/" + name + "/etc/app": {},
					"envs/test/etc/app": {}})
				return err
			},
		},
		namestest.Instance: {
			"nginxsync: a snapshot": func(name string) error { return snapshot("a", "v1", name) },
		},
	}
}

// optional are the entrances where a name may be left out.
var optional = map[string]bool{"builder: a tag": true, "promote: a target": true,
	"nginxsync: a snapshot version": true}

// noDirectory are samples that are no name of one directory, so that a tree cannot have them.
var noDirectory = []string{"empty", "slash", "dot only", "parent directory", "path upwards",
	"begins with dot"}

// TestNames holds all packages to one grammar for each word: a name that one of them accepts is
// accepted by all.
func TestNames(t *testing.T) {
	t.Parallel()
	for word, list := range entrances(t) {
		for name, check := range list {
			t.Run(string(word)+" in "+name, func(t *testing.T) {
				var except []string
				if optional[name] || optional[name+" "+string(word)] {
					except = []string{"empty"}
				}
				if name == "envconfig: a tree" {
					except = noDirectory
				}
				namestest.Run(t, word, check, except...)
			})
		}
	}
}
