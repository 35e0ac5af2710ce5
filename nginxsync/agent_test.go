package nginxsync_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// memoryDriver stands for an Nginx with one worker that answers with the routes as soon as it has
// accepted them.
type memoryDriver struct {
	mu     sync.Mutex
	routes nginxsync.Routes
	epoch  uint64
	writer string
	full   int // deltas that were full
}

func (d *memoryDriver) Apply(_ context.Context, delta nginxsync.Delta) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if delta.Epoch < d.epoch || delta.Epoch == d.epoch && delta.Writer != d.writer {
		return nginxsync.ErrFenced
	}
	if d.routes, err = d.routes.Apply(delta); err == nil {
		d.epoch, d.writer = delta.Epoch, delta.Writer
		if delta.Full {
			d.full++
		}
	}
	return err
}

func (d *memoryDriver) Routes(context.Context) (nginxsync.Routes, error) { return d.now(), nil }

func (d *memoryDriver) State(context.Context) (nginxsync.DriverState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.routes.Generation
	return nginxsync.DriverState{Applied: g, Workers: []nginxsync.Worker{{PID: 1, Applied: g}},
		Epoch: d.epoch, Writer: d.writer}, nil
}

func (d *memoryDriver) now() nginxsync.Routes {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.routes
}

// running starts an agent that ends with the test.
func running(t *testing.T, cfg nginxsync.Config) *nginxsync.Agent {
	t.Helper()
	agent, err := nginxsync.OpenAgent(t.Context(), cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { agent.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return agent
}

// lines collects log lines.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func TestSetAside(t *testing.T) {
	t.Parallel()
	var log lines
	driver := &memoryDriver{}
	poisoned := nginxsync.Snapshot{Baseline: clusters{"a": serves("i1")},
		Overlays: overlays{vip: {"hello web": serves("i2"), "a": serves("i3")}}}
	source := nginxsync.NewStaticSource(poisoned)
	agent := running(t, nginxsync.Config{Source: source, Driver: driver,
		Logger: slog.New(slog.NewTextHandler(&log, nil))})

	require.NoError(t, agent.WaitVerified(t.Context(), 1))
	require.Equal(t, nginxsync.Snapshot{Baseline: clusters{"a": serves("i1")},
		Overlays: overlays{vip: {"a": serves("i3")}}}.Canonical(), driver.now().Snapshot)
	status := agent.Status()
	require.Len(t, status.SetAside, 1)
	require.Equal(t, vip, status.SetAside[0].VIP)
	require.Equal(t, "hello web", status.SetAside[0].Cluster)
	require.Contains(t, status.SetAside[0].Reason, "byte 6 is ' '")
	require.Empty(t, status.SourceError)

	// The same record in a later snapshot is not logged again.
	poisoned.Baseline = clusters{"a": serves("i1", "i4")}
	require.NoError(t, agent.WaitVerified(t.Context(), source.Set(poisoned)))
	require.Equal(t, 1, log.count("record set aside"))
	require.Len(t, agent.Status().SetAside, 1)

	poisoned.Overlays, poisoned.Planned = nil, []nginxsync.Intent{{VIP: vip}}
	require.NoError(t, agent.WaitVerified(t.Context(), source.Set(poisoned)))
	require.Empty(t, agent.Status().SetAside)
}

// A baseline whose instances are all set aside is an emptying change: the last good ones stay.
func TestSetAsideBaselineIsHeld(t *testing.T) {
	t.Parallel()
	driver := &memoryDriver{}
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{Baseline: clusters{"a": serves("i1")}})
	agent := running(t, nginxsync.Config{Source: source, Driver: driver})
	require.NoError(t, agent.WaitVerified(t.Context(), 1))
	bad := serves("i1")
	bad[0].Weight = -1
	require.ErrorIs(t, agent.WaitVerified(t.Context(),
		source.Set(nginxsync.Snapshot{Baseline: clusters{"a": bad}})), nginxsync.ErrHeld)
	require.Equal(t,
		clusters{"a": nginxsync.Snapshot{Baseline: clusters{"a": serves("i1")}}.Canonical().Baseline["a"]}, driver.now().Snapshot.Baseline)
	require.Equal(t, "a", agent.Status().Held[0].Cluster)
}

// A state file of an earlier version may have names that a snapshot may not have now.
func TestStateFileWithOldNames(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "routes")
	old := nginxsync.NewRoutes(7, nginxsync.Snapshot{Baseline: clusters{"Hello/Web+": {{ID: "c/1",
		Addr: serves("i")[0].Addr, Version: "1.0+5"}}}})
	text, err := old.MarshalText()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	driver := &memoryDriver{}
	source := nginxsync.NewStaticSource(
		nginxsync.Snapshot{Baseline: clusters{"Hello/Web+": old.Snapshot.Baseline["Hello/Web+"],
			"b": serves("i1")}})
	agent := running(t, nginxsync.Config{Source: source, Driver: driver, StateFile: file})
	require.ErrorIs(t, agent.WaitVerified(t.Context(), 1), nginxsync.ErrHeld)
	require.Equal(t, old.Snapshot.Baseline["Hello/Web+"],
		driver.now().Snapshot.Baseline["Hello/Web+"], "held as it was")
	require.Len(t, driver.now().Snapshot.Baseline["b"], 1)
	require.Equal(t, "Hello/Web+", agent.Status().Held[0].Cluster)
}

func TestWatch(t *testing.T) {
	t.Parallel()
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{Baseline: clusters{"a": serves("i1")}})
	var mu sync.Mutex
	seen := map[string]int{}
	agent := running(t, nginxsync.Config{Source: source, Driver: &memoryDriver{},
		StateFile: filepath.Join(t.TempDir(), "routes"),
		Observe: func(op string, _ time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				seen[op]++
			}
		}})
	var after uint64
	for {
		status, revision, err := agent.Watch(t.Context(), after)
		require.NoError(t, err)
		require.Greater(t, revision, after)
		if after = revision; status.SavedRevision == 1 {
			break
		}
	}
	mu.Lock()
	counts := maps.Clone(seen)
	mu.Unlock()
	require.Equal(t, 1, counts["apply"])
	require.Equal(t, 1, counts["save"])
	require.GreaterOrEqual(t, counts["state"], 2)

	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, _, err := agent.Watch(ctx, 0)
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, agent.WaitVerified(ctx, 99), cause)
	_, err = nginxsync.OpenAgent(ctx, nginxsync.Config{Source: source, Driver: &memoryDriver{},
		StateFile: "x"})
	require.ErrorIs(t, err, cause)
}
