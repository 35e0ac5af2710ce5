package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/promote/rollout/rollouttest"
)

func digest(n int) promote.Digest {
	return promote.Digest("sha256:" + strings.Repeat(fmt.Sprintf("%x", n%16), 64))
}

func deployment(target promote.Target, n int, generation uint64) promote.Deployment {
	return promote.Deployment{Target: target, Version: fmt.Sprint("v", n), Digest: digest(n),
		Repository: "registry:5000/web", Generation: generation}
}

var web = promote.Target{Cluster: "web", Environment: "test", Task: "t1"}

const brokenImage = 15

// crashing ends the context of a call at one of its actions, before or after it, as the end of the
// process would: from then on no action of that process takes place.
type crashing struct {
	mu     sync.Mutex
	left   int // actions until the crash; negative: none comes
	crash  context.CancelCauseFunc
	before bool
}

var errCrash = errors.New("the process was killed")

func (c *crashing) fault(_, _ string, done bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left < 0 || done == c.before {
		return nil
	}
	if c.left == 0 {
		c.crash(errCrash)
		return errCrash
	}
	c.left--
	return nil
}

func (c *crashing) after(actions int, before bool) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left, c.before, c.crash = actions, before, cancel
	return ctx
}

// records is a store that crashes as the world does.
type records struct {
	rollout.Records
	fault func(op, subject string, done bool) error
}

func (r records) Update(ctx context.Context, target promote.Target,
	change func(rollout.Record) (rollout.Record, error)) (rollout.Record, error) {
	if err := r.fault("update", "", false); err != nil {
		return rollout.Record{}, err
	}
	rec, err := r.Records.Update(ctx, target, change)
	if err == nil {
		err = r.fault("update", "", true)
	}
	return rec, err
}

// model is one seed: a world, and the demands on it.
type model struct {
	*testing.T
	r      *rand.Rand
	world  *rollouttest.World
	crash  *crashing
	store  records
	policy rollout.Policy
	now    time.Time
	// the highest number of instances of the wanted images, and the lowest number of ready ones in
	// the routes, since the last reset
	mu         sync.Mutex
	low        int
	generation uint64
	log        []string
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{T: t, r: rand.New(rand.NewPCG(seed, 16)), crash: &crashing{left: -1},
		world: rollouttest.NewWorld(digest(brokenImage)), now: time.Unix(1e9, 0)}
	m.world.Fault = func(op, subject string, done bool) error {
		if done && op != "list" {
			m.say("%s %s", op, subject)
			m.mu.Lock()
			m.low = min(m.low, ready(m.world.Routed(web)))
			m.mu.Unlock()
		}
		return m.crash.fault(op, subject, done)
	}
	m.store = records{rollout.NewMemRecords(), m.crash.fault}
	m.policy = rollout.Policy{Count: 1 + m.r.IntN(4), Surge: m.r.IntN(3),
		Unavailable: m.r.IntN(3)}
	if m.r.IntN(2) == 0 {
		m.policy.Retain = time.Minute
	}
	return m
}

func (m *model) say(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func ready(list []rollout.Instance) (n int) {
	for _, i := range list {
		if i.State == rollout.Ready {
			n++
		}
	}
	return n
}

// open returns the Rollout of a new process.
func (m *model) open() *rollout.Rollout {
	r, err := rollout.New(rollout.Config{Records: m.store, Instances: m.world, Routes: m.world,
		Policy: func(promote.Target) rollout.Policy { return m.policy },
		Now:    func() time.Time { return m.now }})
	require.NoError(m, err)
	return r
}

func (m *model) failf(format string, args ...any) {
	m.Helper()
	m.Fatalf("%s\npolicy %+v\n%s", fmt.Sprintf(format, args...), m.policy,
		strings.Join(m.log, "\n"))
}

// ends checks the state after a call that succeeded: the image serves, and nothing else runs but
// instances that are kept.
func (m *model) ends(image, count int) {
	m.Helper()
	routed := m.world.Routed(web)
	if len(routed) != count || ready(routed) != count {
		m.failf("%d instances in the routes, %d ready, want %d", len(routed), ready(routed), count)
	}
	status, err := m.open().Status(context.Background(), web)
	require.NoError(m, err)
	for _, i := range status.Instances {
		serves := slices.Contains(status.Record.Serving, i.ID)
		if serves && i.Image.Digest != digest(image) {
			m.failf("%s serves image %s, want %s", i.ID, i.Image.Digest, digest(image))
		}
		if !serves && (!slices.Contains(status.Record.Kept, i.ID) ||
			!m.now.Before(status.Record.KeptUntil)) {
			m.failf("%s is left over: %+v", i.ID, status.Record)
		}
	}
	if breaches := m.world.Breaches(); len(breaches) > 0 {
		m.failf("%v", breaches)
	}
}

// act is one change of the target, whose process is killed at random actions until it is not.
// Afterwards the next process asks for the same under the same generation, as an operator would, or
// under the next one, as Promoter.Recover does.
func (m *model) act(op string, image, count int) error {
	if op == "deploy" || op == "remove" {
		m.generation++
	}
	for {
		actions := -1
		if m.r.IntN(3) > 0 {
			actions = m.r.IntN(30)
		}
		ctx := m.crash.after(actions, m.r.IntN(2) == 0)
		m.say("- %s v%d as generation %d, killed after %d actions", op, image, m.generation,
			actions)
		r := m.open()
		var err error
		switch op {
		case "deploy":
			err = r.Deploy(ctx, deployment(web, image, m.generation))
		case "remove":
			err = r.Remove(ctx, deployment(web, image, m.generation))
		case "restart":
			err = r.Restart(ctx, web)
		case "scale":
			err = r.Scale(ctx, web, count)
		case "recover":
			err = r.Recover(ctx)
		}
		m.say("  %v", err)
		if !errors.Is(err, errCrash) {
			m.crash.after(-1, false)
			return err
		}
		switch {
		case m.r.IntN(2) == 0: // the same once more
		case op == "deploy" || op == "remove":
			m.generation++
		case op == "restart":
			op = "recover"
		}
	}
}

// TestRandomChanges: any sequence of changes, killed at any action, ends as asked, never stops an
// instance that takes requests, and never has fewer ready instances than the policy allows.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(soak.Count(1500, 60000)) {
		m := newModel(t, seed)
		serves, count := 0, 0
		for range 2 + m.r.IntN(6) {
			m.mu.Lock()
			m.low = count
			m.mu.Unlock()
			before := count
			switch op := m.r.IntN(8); {
			case op == 0 && serves > 0:
				require.NoError(t, m.act("remove", serves, 0), m.log)
				serves, count, before = 0, 0, 0
			case op == 1 && serves > 0:
				require.NoError(t, m.act("restart", serves, count), m.log)
			case op == 2 && serves > 0:
				count = 1 + m.r.IntN(5)
				require.NoError(t, m.act("scale", serves, count), m.log)
			case op == 3:
				var stopped *rollout.StoppedError
				err := m.act("deploy", brokenImage, count)
				require.ErrorAs(t, err, &stopped, m.log)
				require.Equal(t, rollout.ReasonStart, stopped.Reason)
				require.Equal(t, []string{"starting", "no such file"}, stopped.Lines)
				if serves > 0 { // as Promoter does
					require.NoError(t, m.act("deploy", serves, count), m.log)
				} else {
					require.NoError(t, m.act("remove", 0, 0), m.log)
				}
			default:
				if m.r.IntN(3) == 0 {
					m.now = m.now.Add(2 * time.Minute)
				}
				next := 1 + m.r.IntN(3)
				if serves == 0 {
					count = m.policy.Count
				}
				require.NoError(t, m.act("deploy", next, count), m.log)
				serves = next
			}
			m.ends(serves, count)
			unavailable := m.policy.Unavailable
			if lowest := min(before, count) - unavailable; m.low < lowest {
				m.failf("only %d of %d instances served for a while", m.low, count)
			}
			if m.generation > 1 {
				err := m.open().Deploy(context.Background(), deployment(web, 4, m.generation-1))
				if seen := m.generation; !errors.Is(err, promote.ErrFenced) && seen > 1 {
					m.failf("a call under generation %d after %d: %v", seen-1, seen, err)
				}
			}
		}
		m.now = m.now.Add(2 * time.Minute)
		require.NoError(t, m.open().Tidy(context.Background()))
		if n := len(m.world.Instances(web)); n != count {
			m.failf("%d instances run after the time of those that are kept, want %d", n, count)
		}
	}
}

// TestPolicies: with every small policy a rollout never runs more instances than Surge allows, and
// never has fewer in the routes than Unavailable allows.
func TestPolicies(t *testing.T) {
	t.Parallel()
	for count := 1; count <= 5; count++ {
		for surge := range 4 {
			for unavailable := range 4 {
				policy := rollout.Policy{Count: count, Surge: surge, Unavailable: unavailable}
				most, fewest := extremes(t, policy)
				limit := surge
				if surge+unavailable == 0 {
					limit = count // the default
				}
				require.LessOrEqual(t, most, count+limit, "%+v", policy)
				require.GreaterOrEqual(t, fewest, count-unavailable, "%+v", policy)
			}
		}
	}
}

// extremes rolls out from one image to the next and returns how many instances ran at most, and how
// many were in the routes at least.
func extremes(t *testing.T, policy rollout.Policy) (most, fewest int) {
	w := watch(t, policy, nil)
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 1, 1)))
	var mu sync.Mutex
	most, fewest = policy.Count, policy.Count
	w.world.Fault = func(string, string, bool) error {
		mu.Lock()
		defer mu.Unlock()
		most = max(most, len(w.world.Instances(web)))
		fewest = min(fewest, ready(w.world.Routed(web)))
		return nil
	}
	require.NoError(t, w.Deploy(t.Context(), deployment(web, 2, 2)), "%+v", policy)
	require.Len(t, w.world.Routed(web), policy.Count)
	return most, fewest
}

// TestPercentages: percentages are rounded as Kubernetes rounds those of a Deployment.
func TestPercentages(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		policy       rollout.Policy
		most, fewest int
	}{
		{rollout.Policy{Count: 10, SurgePercent: 25, UnavailablePercent: 25}, 13, 8},
		{rollout.Policy{Count: 1, SurgePercent: 25, UnavailablePercent: 25}, 2, 1},
		{rollout.Policy{Count: 3, UnavailablePercent: 10}, 3, 2},
		{rollout.Policy{Count: 7, UnavailablePercent: 50}, 7, 4},
		{rollout.Policy{Count: 4, SurgePercent: 100}, 8, 4},
		{rollout.Policy{Count: 4, Surge: 1, UnavailablePercent: 25}, 5, 3},
		{rollout.Policy{Count: 110, SurgePercent: 1}, 112, 110},
	} {
		most, fewest := extremes(t, tc.policy)
		require.Equal(t, []int{tc.most, tc.fewest}, []int{most, fewest}, "%+v", tc.policy)
	}
}
