package cutoff

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// memory is a driver that keeps routes in memory, and whose calls may fail after their effect.
type memory struct {
	routes nginxsync.Routes
	apply  error
	reads  int
}

func (s *memory) Apply(_ context.Context, d nginxsync.Delta) error {
	next, err := s.routes.Apply(d)
	if err == nil {
		s.routes = next
	}
	return errors.Join(err, s.apply)
}

func (s *memory) State(context.Context) (nginxsync.DriverState, error) {
	return nginxsync.DriverState{Applied: s.routes.Generation}, nil
}

func (s *memory) Routes(context.Context) (nginxsync.Routes, error) {
	s.reads++
	return s.routes, nil
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := New(Config{After: -1, Retry: -1})
	for _, field := range []string{"Driver", "After", "Retry"} {
		require.ErrorContains(t, err, "cutoff: Config."+field+": ")
	}
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
	d, err := New(Config{Driver: &memory{}})
	require.NoError(t, err)
	_, err = d.InFlight(t.Context(), nil)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// A driver that starts on an Nginx with routes, or whose push may have failed, reads them back
// once; pushes that follow one another read nothing.
func TestRoutesAreReadBackOnce(t *testing.T) {
	t.Parallel()
	on := func(number uint64, addr netip.AddrPort) nginxsync.Routes {
		return nginxsync.NewRoutes(number, nginxsync.Snapshot{
			Baseline: map[string][]nginxsync.Instance{"a": {instance("1", "v1", addr)}}})
	}
	inner := &memory{routes: on(1, first)}
	d, err := New(Config{Driver: inner})
	require.NoError(t, err)
	push := func(next nginxsync.Routes) error {
		return d.Apply(t.Context(), nginxsync.NewDelta(inner.routes, next))
	}
	require.NoError(t, push(on(2, second)))
	require.Equal(t, 1, inner.reads)
	require.Contains(t, d.ledger.gone, first)
	require.NoError(t, push(on(3, first)))
	require.NoError(t, push(on(4, second)))
	require.Equal(t, 1, inner.reads)
	inner.apply = errors.New("the answer was lost")
	require.ErrorIs(t, push(on(5, first)), inner.apply)
	inner.apply = nil
	require.NoError(t, push(on(6, second)))
	require.Equal(t, 2, inner.reads)
	require.Contains(t, d.ledger.gone, first)
	require.NotContains(t, d.ledger.gone, second)
	require.Equal(t, inner.routes.Generation, d.ledger.at)
}

// apart is a driver that notes whether it was asked for its state during a push.
type apart struct {
	memory
	pushes atomic.Bool
	met    atomic.Bool
	swept  atomic.Int64
}

func (a *apart) Apply(ctx context.Context, d nginxsync.Delta) error {
	a.pushes.Store(true)
	defer a.pushes.Store(false)
	runtime.Gosched()
	return a.memory.Apply(ctx, d)
}

func (a *apart) State(context.Context) (nginxsync.DriverState, error) {
	if a.pushes.Load() {
		a.met.Store(true)
	}
	a.swept.Add(1)
	return nginxsync.DriverState{}, nil
}

// No connection is ended during a push, which may bring its address back.
func TestEndsNothingDuringAPush(t *testing.T) {
	t.Parallel()
	var inner apart
	d, err := New(Config{Driver: &inner, After: time.Nanosecond})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	for number := uint64(1); number < 200 || inner.swept.Load() < 20; number++ {
		addr := []netip.AddrPort{first, second}[number%2]
		next := nginxsync.NewRoutes(number, nginxsync.Snapshot{
			Baseline: map[string][]nginxsync.Instance{"a": {instance("1", "v1", addr)}}})
		require.NoError(t, d.Apply(t.Context(), nginxsync.NewDelta(inner.routes, next)))
	}
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.False(t, inner.met.Load())
	<-d.turn // of a push that does not end
	require.ErrorIs(t, d.Apply(ctx, nginxsync.Delta{Full: true}), context.Canceled)
}

// The next process knows the addresses that left when this one did, unless they are in the routes;
// a file that is damaged is said and replaced.
func TestNextProcessKnowsWhatLeft(t *testing.T) {
	t.Parallel()
	on := func(number uint64, addr netip.AddrPort) nginxsync.Routes {
		return nginxsync.NewRoutes(number, nginxsync.Snapshot{
			Baseline: map[string][]nginxsync.Instance{"a": {instance("1", "v1", addr)}}})
	}
	inner := &memory{routes: on(1, first)}
	file := filepath.Join(t.TempDir(), "gone")
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	begin := func() *Driver {
		d, err := New(Config{Driver: inner, File: file, After: time.Hour,
			Now: func() time.Time { return at }})
		require.NoError(t, err)
		d.begin()
		return d
	}
	d := begin()
	d.save() // the routes are not known yet
	require.NoFileExists(t, file)
	require.NoError(t, d.Apply(t.Context(), nginxsync.NewDelta(inner.routes, on(2, second))))
	d.save()
	require.Equal(t, Status{Waiting: 1, Error: d.unable}, d.Status())

	began := at
	at = at.Add(30 * time.Minute)
	d = begin()
	wait, waits := d.sweep(t.Context())
	require.False(t, waits, "an address may be in the routes, which are not known: %s", wait)
	_, err := d.Routes(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[netip.AddrPort]left{first: {map[owner]int{{"a", "1", "v1"}: 1}, began}},
		d.ledger.gone)
	wait, waits = d.sweep(t.Context())
	require.True(t, waits)
	require.Equal(t, 30*time.Minute, wait)

	inner.routes = on(3, first) // it came back while no process looked
	d = begin()
	_, err = d.Routes(t.Context())
	require.NoError(t, err)
	require.Empty(t, d.ledger.gone)
	d.save()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "{\"gone\":[]}\n", string(data))

	require.NoError(t, os.WriteFile(file, []byte(`{"gone": [{"addr": "x"}]}`), 0o600))
	d = begin()
	require.Contains(t, d.Status().FileError, file)
	require.NoError(t, d.Apply(t.Context(), nginxsync.NewDelta(inner.routes, on(4, second))))
	d.save()
	require.Empty(t, d.Status().FileError)
	require.Equal(t, 1, begin().Status().Waiting)
}
