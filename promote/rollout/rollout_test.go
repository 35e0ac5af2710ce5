package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/deployertest"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/promote/rollout/rollouttest"
)

func TestImports(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/promote/rollout", "net/http")
}

func TestMemRecords(t *testing.T) {
	t.Parallel()
	rollouttest.Run(t, rollouttest.Harness{Records: func(*testing.T) rollout.Records {
		return rollout.NewMemRecords()
	}})
}

func image(n int) rollout.Image {
	return rollout.Image{Version: fmt.Sprint("v", n), Digest: digest(n),
		Repository: "registry:5000/web"}
}

// targets returns a function that returns another target each time.
func targets() func() promote.Target {
	var n atomic.Int64
	return func() promote.Target {
		return promote.Target{Cluster: fmt.Sprint("web", n.Add(1)), Environment: "test", Task: "t"}
	}
}

func TestWorld(t *testing.T) {
	t.Parallel()
	w := rollouttest.NewWorld(digest(brokenImage))
	target := targets()
	rollouttest.Run(t, rollouttest.Harness{
		Instances: func(*testing.T) rollouttest.InstancesHarness {
			return rollouttest.InstancesHarness{Instances: w,
				Images: [2]rollout.Image{image(1), image(2)}, Broken: image(brokenImage),
				Target: target, Crash: func(*testing.T) rollout.Instances { return w }}
		},
		Routes: func(*testing.T) rollouttest.RoutesHarness {
			return rollouttest.RoutesHarness{
				Routes: w, Target: target,
				Instance: func(t *testing.T, target promote.Target, n uint64) rollout.Instance {
					i, err := w.Start(t.Context(), rollout.Spec{
						ID: rollout.InstanceID(target, 1, n), Target: target, Image: image(1),
						Generation: 1, Number: n})
					require.NoError(t, err)
					return i
				},
				Ask: func(_ *testing.T, target promote.Target) string { return w.Ask(target) },
				Hold: func(_ *testing.T, target promote.Target) (func(), <-chan string) {
					id, release := w.Hold(target)
					done := make(chan string, 1)
					return sync.OnceFunc(func() { release(); done <- id }), done
				},
			}
		},
	})
}

// TestDeployer: a Rollout keeps the contract of a Deployer, with any policy.
func TestDeployer(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]rollout.Policy{
		"one":          {},
		"three":        {Count: 3},
		"in batches":   {Count: 3, Surge: 1},
		"within count": {Count: 3, Unavailable: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, recs := rollouttest.NewWorld(digest(brokenImage)), rollout.NewMemRecords()
			over := func(t *testing.T, store rollout.Records, on world) promote.Deployer {
				r, err := rollout.New(rollout.Config{Records: store, Instances: on, Routes: on,
					Policy: func(promote.Target) rollout.Policy { return policy }})
				require.NoError(t, err)
				return r
			}
			open := func(t *testing.T) promote.Deployer { return over(t, recs, w) }
			deployertest.Run(t, func(t *testing.T) deployertest.Harness {
				return deployertest.Harness{
					Deployer: open(t),
					Images: [2]promote.Deployment{deployment(web, 1, 0),
						deployment(web, 2, 0)},
					Broken: deployment(web, brokenImage, 0),
					Target: targets(),
					Running: func(_ *testing.T, target promote.Target) (list []promote.Digest) {
						for _, i := range w.Instances(target) {
							list = append(list, i.Image.Digest)
						}
						return list
					},
					Crash: open,
					CrashAt: func(t *testing.T, n int) promote.Deployer {
						c := &dying{world: w, left: n}
						return over(t, records{recs, c.fault}, c)
					},
				}
			})
			require.Empty(t, w.Breaches())
		})
	}
}

// world is the two parts of a rollout that a World is.
type world interface {
	rollout.Instances
	rollout.Routes
}

// dying is the world as one process sees it that is killed before a step: from then on every step
// of it fails. A drain is no step, for it changes nothing.
type dying struct {
	world
	mu   sync.Mutex
	left int
}

func (d *dying) fault(_, _ string, done bool) error {
	if done {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left--; d.left < 0 {
		return errCrash
	}
	return nil
}

func (d *dying) Start(ctx context.Context, spec rollout.Spec) (rollout.Instance, error) {
	if err := d.fault("", "", false); err != nil {
		return rollout.Instance{}, err
	}
	return d.world.Start(ctx, spec)
}

func (d *dying) Stop(ctx context.Context, id string) error {
	if err := d.fault("", "", false); err != nil {
		return err
	}
	return d.world.Stop(ctx, id)
}

func (d *dying) Apply(ctx context.Context, a rollout.Assignment) error {
	if err := d.fault("", "", false); err != nil {
		return err
	}
	return d.world.Apply(ctx, a)
}

func (d *dying) List(ctx context.Context) ([]rollout.Instance, error) {
	if err := d.fault("", "", false); err != nil {
		return nil, err
	}
	return d.world.List(ctx)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	w := rollouttest.NewWorld()
	good := rollout.Config{Records: rollout.NewMemRecords(), Instances: w, Routes: w}
	_, err := rollout.New(good)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		change func(*rollout.Config)
		want   string
	}{
		"Records":   {func(c *rollout.Config) { c.Records = nil }, "Config.Records: nil"},
		"Instances": {func(c *rollout.Config) { c.Instances = nil }, "Config.Instances: nil"},
		"Routes":    {func(c *rollout.Config) { c.Routes = nil }, "Config.Routes: nil"},
		"Progress":  {func(c *rollout.Config) { c.Progress = -1 }, "Config.Progress: -1ns"},
		"Drain":     {func(c *rollout.Config) { c.Drain = -1 }, "Config.Drain: -1ns"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
			tc.change(&cfg)
			_, err := rollout.New(cfg)
			require.ErrorIs(t, err, promote.ErrInvalid)
			require.ErrorContains(t, err, tc.want)
		})
	}
	_, err = rollout.New(rollout.Config{})
	for _, field := range []string{"Records", "Instances", "Routes"} {
		require.ErrorContains(t, err, "Config."+field)
	}
	for name, policy := range map[string]rollout.Policy{"Count": {Count: -1}, "Surge": {Surge: -1},
		"SurgePercent": {SurgePercent: 101}, "UnavailablePercent": {UnavailablePercent: -1},
		"SurgePercent: 5 beside Surge: 1": {Surge: 1, SurgePercent: 5},
		"Unavailable":                     {Unavailable: -1}, "Pause": {Pause: -1}, "Retain": {Retain: -1}} {
		good.Policy = func(promote.Target) rollout.Policy { return policy }
		r, err := rollout.New(good)
		require.NoError(t, err)
		err = r.Deploy(t.Context(), deployment(web, 1, 1))
		require.ErrorIs(t, err, promote.ErrInvalid)
		require.ErrorContains(t, err, "Policy."+name)
	}
	require.Empty(t, w.Instances(web))
}

func TestInstanceID(t *testing.T) {
	t.Parallel()
	require.Equal(t, "web-test-t1-g7-1", rollout.InstanceID(web, 7, 1))
	require.Equal(t, "web-stable-g7-12",
		rollout.InstanceID(promote.Target{Cluster: "web", Environment: "stable"}, 7, 12))
	long := promote.Target{Cluster: strings.Repeat("c", names.MaxCluster), Environment: "test",
		Task: strings.Repeat("t", 62)}
	first := rollout.InstanceID(long, 1<<64-1, 1<<64-1)
	require.NoError(t, names.Instance(first))
	long.Task += "t"
	require.NotEqual(t, first, rollout.InstanceID(long, 1<<64-1, 1<<64-1))
}

// watched is a Rollout on a World, and its events.
type watched struct {
	*rollout.Rollout
	world   *rollouttest.World
	records rollout.Records
	events  chan rollout.Event
}

func watch(t *testing.T, policy rollout.Policy, change func(*rollout.Config)) watched {
	w := watched{world: rollouttest.NewWorld(digest(brokenImage)),
		records: rollout.NewMemRecords(), events: make(chan rollout.Event, 1000)}
	cfg := rollout.Config{Records: w.records, Instances: w.world, Routes: w.world,
		Policy: func(promote.Target) rollout.Policy { return policy },
		Events: func(e rollout.Event) { w.events <- e }}
	if change != nil {
		change(&cfg)
	}
	r, err := rollout.New(cfg)
	require.NoError(t, err)
	w.Rollout = r
	return w
}

// kinds takes the events that there are and returns their kinds and instances.
func (w watched) kinds() (list []string) {
	for {
		select {
		case e := <-w.events:
			list = append(list, strings.TrimSpace(string(e.Kind)+" "+e.Instance))
		default:
			return list
		}
	}
}

// await takes events until one of this kind.
func (w watched) await(t *testing.T, kind rollout.EventKind) rollout.Event {
	t.Helper()
	for deadline := time.After(time.Minute); ; {
		select {
		case e := <-w.events:
			if e.Kind == kind {
				return e
			}
		case <-deadline:
			t.Fatalf("no event %s in a minute", kind)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	w := watch(t, rollout.Policy{}, func(c *rollout.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
	require.Equal(t, []string{"starting web-test-t1-g1-1", "ready web-test-t1-g1-1", "routed",
		"done"}, w.kinds())
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 2, 2)))
	require.Equal(t, []string{"starting web-test-t1-g2-1", "ready web-test-t1-g2-1", "routed",
		"drained web-test-t1-g1-1", "ended web-test-t1-g1-1", "done"}, w.kinds())
	require.Error(t, w.Deploy(t.Context(), deployment(web, brokenImage, 3)))
	require.Equal(t, []string{"starting web-test-t1-g3-1", "stopped web-test-t1-g3-1"}, w.kinds())
	require.Equal(t, 12, strings.Count(log.String(), "\n"))
	require.Contains(t, log.String(), `level=WARN msg="rollout stopped"`)
}

// A restore while the old instances are kept moves the routes and starts nothing.
func TestRestoreIsARouteFlip(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	w := watch(t, rollout.Policy{Count: 2, Retain: time.Minute}, func(c *rollout.Config) {
		c.Now = func() time.Time { return now }
	})
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 2, 2)))
	require.Len(t, w.world.Instances(web), 4)
	_ = w.kinds()
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 3)))
	require.Equal(t, []string{"routed", "done"}, w.kinds())
	require.Equal(t, "web-test-t1-g1-1", w.world.Routed(web)[0].ID)
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 3, 4)))
	for _, i := range w.world.Instances(web) {
		require.NotEqual(t, digest(2), i.Image.Digest, "the image before the one before is over")
	}
	require.NoError(t, w.Tidy(t.Context()))
	require.Len(t, w.world.Instances(web), 4)
	now = now.Add(2 * time.Minute)
	require.NoError(t, w.Tidy(t.Context()))
	require.Len(t, w.world.Instances(web), 2)
	require.Empty(t, w.world.Breaches())
}

func TestPause(t *testing.T) {
	t.Parallel()
	w := watch(t, rollout.Policy{Count: 3, Surge: 1}, nil)
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
	require.ErrorIs(t, w.Pause(t.Context(), targets()()), rollout.ErrNotFound)
	require.ErrorIs(t, w.Continue(t.Context(), targets()()), rollout.ErrNotFound)
	require.NoError(t, w.Continue(t.Context(), web), "it is not paused")
	require.NoError(t, w.Restart(t.Context(), web))
	require.NoError(t, w.Pause(t.Context(), web))
	ended := make(chan error, 1)
	go func() { ended <- w.Restart(t.Context(), web) }()
	w.await(t, rollout.EventPaused)
	require.NoError(t, w.Pause(t.Context(), web), "twice is once")
	require.Len(t, w.world.Instances(web), 3, "nothing has started")
	require.NoError(t, w.Continue(t.Context(), web))
	require.NoError(t, <-ended)
	require.NoError(t, w.Restart(t.Context(), web), "no pause is left")
	require.Empty(t, w.world.Breaches())

	require.NoError(t, w.Pause(t.Context(), web))
	go func() { ended <- w.Restart(t.Context(), web) }()
	w.await(t, rollout.EventPaused)
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 2, 2)), "a newer change goes on")
	require.ErrorIs(t, <-ended, promote.ErrFenced)
}

func TestCheckStopsTheRollout(t *testing.T) {
	t.Parallel()
	refused := errors.New("5 % errors")
	var batches []rollout.Batch
	w := watch(t, rollout.Policy{Count: 4, Surge: 1}, func(c *rollout.Config) {
		c.Check = func(_ context.Context, b rollout.Batch) error {
			if batches = append(batches, b); b.Generation == 2 && len(b.Serving) == 2 {
				return refused
			}
			return nil
		}
	})
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
	err := w.Deploy(t.Context(), deployment(web, 2, 2))
	require.ErrorIs(t, err, refused)
	var stopped *rollout.StoppedError
	require.ErrorAs(t, err, &stopped)
	require.Equal(t, rollout.ReasonCheck, stopped.Reason)
	require.Equal(t, 2, stopped.Serving)
	require.Equal(t, 4, stopped.Count)
	require.Equal(t, 4, batches[0].Count)
	_ = w.kinds()
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 3)), "as Promoter restores")
	require.NotContains(t, strings.Join(w.kinds(), " "), "starting web-test-t1-g3-3",
		"those that live serve again")
	require.Empty(t, w.world.Breaches())
}

// An instance that was ready and breaks before it serves stops the rollout: others would break,
// too.
func TestInstanceIsLost(t *testing.T) {
	t.Parallel()
	w := watch(t, rollout.Policy{Count: 2}, nil)
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
	w.world.Fault = func(op, subject string, done bool) error {
		if op == "start" && done {
			w.world.Break(subject, rollout.Down)
		}
		return nil
	}
	err := w.Deploy(t.Context(), deployment(web, 2, 2))
	var stopped *rollout.StoppedError
	require.ErrorAs(t, err, &stopped)
	require.Equal(t, rollout.ReasonLost, stopped.Reason)
	require.Equal(t, "web-test-t1-g2-1", stopped.Instance)
	require.Len(t, w.world.Instances(web), 2)
	for _, i := range w.world.Routed(web) {
		require.Equal(t, digest(1), i.Image.Digest)
	}
}

// Every step has its deadline, and the drain: then the requests that are left are cut.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		op     string
		reason rollout.Reason
	}{
		"start": {"start", rollout.ReasonStart},
		"apply": {"apply", rollout.ReasonRoutes},
		"stop":  {"stop", rollout.ReasonStop},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h hanging
			w := watch(t, rollout.Policy{}, func(c *rollout.Config) {
				h.World = c.Routes.(*rollouttest.World)
				c.Instances, c.Routes, c.Progress = &h, &h, 2*time.Second
			})
			require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
			h.op.Store(tc.op)
			err := w.Deploy(t.Context(), deployment(web, 2, 2))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			var stopped *rollout.StoppedError
			require.ErrorAs(t, err, &stopped)
			require.Equal(t, tc.reason, stopped.Reason)
			h.op.Store("")
			require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 3)))
			require.Equal(t, digest(1), w.world.Routed(web)[0].Image.Digest)
			require.Len(t, w.world.Instances(web), 1)
		})
	}
	t.Run("drain", func(t *testing.T) {
		t.Parallel()
		var h hanging
		w := watch(t, rollout.Policy{}, func(c *rollout.Config) {
			h.World = c.Routes.(*rollouttest.World)
			c.Instances, c.Routes, c.Drain = &h, &h, 10*time.Millisecond
		})
		require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
		h.op.Store("drain")
		require.NoError(t, w.Deploy(t.Context(), deployment(web, 2, 2)))
		require.Contains(t, w.await(t, rollout.EventCut).Error, "the drain took more than 10ms")
		require.Len(t, w.world.Instances(web), 1)
	})
}

// hanging is a World one of whose calls hangs until its context ends.
type hanging struct {
	*rollouttest.World
	op atomic.Value
}

func (h *hanging) hang(ctx context.Context, op string) error {
	if h.op.Load() == op {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func (h *hanging) Start(ctx context.Context, spec rollout.Spec) (rollout.Instance, error) {
	i, err := h.World.Start(ctx, spec)
	return i, errors.Join(err, h.hang(ctx, "start"))
}

func (h *hanging) Stop(ctx context.Context, id string) error {
	if err := h.hang(ctx, "stop"); err != nil {
		return err
	}
	return h.World.Stop(ctx, id)
}

func (h *hanging) Apply(ctx context.Context, a rollout.Assignment) error {
	return errors.Join(h.World.Apply(ctx, a), h.hang(ctx, "apply"))
}

func (h *hanging) Drain(ctx context.Context, list []rollout.Instance) error {
	return errors.Join(h.World.Drain(ctx, list), h.hang(ctx, "drain"))
}

// TestUnavailable: a part that cannot be asked once leaves the rollout where it is, and the next
// call under the same generation goes on from there.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"list", "start", "apply", "stop"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			w := watch(t, rollout.Policy{Count: 2}, nil)
			require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
			var asked atomic.Bool
			w.world.Fault = func(now, _ string, done bool) error {
				if now != op || done || asked.Swap(true) {
					return nil
				}
				return fmt.Errorf("connection refused: %w", promote.ErrUnavailable)
			}
			err := w.Deploy(t.Context(), deployment(web, 2, 2))
			require.ErrorIs(t, err, promote.ErrUnavailable)
			require.Len(t, w.world.Routed(web), 2)
			rec, err := w.records.Get(t.Context(), web)
			require.NoError(t, err)
			require.False(t, rec.Done)
			require.NoError(t, w.Deploy(t.Context(), deployment(web, 2, 2)))
			require.NotContains(t, w.kinds(), string(rollout.EventStopped))
			for _, i := range w.world.Instances(web) {
				require.Equal(t, digest(2), i.Image.Digest)
			}
			require.Len(t, w.world.Instances(web), 2)
			require.Empty(t, w.world.Breaches())
		})
	}
}

func TestScaleAndRestart(t *testing.T) {
	t.Parallel()
	w := watch(t, rollout.Policy{}, nil)
	require.ErrorIs(t, w.Scale(t.Context(), web, 2), rollout.ErrNotFound)
	require.ErrorIs(t, w.Restart(t.Context(), web), rollout.ErrNotFound)
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
	require.ErrorIs(t, w.Scale(t.Context(), web, 0), promote.ErrInvalid)
	require.NoError(t, w.Scale(t.Context(), web, 3))
	require.Len(t, w.world.Routed(web), 3)
	require.ErrorIs(t, w.Restart(t.Context(), web, "web-test-t1-g1-4"), rollout.ErrNotFound)
	require.NoError(t, w.Restart(t.Context(), web, "web-test-t1-g1-2"))
	var ids []string
	for _, i := range w.world.Instances(web) {
		ids = append(ids, i.ID)
	}
	require.Equal(t, []string{"web-test-t1-g1-1", "web-test-t1-g1-3", "web-test-t1-g1-4"}, ids)
	require.NoError(t, w.Scale(t.Context(), web, 1))
	serving, err := rollout.Serving(t.Context(), w.records, w.world)
	require.NoError(t, err)
	require.Len(t, serving, 1)
	require.Equal(t, netip.MustParseAddr("127.0.0.1"), serving[0].Addr.Addr())
	require.NoError(t, w.Remove(t.Context(), deployment(web, 1, 2)))
	require.Empty(t, w.world.Instances(web))
	require.Empty(t, w.world.Breaches())
}

// interrupted is a store in which another call has its turn after the n-th read of a record.
type interrupted struct {
	rollout.Records
	n    int
	call func(rollout.Record)
}

func (i *interrupted) Get(ctx context.Context, target promote.Target) (rollout.Record, error) {
	rec, err := i.Records.Get(ctx, target)
	if i.n--; i.n == 0 {
		i.call(rec)
	}
	return rec, err
}

// A restart that is asked for at any time of a deployment is carried out by it, also at its end.
func TestRestartDuringADeployment(t *testing.T) {
	t.Parallel()
	asked := 0
	for n := 1; n <= 8; n++ {
		var replaced []string
		w := watch(t, rollout.Policy{Count: 2}, func(c *rollout.Config) {
			store := c.Records
			c.Records = &interrupted{store, n, func(rec rollout.Record) {
				replaced = rec.Serving
				rec.Replace, rec.Revision = rec.Serving, rec.Revision+1
				_, err := store.Update(t.Context(), web,
					func(rollout.Record) (rollout.Record, error) { return rec, nil })
				require.NoError(t, err)
			}}
		})
		require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
		for _, i := range w.world.Routed(web) {
			require.NotContains(t, replaced, i.ID, "asked after read %d", n)
		}
		require.Len(t, w.world.Routed(web), 2)
		require.Len(t, w.world.Instances(web), 2)
		asked += len(replaced)
	}
	require.Positive(t, asked)
}
