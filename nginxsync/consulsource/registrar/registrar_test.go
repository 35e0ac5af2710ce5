//go:build linux

package registrar_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/consulsource"
	"github.com/sluice-deploy/sluice/nginxsync/consulsource/registrar"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	checktest.Run(t, nginxsync.ErrInvalid, registrar.Config{Consul: &api.Config{}, Name: "platform",
		Every: time.Second},
		func(cfg registrar.Config) error { _, err := registrar.New(cfg); return err },
		map[string][]func(*registrar.Config){
			"Consul": {
				func(cfg *registrar.Config) { cfg.Consul = nil },
				func(cfg *registrar.Config) {
					cfg.Consul = &api.Config{TLSConfig: api.TLSConfig{CAFile: "/missing"}}
				},
			},
			"Name": {
				func(cfg *registrar.Config) { cfg.Name = "" },
				func(cfg *registrar.Config) { cfg.Name = `a" or "b` },
			},
			"Every":   {func(cfg *registrar.Config) { cfg.Every = -1 }},
			"Timeout": {func(cfg *registrar.Config) { cfg.Timeout = -1 }},
			"TTL": {
				func(cfg *registrar.Config) { cfg.TTL = 2 * time.Second },
				func(cfg *registrar.Config) { cfg.TTL = -1 },
			},
			"Forget": {
				func(cfg *registrar.Config) { cfg.Forget = time.Second },
				func(cfg *registrar.Config) { cfg.Forget = -1 },
			},
		}, "Probe", "Logger", "Now", "Observe")
}

// probes says which addresses fail.
type probes struct{ bad sync.Map }

func (p *probes) ask(_ context.Context, addr netip.AddrPort) error {
	if _, bad := p.bad.Load(addr); bad {
		return errors.New("it says no")
	}
	return nil
}

// bed is a Consul with a source that shows the instances of one service.
type bed struct {
	t       *testing.T
	server  *consul.Server
	service string
	source  *consulsource.Source
	probes  probes
	rounds  atomic.Int64
}

func newBed(t *testing.T) *bed {
	b := &bed{t: t, server: consul.Start(t), service: "sluice-test-" + strings.ToLower(rand.Text())}
	var err error
	b.source, err = consulsource.New(consulsource.Config{
		Consul:   &api.Config{Address: b.server.Addr},
		Services: map[string]string{"a": b.service}, Every: 20 * time.Millisecond})
	require.NoError(t, err)
	b.run(b.source.Run)
	return b
}

// run runs f until the returned function or the test ends it.
func (b *bed) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f(ctx) })
	stop = func() { cancel(); wg.Wait() }
	b.t.Cleanup(stop)
	return stop
}

// registrar makes one that is not run.
func (b *bed) registrar(name string) *registrar.Registrar {
	b.t.Helper()
	r, err := registrar.New(registrar.Config{Consul: &api.Config{Address: b.server.Addr},
		Name: name, Probe: b.probes.ask, Every: 20 * time.Millisecond, TTL: time.Minute,
		Timeout: 20 * time.Second, Observe: func(op string, _ time.Duration, _ error) {
			if op == "round" {
				b.rounds.Add(1)
			}
		}})
	require.NoError(b.t, err)
	b.t.Cleanup(func() {
		list, _ := b.server.Client.Agent().ServicesWithFilter(fmt.Sprintf("Service == %q",
			b.service))
		for id := range list {
			_ = b.server.Client.Agent().ServiceDeregister(id)
		}
	})
	return r
}

// instance is one of the service; ids of several tests are on one Consul.
func (b *bed) instance(id, addr, version string) registrar.Instance {
	return registrar.Instance{Service: b.service, ID: b.service + "-" + id,
		Addr: netip.MustParseAddrPort(addr), Version: version}
}

// shows waits until the source has the instances, as "id@address=version weight".
func (b *bed) shows(want ...string) {
	b.t.Helper()
	testbed.Poll(b.t, fmt.Sprint("the source has ", want), func() error {
		s, _, err := b.source.Watch(b.t.Context(), 0)
		if err != nil {
			return err
		}
		got := []string{}
		for _, in := range s.Baseline["a"] {
			got = append(got, fmt.Sprintf("%s@%s=%s %d", strings.TrimPrefix(in.ID, b.service+"-"),
				in.Addr, in.Version, in.Weight))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
}

func TestInstancesAreRegistered(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	name := "test-" + strings.ToLower(rand.Text())
	r := b.registrar(name)
	stop := b.run(r.Run)
	one, two := b.instance("1", "127.0.0.1:8001", "v1"), b.instance("2", "127.0.0.1:8002", "v1")
	two.Weight = 3
	b.probes.bad.Store(two.Addr, true)
	require.NoError(t, r.Set([]registrar.Instance{one, two}))
	b.shows("1@127.0.0.1:8001=v1 1") // two is critical from the beginning
	b.probes.bad.Delete(two.Addr)
	b.shows("1@127.0.0.1:8001=v1 1", "2@127.0.0.1:8002=v1 3")
	b.probes.bad.Store(one.Addr, true)
	b.shows("2@127.0.0.1:8002=v1 3")
	checks, err := b.server.Client.Agent().ChecksWithFilter(fmt.Sprintf("ServiceID == %q", one.ID))
	require.NoError(t, err)
	require.Len(t, checks, 1)
	require.Equal(t, "it says no", checks["sluice:"+one.ID].Output)
	b.probes.bad.Delete(one.Addr)

	// Another address is the same instance, and one that has ended goes.
	one.Addr, one.Version = netip.MustParseAddrPort("127.0.0.1:8003"), "v2"
	require.NoError(t, r.Set([]registrar.Instance{one}))
	b.shows("1@127.0.0.1:8003=v2 1")
	require.NoError(t, r.Err())

	// A registration that is lost comes back.
	require.NoError(t, b.server.Client.Agent().ServiceDeregister(one.ID))
	b.shows("1@127.0.0.1:8003=v2 1")

	// It outlives the registrar; a successor takes it over and removes the rest, and nothing of
	// others.
	foreign := b.instance("3", "127.0.0.1:8004", "v3")
	other := b.registrar(name + "-other")
	b.run(other.Run)
	require.NoError(t, other.Set([]registrar.Instance{foreign}))
	b.shows("1@127.0.0.1:8003=v2 1", "3@127.0.0.1:8004=v3 1")
	stop()
	next := b.registrar(name)
	b.run(next.Run)
	before := b.rounds.Load()
	testbed.Poll(t, "the other one makes rounds", func() error {
		if b.rounds.Load() < before+3 {
			return errors.New("not yet")
		}
		return nil
	})
	b.shows("1@127.0.0.1:8003=v2 1", "3@127.0.0.1:8004=v3 1") // it knows of none yet
	require.NoError(t, next.Set(nil))
	b.shows("3@127.0.0.1:8004=v3 1")
}

func TestSetRefuses(t *testing.T) {
	t.Parallel()
	r, err := registrar.New(registrar.Config{Consul: &api.Config{}, Name: "platform"})
	require.NoError(t, err)
	good := registrar.Instance{Service: "a", ID: "1", Addr: netip.MustParseAddrPort("10.0.0.1:80")}
	addr := netip.MustParseAddrPort
	for name, change := range map[string]func(*registrar.Instance){
		"no service":        func(in *registrar.Instance) { in.Service = "" },
		"no id":             func(in *registrar.Instance) { in.ID = "" },
		"no address":        func(in *registrar.Instance) { in.Addr = netip.AddrPort{} },
		"no port":           func(in *registrar.Instance) { in.Addr = addr("10.0.0.1:0") },
		"any address":       func(in *registrar.Instance) { in.Addr = addr("[::]:80") },
		"weight":            func(in *registrar.Instance) { in.Weight = -1 },
		"an id comes twice": func(in *registrar.Instance) {},
	} {
		bad := good
		change(&bad)
		require.ErrorIs(t, r.Set([]registrar.Instance{good, bad}), nginxsync.ErrInvalid, name)
	}
}

// A Consul that is away is an error of the round, and the context's cause ends Run.
func TestConsulAway(t *testing.T) {
	t.Parallel()
	r, err := registrar.New(registrar.Config{Consul: &api.Config{Address: "127.0.0.1:1"},
		Name: "platform", Every: time.Millisecond})
	require.NoError(t, err)
	require.NoError(t, r.Set(nil))
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	testbed.Poll(t, "the error is told", func() error {
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("%w", errors.Join(errors.New("no"), err))
		}
		return nil
	})
	cause := errors.New("enough")
	cancel(cause)
	require.ErrorIs(t, <-done, cause)
}
