//go:build linux

package vipsource_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/consulsource"
	"github.com/sluice-deploy/sluice/nginxsync/relay"
	"github.com/sluice-deploy/sluice/nginxsync/vipsource"
	"github.com/sluice-deploy/sluice/vip"
)

// The size of TestScale; docs/scale.md has the figures of each. The size of make soak ends within
// minutes on a busy machine of two processors.
var (
	scaleAgents   = flag.Int("scale.agents", soak.Count(3, 5), "agents")
	scaleRelayed  = flag.Int("scale.relayed", soak.Count(1, 2), "agents that follow a relay over HTTP")
	scaleServices = flag.Int("scale.services", soak.Count(20, 100), "services in Consul")
	scaleLeases   = flag.Int("scale.leases", soak.Count(30, 500), "leases")
	scaleChanges  = flag.Int("scale.changes", soak.Count(20, 100), "changes")
	scaleEvery    = flag.Duration("scale.every", 100*time.Millisecond, "time between two changes")
	scaleIdle     = flag.Duration("scale.idle", time.Duration(soak.Count(1, 30))*time.Second,
		"time without a change")
	scaleTurns = flag.Int("scale.connections", 0,
		"blocking queries at one time, 0 for one a service")
)

// began are the times at which the versions of services were registered.
type began struct {
	mu sync.Mutex
	at map[string]time.Time
}

// sink is the driver of an Nginx that is not there: it accepts every push.
type sink struct {
	began *began

	mu    sync.Mutex
	state nginxsync.DriverState
	rows  int
	lags  []time.Duration
	seen  map[string]string // the version of each cluster
}

func (s *sink) Apply(_ context.Context, d nginxsync.Delta) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = nginxsync.DriverState{Applied: d.To, Epoch: d.Epoch, Writer: d.Writer,
		Workers: []nginxsync.Worker{{PID: 1, Applied: d.To}}}
	s.rows += len(d.Rows)
	s.began.mu.Lock()
	defer s.began.mu.Unlock()
	for _, row := range d.Rows {
		if row.VIP.IsValid() || len(row.Instances) == 0 {
			continue
		}
		version := row.Instances[0].Version
		if at, ok := s.began.at[version]; ok && !d.Full {
			s.lags = append(s.lags, now.Sub(at))
		}
		s.seen[row.Cluster] = version
	}
	return nil
}

func (s *sink) State(context.Context) (nginxsync.DriverState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, nil
}

func (s *sink) Routes(context.Context) (nginxsync.Routes, error) {
	return nginxsync.Routes{}, errors.New("nothing reads them back")
}

// counted counts the bytes of connections.
type counted struct {
	net.Conn
	read, written *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// usage counts the requests and bytes of a source.
type usage struct{ requests, read, written atomic.Int64 }

// client has so many connections at most, 0 for as many as there are requests.
func (u *usage) client(connections int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxConnsPerHost: connections,
		MaxIdleConnsPerHost: 20000,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return counted{conn, &u.read, &u.written}, err
		}}}
}

func (u *usage) observe(string, time.Duration, error) { u.requests.Add(1) }

// since prints what was used in a time, and begins again.
func (u *usage) since(start time.Time) string {
	minutes := time.Since(start).Minutes()
	return fmt.Sprintf("%.0f requests, %.0f kB in, %.0f kB out a minute",
		float64(u.requests.Swap(0))/minutes, float64(u.read.Swap(0))/1000/minutes,
		float64(u.written.Swap(0))/1000/minutes)
}

// spent is the processor time of this process.
func spent(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// parallel calls f for 0 to n-1, eight at a time.
func parallel(n int, f func(int)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var next atomic.Int64
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				f(i - 1)
			}
		})
	}
}

// startRelay serves the snapshots of a source, and returns a function that makes a source of them.
func startRelay(ctx context.Context, t *testing.T, wg *sync.WaitGroup, source nginxsync.Source,
	used *usage) func() nginxsync.Source {
	t.Helper()
	const token = "0123456789abcdef"
	handler, err := relay.NewHandler(relay.HandlerConfig{Source: source, Token: token})
	require.NoError(t, err)
	wg.Go(func() { _ = handler.Run(ctx) })
	server := httptest.NewServer(handler)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return func() nginxsync.Source {
		s, err := relay.New(relay.Config{URLs: []string{server.URL}, Client: used.client(0),
			Token:   func() (string, error) { return token, nil },
			Observe: used.observe})
		require.NoError(t, err)
		wg.Go(func() { _ = s.Run(ctx) })
		return s
	}
}

// Many agents in one process, with clients of a real Consul and of a platform with many leases, and
// some that follow a relay, reach the last of many changes. The figures are logged.
func TestScale(t *testing.T) {
	server := consul.StartWide(t, max(2000, *scaleServices+1000))
	names := make([]string, *scaleServices)
	for i := range names {
		names[i] = fmt.Sprintf("sluice-test-%d", i)
	}
	times := &began{at: map[string]time.Time{}}
	last := map[string]string{} // the version of each service
	number := 0
	register := func(service string) {
		times.mu.Lock()
		number++
		first, version := number == 1, fmt.Sprint("v", number)
		times.at[version], last[service] = time.Now(), version
		times.mu.Unlock()
		_, err := server.Client.Catalog().Register(&api.CatalogRegistration{
			Node: "sluice-test-scale", Address: "10.0.0.9", SkipNodeUpdate: !first,
			Service: &api.AgentService{ID: service, Service: service, Port: 80,
				Meta: map[string]string{"version": version}}}, nil)
		if err != nil {
			t.Error(err)
		}
	}
	cfg := consulsource.Config{Services: map[string]string{}, Connections: *scaleTurns,
		FirstWait: 5 * time.Minute}
	began := time.Now()
	register(names[0]) // the node comes with it
	parallel(len(names)-1, func(i int) { register(names[i+1]) })
	for _, name := range names {
		cfg.Services[name] = name
	}
	var registry, leases, passed usage
	if cfg.Connections == 0 {
		cfg.Connections = len(names) + 10
	}
	cfg.Consul = &api.Config{Address: server.Addr,
		HttpClient: registry.client(cfg.Connections + 1)}
	cfg.Observe = registry.observe
	instances, err := consulsource.New(cfg)
	require.NoError(t, err)
	overlays := startPlatform(t, leased(t, names)).remote(t, vipsource.RemoteConfig{
		Client: leases.client(0), Observe: leases.observe})
	source := nginxsync.Merge(instances, overlays)
	t.Logf("made %d services and %d leases in %.1f s", len(names), *scaleLeases,
		time.Since(began).Seconds())

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	start, before := time.Now(), spent(t)
	wg.Go(func() { _ = instances.Run(ctx) })
	follow := startRelay(ctx, t, &wg, source, &passed)
	sinks := make([]*sink, *scaleAgents)
	for i := range sinks {
		source := source
		if i < *scaleRelayed {
			source = follow()
		}
		sinks[i] = &sink{began: times, seen: map[string]string{}}
		agent, err := nginxsync.OpenAgent(t.Context(), nginxsync.Config{Source: source,
			Driver: sinks[i]})
		require.NoError(t, err)
		wg.Go(func() { _ = agent.Run(ctx) })
	}
	reached := func() {
		t.Helper()
		testbed.Poll(t, "every agent has the last version of every service", func() error {
			for i, s := range sinks {
				s.mu.Lock()
				defer s.mu.Unlock()
				for service, version := range last {
					if s.seen[service] != version {
						return fmt.Errorf("agent %d: %s has %q, want %s", i, service,
							s.seen[service], version)
					}
				}
			}
			return nil
		})
	}
	patient, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	require.NoError(t, testbed.Wait(patient, func() error {
		for _, s := range sinks {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.rows < len(names)+*scaleLeases {
				return fmt.Errorf("%d rows", s.rows)
			}
		}
		return nil
	}))
	reached()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	t.Logf("%d agents, %d of them behind a relay, %d services, %d leases: all routes after %.1f s, "+
		"%.1f s of the processor, %d MB of heap", len(sinks), min(*scaleRelayed, len(sinks)),
		len(names), *scaleLeases, time.Since(start).Seconds(), (spent(t) - before).Seconds(),
		memory.HeapAlloc>>20)
	t.Log("start: Consul ", registry.since(start), "; leases ", leases.since(start), "; relay ",
		passed.since(start))

	pause := func(d time.Duration) {
		t.Helper()
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-t.Context().Done():
		}
	}
	start, before = time.Now(), spent(t)
	pause(*scaleIdle)
	t.Logf("idle: %.1f ms of the processor a second; Consul %s; leases %s; relay %s",
		float64((spent(t)-before).Milliseconds())/time.Since(start).Seconds(),
		registry.since(start), leases.since(start), passed.since(start))

	start, before = time.Now(), spent(t)
	for _, s := range sinks {
		s.mu.Lock()
		s.lags, s.rows = nil, 0
		s.mu.Unlock()
	}
	r := rand.New(rand.NewPCG(1, 2))
	tick := time.NewTicker(*scaleEvery)
	defer tick.Stop()
	for range *scaleChanges {
		<-tick.C
		register(names[r.IntN(len(names))])
	}
	took := time.Since(start)
	reached()
	var lags []time.Duration
	for _, s := range sinks {
		s.mu.Lock()
		lags = append(lags, s.lags...)
		s.mu.Unlock()
	}
	slices.Sort(lags)
	require.NotEmpty(t, lags)
	at := func(q float64) time.Duration {
		return lags[int(q*float64(len(lags)-1))].Round(10 * time.Microsecond)
	}
	t.Logf("%d changes in %.1f s: registration to push p50 %s, p99 %s, worst %s; %.1f ms of the "+
		"processor a change; Consul %s; relay %s", *scaleChanges, took.Seconds(), at(.5), at(.99), at(1),
		float64((spent(t)-before).Microseconds())/1000/float64(*scaleChanges),
		registry.since(start), passed.since(start))
}

// leased is an allocator with leases, each with an overlay of one cluster.
func leased(t *testing.T, clusters []string) *vip.Allocator {
	t.Helper()
	pool, err := vip.ParsePool("scale", "10.64.0.0/14")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{pool}})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	parallel(*scaleLeases, func(i int) {
		cluster := clusters[i%len(clusters)]
		l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: fmt.Sprint("task-", i),
			Overrides: map[string]string{cluster: "v1"}}})
		if err == nil {
			_, err = a.Bind(t.Context(), l.ID, []vip.Instance{{ID: "i", Cluster: cluster,
				Version: "v1", Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8),
					byte(i)}), uint16(1024+i>>16))}})
		}
		if err != nil {
			t.Error(err)
		}
	})
	return a
}
