package promote_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
)

// world is a Deployer that keeps its contract: the deployment of each target and the highest
// generation seen there.
type world struct {
	mu    sync.Mutex
	runs  map[promote.Target]promote.Digest
	seen  map[promote.Target]uint64
	calls int
	// fault, when not nil, is asked before each call. Its error is returned with nothing done.
	fault func(ctx context.Context, d promote.Deployment) error
}

func newWorld() *world {
	return &world{runs: map[promote.Target]promote.Digest{}, seen: map[promote.Target]uint64{}}
}

func (w *world) Deploy(ctx context.Context, d promote.Deployment) error {
	return w.act(ctx, d, func() { w.runs[d.Target] = d.Digest })
}

func (w *world) Remove(ctx context.Context, d promote.Deployment) error {
	return w.act(ctx, d, func() { delete(w.runs, d.Target) })
}

func (w *world) act(ctx context.Context, d promote.Deployment, do func()) error {
	w.mu.Lock()
	fault := w.fault
	w.mu.Unlock()
	if fault != nil {
		if err := fault(ctx, d); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if d.Generation < w.seen[d.Target] {
		return fmt.Errorf("generation %d after %d: %w", d.Generation, w.seen[d.Target],
			promote.ErrFenced)
	}
	before, again := w.runs[d.Target], d.Generation == w.seen[d.Target]
	w.seen[d.Target] = d.Generation
	do()
	if again && before != w.runs[d.Target] {
		panic(fmt.Sprintf("generation %d of %s asked for %q, then for %q", d.Generation, d.Target,
			before, w.runs[d.Target]))
	}
	return nil
}

func (w *world) setFault(f func(context.Context, promote.Deployment) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

// newest returns the newest generation that was seen at a target.
func (w *world) newest(t promote.Target) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[t]
}

func (w *world) see(d promote.Deployment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[d.Target] = d.Generation
}

func (w *world) snapshot() map[promote.Target]promote.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	runs := map[promote.Target]promote.Digest{}
	for t, d := range w.runs {
		runs[t] = d
	}
	return runs
}

// digest returns a digest that is easy to recognize: n repeated.
func digest(n int) promote.Digest {
	return promote.Digest("sha256:" + strings.Repeat(fmt.Sprintf("%02x", n), 32))
}

func in(environment string) promote.Target {
	return promote.Target{Cluster: "web", Environment: environment}
}

func request(environment, version string) promote.Request {
	return promote.Request{Expect: promote.Any, Target: in(environment), Version: version,
		Actor: "alice"}
}

func binding(version string, d promote.Digest) promote.Binding {
	return promote.Binding{Cluster: "web", Version: version, Digest: d,
		Repository: "registry:5000/web", Actor: "ci"}
}

// clock ticks one second each time that it is read.
func clock() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

func newPromoter(t *testing.T, config promote.Config) *promote.Promoter {
	t.Helper()
	if config.Now == nil {
		config.Now = clock()
	}
	if config.MaxSkew == 0 {
		config.MaxSkew = 24 * time.Hour // the clocks of two promoters tick by themselves
	}
	if config.Retry == 0 {
		config.Retry = time.Microsecond
	}
	p, err := promote.New(config)
	require.NoError(t, err)
	return p
}

// setup returns a promoter on a new world, with v1 to v3 of web bound.
func setup(t *testing.T, gates ...promote.Gate) (*promote.Promoter, *world) {
	t.Helper()
	w := newWorld()
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: w, Gates: gates})
	for n := 1; n <= 3; n++ {
		require.NoError(t, p.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	return p, w
}

// requireAgrees compares the journal's current deployments with the world's.
func requireAgrees(t require.TestingT, ctx context.Context, p *promote.Promoter, w *world) {
	current, err := p.Current(ctx)
	require.NoError(t, err)
	runs := map[promote.Target]promote.Digest{}
	for _, d := range current {
		runs[d.Target] = d.Digest
	}
	require.Equal(t, w.snapshot(), runs)
}
