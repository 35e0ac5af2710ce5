//go:build linux

package consulsource_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/consulsource"
	"github.com/sluice-deploy/sluice/nginxsync/internal/link"
	"github.com/sluice-deploy/sluice/nginxsync/sourcetest"
)

func TestSource(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Harness {
		service := name()
		cfg := config(server)
		cfg.Services = map[string]string{"a": service}
		s, err := consulsource.New(cfg)
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		t.Cleanup(func() { stop(); require.ErrorIs(t, <-done, context.Canceled) })
		return &sourcetest.Harness{Source: s, Set: func(snapshot nginxsync.Snapshot) {
			for _, in := range snapshot.Baseline["a"] {
				_, err := server.Client.Catalog().Register(&api.CatalogRegistration{Node: service,
					Address: in.Addr.Addr().String(), Service: &api.AgentService{ID: in.ID,
						Service: service, Port: int(in.Addr.Port()),
						Meta: map[string]string{"version": in.Version}}}, nil)
				require.NoError(t, err)
			}
		}}
	})
}

// Instances come, move, fall ill, rest and go, each as Consul says.
func TestInstancesFollowConsul(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	web, api2 := name(), name()
	register(t, server.Client, web, "1", 8001, "v1")
	b := follow(t, config(server, web, api2))
	b.shows(web, "1@8001=v1")
	b.shows(api2)
	register(t, server.Client, web, "2", 8002, "v1")
	b.shows(web, "1@8001=v1", "2@8002=v1")

	// The same id on another port, without a check.
	register(t, server.Client, web, "2", 8003, "v2")
	b.shows(web, "1@8001=v1", "2@8003=v2")

	agent := server.Client.Agent()
	require.NoError(t, agent.EnableServiceMaintenance(web+"-2", "rest"))
	b.shows(web, "1@8001=v1")
	require.NoError(t, agent.DisableServiceMaintenance(web+"-2"))
	b.shows(web, "1@8001=v1", "2@8003=v2")

	// A critical check of the service, then of its node.
	check := &api.AgentCheckRegistration{ID: web, Name: "own", ServiceID: web + "-1",
		AgentServiceCheck: api.AgentServiceCheck{TTL: "1h", Status: api.HealthCritical}}
	require.NoError(t, agent.CheckRegister(check))
	b.shows(web, "2@8003=v2")
	require.NoError(t, agent.PassTTL(web, ""))
	b.shows(web, "1@8001=v1", "2@8003=v2")
	catalog := &api.CatalogRegistration{Node: "other-" + web, Address: "127.0.0.2",
		Service: &api.AgentService{ID: web + "-3", Service: web, Port: 8009},
		Checks: api.HealthChecks{{Node: "other-" + web, CheckID: "serfHealth",
			Status: api.HealthPassing}}}
	_, err := server.Client.Catalog().Register(catalog, nil)
	require.NoError(t, err)
	b.shows(web, "1@8001=v1", "2@8003=v2", "3@8009=")
	catalog.Checks[0].Status = api.HealthCritical
	_, err = server.Client.Catalog().Register(catalog, nil)
	require.NoError(t, err)
	b.shows(web, "1@8001=v1", "2@8003=v2")

	require.NoError(t, agent.ServiceDeregister(web+"-1"))
	require.NoError(t, agent.ServiceDeregister(web+"-2"))
	b.shows(web)
}

// A service with the tag is found when it comes, and one that goes has no instance.
func TestTagFindsServices(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	found, plain, bad := name(), name(), name()+"/x"
	cfg := config(server)
	cfg.Tag = "sluice"
	b := follow(t, cfg)
	add := func(service string, tags ...string) {
		require.NoError(t, server.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: service + "-1", Name: service, Address: "127.0.0.1", Port: 80, Tags: tags}))
	}
	add(plain)
	add(bad, "sluice")
	add(found, "sluice")
	b.shows(found, "1@80=")
	testbed.Poll(t, "the bad name is refused", func() error {
		if b.Status().Refused[bad] == "" {
			return fmt.Errorf("%+v", b.Status())
		}
		return nil
	})
	b.shows(plain)
	require.NoError(t, server.Client.Agent().ServiceDeregister(found+"-1"))
	b.shows(found)
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Contains(t, b.shown.Baseline, found, "a service without an instance stays a cluster")
	require.NotContains(t, b.shown.Baseline, plain)
}

// Consul stops, hangs, comes back, and is put back to an older state: no instance is lost while it
// is away, and the state that it has then counts.
func TestConsulAwayTakesNothing(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	require.NotNil(t, server.Process, "the server must be the test's own")
	web := name()
	put := func(id string) {
		_, err := server.Client.Catalog().Register(&api.CatalogRegistration{Node: "n-" + web,
			Address: "127.0.0.1", Service: &api.AgentService{ID: web + "-" + id, Service: web,
				Port: 80}}, nil)
		require.NoError(t, err)
	}
	put("1")
	snapshot := server.Snapshot(t)
	b := follow(t, config(server, web))
	b.shows(web, "1@80=")
	put("2")
	b.shows(web, "1@80=", "2@80=")

	server.Process.Kill()
	b.fails(true)
	require.Equal(t, []string{"1@80=", "2@80="}, b.ids(web))
	require.NoError(t, server.Process.Begin())
	b.fails(false)
	require.Equal(t, []string{"1@80=", "2@80="}, b.ids(web))

	server.Process.Pause()
	b.fails(true)
	require.Equal(t, []string{"1@80=", "2@80="}, b.ids(web))
	server.Process.Resume()
	b.fails(false)
	put("3")
	b.shows(web, "1@80=", "2@80=", "3@80=")

	server.Restore(t, snapshot)
	b.shows(web, "1@80=")
	put("4")
	b.shows(web, "1@80=", "4@80=")
}

// Three servers lose their leader, then all but one: nothing is taken away, and the
// source sees the answers of a new leader.
func TestLeaderLost(t *testing.T) {
	t.Parallel()
	cluster := consul.StartCluster(t, 3)
	leader := cluster.Leader(t)
	others := cluster.Others(leader)
	web := name()
	put := func(m *consul.Member, id string) {
		t.Helper()
		testbed.Poll(t, "registered", func() error {
			_, err := m.Client.Catalog().Register(&api.CatalogRegistration{Node: "n-" + web,
				Address: "127.0.0.1", Service: &api.AgentService{ID: web + "-" + id, Service: web,
					Port: 80}}, nil)
			return err
		})
	}
	put(leader, "1")
	b := follow(t, config(others[0].Server, web))
	b.shows(web, "1@80=")
	leader.Process.Kill()
	put(others[1], "2")
	b.shows(web, "1@80=", "2@80=")
	others[1].Process.Kill()
	b.fails(true)
	require.Equal(t, []string{"1@80=", "2@80="}, b.ids(web))
	cluster.Start(t)
	b.fails(false)
	put(others[0], "3")
	b.shows(web, "1@80=", "2@80=", "3@80=")
}

// One service that answers badly keeps its instances, in each of the ways, and the others go on.
func TestOneServiceAnswersBadly(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	huge := "[" + strings.Repeat(" ", 16<<20) + "]"
	for what, c := range map[string]struct {
		change func(service string) func(*http.Request, *http.Response)
		want   string
	}{
		"500": {func(s string) func(*http.Request, *http.Response) {
			return say(s, 500, "No cluster leader")
		}, "No cluster leader"},
		"429": {func(s string) func(*http.Request, *http.Response) {
			return say(s, 429, "Your IP is issuing too many concurrent connections")
		}, "429"},
		"403": {func(s string) func(*http.Request, *http.Response) {
			return say(s, 403, "ACL not found")
		}, "ACL not found"},
		"no leader": {func(s string) func(*http.Request, *http.Response) {
			return say(s, 200, "[]", "X-Consul-Knownleader", "false")
		}, "knows no leader"},
		"behind": {func(s string) func(*http.Request, *http.Response) {
			return say(s, 200, "[]", "X-Consul-Lastcontact", "60000")
		}, "leader 1m0s ago"},
		"filtered": {func(s string) func(*http.Request, *http.Response) {
			return say(s, 200, "[]", "X-Consul-Results-Filtered-By-Acls", "true")
		}, "token may not read"},
		"cut": {func(s string) func(*http.Request, *http.Response) {
			return say(s, 200, `[{"Node":{"Node":"n"},"Serv`)
		}, "EOF"},
		"no JSON": {func(s string) func(*http.Request, *http.Response) {
			return say(s, 200, "<html>")
		}, "invalid character"},
		"too large": {func(s string) func(*http.Request, *http.Response) {
			return say(s, 200, huge)
		}, "too large"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, server)
			ill, well := name(), name()
			register(t, server.Client, ill, "1", 81, "v1")
			register(t, server.Client, well, "1", 82, "v1")
			cfg := config(server, ill, well)
			cfg.Consul = &api.Config{Address: f.addr}
			cfg.Wait = time.Second
			b := follow(t, cfg)
			b.shows(ill, "1@81=v1")
			b.shows(well, "1@82=v1")
			f.set(c.change(ill))
			testbed.Poll(t, "it is named", func() error {
				for _, s := range b.Status().Services {
					if s.Cluster == ill && strings.Contains(s.Error, c.want) {
						return nil
					}
				}
				return fmt.Errorf("%+v", b.Status())
			})
			register(t, server.Client, well, "2", 83, "v1")
			b.shows(well, "1@82=v1", "2@83=v1")
			require.Equal(t, []string{"1@81=v1"}, b.ids(ill))
			register(t, server.Client, ill, "2", 84, "v1")
			f.set(nil)
			b.shows(ill, "1@81=v1", "2@84=v1")
			testbed.Poll(t, "it is well", func() error {
				for _, s := range b.Status().Services {
					if s.Error != "" {
						return errors.New(s.Error)
					}
				}
				return nil
			})
		})
	}
}

// An answer without a single instance is confirmed by the leader before it counts.
func TestEmptyAnswerIsConfirmed(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	f := newFront(t, server)
	web := name()
	register(t, server.Client, web, "1", 81, "v1")
	cfg := config(server, web)
	cfg.Consul, cfg.Wait = &api.Config{Address: f.addr}, time.Second
	b := follow(t, cfg)
	b.shows(web, "1@81=v1")
	path := "/v1/health/service/" + web
	asked := f.asked(path)
	f.set(func(r *http.Request, resp *http.Response) {
		if !r.URL.Query().Has("consistent") {
			say(web, 200, "[]")(r, resp)
		}
	})
	testbed.Poll(t, "some answers were empty", func() error {
		if n := f.asked(path); n < asked+6 {
			return fmt.Errorf("%d requests, %d before", n, asked)
		}
		return nil
	})
	require.Equal(t, []string{"1@81=v1"}, b.ids(web))
	require.NoError(t, server.Client.Agent().ServiceDeregister(web+"-1"))
	b.shows(web)
}

// The connections that are open go silent, and new ones work: the queries begin again on new ones,
// long before their time is over, and Consul never counts as away.
func TestHalfOpenConnections(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	l := link.New(t, server.Addr)
	web := name()
	register(t, server.Client, web, "1", 81, "v1")
	cfg := config(server, web)
	cfg.Consul, cfg.Wait = &api.Config{Address: l.Addr}, 10*time.Minute
	var log logged
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	b := follow(t, cfg)
	want := []string{"1@81=v1"}
	b.shows(web, want...)
	// A machine that stands still for seconds may find Consul away instead: then once more.
	for port := 82; !strings.Contains(log.text(), "connections to consul are dead"); port++ {
		require.Less(t, port, 90, log.text())
		l.Silence(false)
		register(t, server.Client, web, fmt.Sprint(port), port, "v1")
		want = append(want, fmt.Sprintf("%d@%d=v1", port, port))
		b.shows(web, want...)
	}
	b.fails(false)

	// The whole link is dead for a while.
	l.Silence(true)
	b.fails(true)
	register(t, server.Client, web, "99", 99, "v1")
	require.Equal(t, want, b.ids(web))
	l.Heal()
	b.shows(web, append(want, "99@99=v1")...)
	b.fails(false)
}

// With fewer connections than services the queries take turns: all changes are seen, and Consul
// never has more queries at one time.
func TestQueriesTakeTurns(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	f := newFront(t, server)
	var services []string
	for range 7 {
		services = append(services, name())
	}
	cfg := config(server, services...)
	cfg.Consul = &api.Config{Address: f.addr}
	cfg.Connections, cfg.Turn = 2, 50*time.Millisecond
	b := follow(t, cfg)
	for i, s := range services {
		register(t, server.Client, s, "1", 80+i, "v1")
	}
	for i, s := range services {
		b.shows(s, fmt.Sprintf("1@%d=v1", 80+i))
	}
	require.Equal(t, 4, b.Status().Turns)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.LessOrEqual(t, f.max, 2)
}

// A source without changes asks once a Wait, and a change of Consul's index alone shows nothing.
func TestIdleSourceIsQuiet(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	f := newFront(t, server)
	web, other := name(), name()
	register(t, server.Client, web, "1", 80, "v1")
	cfg := config(server, web)
	cfg.Consul = &api.Config{Address: f.addr}
	cfg.Every = 200 * time.Millisecond
	b := follow(t, cfg)
	b.shows(web, "1@80=v1")
	check := &api.AgentCheckRegistration{ID: web, Name: "own", ServiceID: web + "-1",
		AgentServiceCheck: api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing}}
	require.NoError(t, server.Client.Agent().CheckRegister(check))
	b.mu.Lock()
	shown := b.count
	b.mu.Unlock()
	path := "/v1/health/service/" + web
	asked := f.asked(path)
	start := time.Now()
	for i := range 100 { // the output of a check changes the index of its service
		require.NoError(t, server.Client.Agent().UpdateTTL(web, fmt.Sprint("output ", i),
			api.HealthPassing))
		register(t, server.Client, other, "1", 80+i, "v1")
	}
	took := time.Since(start)
	testbed.Poll(t, "the last change is over", func() error {
		if f.asked(path) == asked {
			return errors.New("no query")
		}
		return nil
	})
	require.LessOrEqual(t, f.asked(path)-asked, int(took/cfg.Every)+4, "in %s", took)
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Equal(t, shown, b.count)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := consulsource.New(consulsource.Config{Wait: time.Millisecond, Connections: -1,
		Turn: -1, Every: -1, MaxStale: -1, Probe: -1, FirstWait: -1})
	for _, field := range []string{"Consul", "Services or Config.Tag", "Wait", "Connections",
		"Turn",
		"Every", "MaxStale", "Probe", "FirstWait"} {
		require.ErrorContains(t, err, "consulsource: Config."+field+": ")
	}
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
	_, err = consulsource.New(consulsource.Config{Consul: &api.Config{},
		Services: map[string]string{"Bad": "x", "good": ""}})
	require.ErrorContains(t, err, "Config.Services")
	_, err = consulsource.New(consulsource.Config{Consul: &api.Config{TLSConfig: api.TLSConfig{
		CAFile: "/none"}}, Tag: "sluice"})
	require.ErrorContains(t, err, "consulsource: Config.Consul: ")
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
}
