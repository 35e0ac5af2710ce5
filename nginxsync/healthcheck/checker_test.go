//go:build linux

package healthcheck_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/healthcheck"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
	"github.com/sluice-deploy/sluice/nginxsync/sourcetest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	one := healthcheck.Check{Probe: healthcheck.TCP()}
	only := func(c healthcheck.Check) func(*healthcheck.Config) {
		return func(cfg *healthcheck.Config) { cfg.Checks = []healthcheck.Check{c} }
	}
	named := healthcheck.Check{Probe: healthcheck.TCP(), Clusters: []string{"a"}}
	checktest.Run(t, nginxsync.ErrInvalid, healthcheck.Config{
		Source: nginxsync.NewStaticSource(nginxsync.Snapshot{}),
		Checks: []healthcheck.Check{one, named}},
		func(cfg healthcheck.Config) error { _, err := healthcheck.New(cfg); return err },
		map[string][]func(*healthcheck.Config){
			"Source": {func(cfg *healthcheck.Config) { cfg.Source = nil }},
			"Checks": {
				func(cfg *healthcheck.Config) { cfg.Checks = nil },
				only(healthcheck.Check{}),
				only(healthcheck.Check{Probe: one.Probe, Every: -1}),
				only(healthcheck.Check{Probe: one.Probe, Timeout: -1}),
				only(healthcheck.Check{Probe: one.Probe, Rise: -1}),
				only(healthcheck.Check{Probe: one.Probe, Fall: -1}),
				func(cfg *healthcheck.Config) { cfg.Checks = []healthcheck.Check{one, one} },
				func(cfg *healthcheck.Config) { cfg.Checks = []healthcheck.Check{named, named} },
			},
			"Quorum": {
				func(cfg *healthcheck.Config) { cfg.Quorum = -0.1 },
				func(cfg *healthcheck.Config) { cfg.Quorum = 1.1 },
				func(cfg *healthcheck.Config) { cfg.Quorum = math.NaN() },
			},
			"Parallel": {func(cfg *healthcheck.Config) { cfg.Parallel = -1 }},
		}, "Logger", "Now", "Observe")
}

// run runs a checker until the test ends.
func run(t *testing.T, cfg healthcheck.Config) *healthcheck.Checker {
	t.Helper()
	c, err := healthcheck.New(cfg)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return c
}

func TestSource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Harness {
		source := nginxsync.NewStaticSource(nginxsync.Snapshot{})
		c := run(t, healthcheck.Config{Source: source,
			Checks: []healthcheck.Check{{Probe: healthcheck.TCP(), Every: time.Hour}}})
		return &sourcetest.Harness{Source: c, Set: func(s nginxsync.Snapshot) { source.Set(s) }}
	})
}

func TestRunReturnsTheCause(t *testing.T) {
	t.Parallel()
	c, err := healthcheck.New(healthcheck.Config{
		Source: nginxsync.NewStaticSource(nginxsync.Snapshot{}),
		Checks: []healthcheck.Check{{Probe: healthcheck.TCP()}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	require.ErrorIs(t, c.Run(ctx), cause)
}

// instance is an HTTP server whose health is set.
type instance struct {
	nginxsync.Instance
	bad   atomic.Bool
	asked atomic.Int64
}

func serve(t *testing.T, id, version string) *instance {
	t.Helper()
	i := &instance{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		if i.bad.Load() || r.Host != "health.example" || r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	i.Instance = nginxsync.Instance{ID: id, Version: version,
		Addr: netip.MustParseAddrPort(s.Listener.Addr().String())}
	return i
}

func list(instances ...*instance) (out []nginxsync.Instance) {
	for _, i := range instances {
		out = append(out, i.Instance)
	}
	return out
}

// shows waits until the lists of a snapshot have the ids, as "id id", by place.
func shows(t *testing.T, c *healthcheck.Checker, want map[string]string) {
	t.Helper()
	testbed.Poll(t, fmt.Sprint("the routes are ", want), func() error {
		s, _, err := c.Watch(t.Context(), 0)
		if err != nil {
			return err
		}
		got := map[string]string{}
		note := func(scope string, clusters map[string][]nginxsync.Instance) {
			for cluster, instances := range clusters {
				var ids []string
				for _, in := range instances {
					ids = append(ids, in.ID)
				}
				got[scope+cluster] = strings.Join(ids, " ")
			}
		}
		note("", s.Baseline)
		for vip, clusters := range s.Overlays {
			note(vip.String()+"/", clusters)
		}
		for branch, clusters := range s.Branches {
			note("@"+branch+"/", clusters)
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("%v, status %+v", got, c.Status())
		}
		return nil
	})
}

func httpCheck(t *testing.T) healthcheck.Check {
	t.Helper()
	probe, err := healthcheck.HTTP(healthcheck.HTTPConfig{Path: "/healthz",
		Host: "health.example"})
	require.NoError(t, err)
	return healthcheck.Check{Probe: probe, Every: 20 * time.Millisecond, Timeout: 20 * time.Second}
}

func TestInstancesGoAndReturn(t *testing.T) {
	t.Parallel()
	a1, a2, a3, b1 := serve(t, "a1", "v1"), serve(t, "a2", "v1"), serve(t, "a3", "v1"),
		serve(t, "b1", "v1")
	vip := netip.MustParseAddr("10.58.0.2")
	snapshot := nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": list(a1, a2, a3), "b": list(b1)},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vip: {"a": list(a2)}},
		Branches: map[string]map[string][]nginxsync.Instance{"next": {"a": list(a1, a2)}},
	}
	source := nginxsync.NewStaticSource(snapshot)
	one := httpCheck(t)
	one.Clusters = []string{"a"}
	c := run(t, healthcheck.Config{Source: source, Checks: []healthcheck.Check{one}})
	all := map[string]string{"a": "a1 a2 a3", "b": "b1", "10.58.0.2/a": "a2", "@next/a": "a1 a2"}
	shows(t, c, all)
	testbed.Poll(t, "all were asked", func() error {
		for _, i := range []*instance{a1, a2, a3} {
			if i.asked.Load() == 0 {
				return errors.New("not yet")
			}
		}
		return nil
	})

	// The only instance of an overlay stays: there is no other one to ask.
	a2.bad.Store(true)
	shows(t, c, map[string]string{"a": "a1 a3", "b": "b1", "10.58.0.2/a": "a2", "@next/a": "a1"})
	status := c.Status()
	require.Equal(t, 3, status.Checked)
	require.Len(t, status.Failing, 1)
	require.Equal(t, 3, status.Failing[0].Lists)
	require.Equal(t, 1, status.Failing[0].Kept)
	require.Contains(t, status.Failing[0].String(), fmt.Sprintf("a a2 at %s is out of 2 of 3 "+
		"lists since ", a2.Addr))
	require.Contains(t, status.Failing[0].String(), "GET /healthz: status 503, want 200 to 399")

	// Half of the instances, rounded up, stay in any case: the last to fail.
	a3.bad.Store(true)
	shows(t, c, map[string]string{"a": "a1 a3", "b": "b1", "10.58.0.2/a": "a2", "@next/a": "a1"})
	testbed.Poll(t, "two fail", func() error {
		if n := len(c.Status().Failing); n != 2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	shows(t, c, map[string]string{"a": "a1 a3", "b": "b1", "10.58.0.2/a": "a2", "@next/a": "a1"})

	a2.bad.Store(false)
	a3.bad.Store(false)
	shows(t, c, all)
	require.Empty(t, c.Status().Failing)
	require.Zero(t, b1.asked.Load(), "b has no check")
}

// An instance that is gone is not asked any more, and one that takes its place begins as good.
func TestReplacedInstance(t *testing.T) {
	t.Parallel()
	old, other := serve(t, "a1", "v1"), serve(t, "a2", "v1")
	old.bad.Store(true)
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": list(old, other)}})
	check := httpCheck(t)
	c := run(t, healthcheck.Config{Source: source, Checks: []healthcheck.Check{check}})
	shows(t, c, map[string]string{"a": "a2"})
	next := serve(t, "a1", "v2")
	source.Set(nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": list(next, other)}})
	shows(t, c, map[string]string{"a": "a1 a2"})
	require.Empty(t, c.Status().Failing)
	// A probe that was sent already may still arrive; then there is none for as long as the other
	// instance is asked ten times.
	testbed.Poll(t, "the instance of before rests", func() error {
		before, others := old.asked.Load(), other.asked.Load()
		testbed.Poll(t, "the other one is asked", func() error {
			if other.asked.Load() < others+10 {
				return errors.New("not yet")
			}
			return nil
		})
		if old.asked.Load() != before {
			return errors.New("it is asked")
		}
		return nil
	})
}

// faulty is a source that fails while an error is set.
type faulty struct {
	*nginxsync.StaticSource
	err   atomic.Pointer[error]
	after atomic.Uint64 // of the last call that met no error
}

func (f *faulty) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	if err := f.err.Load(); err != nil {
		return nginxsync.Snapshot{}, 0, *err
	}
	f.after.Store(after)
	return f.StaticSource.Watch(ctx, after)
}

// While the source is away, its error is told for two seconds, and checks go on to take effect.
func TestSourceThatFails(t *testing.T) {
	t.Parallel()
	a1, a2 := serve(t, "a1", "v1"), serve(t, "a2", "v1")
	source := &faulty{StaticSource: nginxsync.NewStaticSource(nginxsync.Snapshot{})}
	away := errors.New("away")
	source.err.Store(&away)
	var late atomic.Int64
	c := run(t, healthcheck.Config{Source: source, Checks: []healthcheck.Check{httpCheck(t)},
		Now: func() time.Time { return time.Unix(late.Load(), 0) }})
	late.Store(60)
	_, _, err := c.Watch(t.Context(), 0)
	require.ErrorIs(t, err, away, "there is nothing to show instead")

	source.err.Store(nil)
	revision := source.Set(nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": list(a1, a2)}})
	require.NotZero(t, revision)
	shows(t, c, map[string]string{"a": "a1 a2"})
	testbed.Poll(t, "the checker waits for the next snapshot", func() error {
		if after := source.after.Load(); after != revision {
			return fmt.Errorf("it has revision %d, want %d", after, revision)
		}
		return nil
	})
	source.err.Store(&away)
	source.Set(nginxsync.Snapshot{ // ends the call of the source that waits
		Baseline: map[string][]nginxsync.Instance{"a": list(a1, a2), "b": list(a1)}})
	shows(t, c, map[string]string{"a": "a1 a2", "b": "a1"})
	_, revision, err = c.Watch(t.Context(), 0)
	require.NoError(t, err)
	_, _, err = c.Watch(t.Context(), revision)
	require.ErrorIs(t, err, away)

	late.Add(60)
	a2.bad.Store(true)
	shows(t, c, map[string]string{"a": "a1", "b": "a1"})
	s, _, err := c.Watch(t.Context(), revision)
	require.NoError(t, err, "the change comes before the error")
	require.Len(t, s.Baseline["a"], 1)
}
