package builds_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
)

// poll asks again until ok, for at most two minutes.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within two minutes", what)
		case <-tick.C:
		}
	}
}

func ids(t *testing.T, b *builds.Builds) (list []string) {
	t.Helper()
	all, err := b.List(t.Context())
	require.NoError(t, err)
	for _, build := range all {
		list = append(list, build.ID)
	}
	return list
}

// removals calls before, if set, before a log is removed, and keeps the name.
type removals struct {
	builds.Logs
	before func()

	mu      sync.Mutex
	removed []string
}

func (r *removals) RemoveLog(ctx context.Context, name string) error {
	if r.before != nil {
		r.before()
	}
	r.mu.Lock()
	r.removed = append(r.removed, name)
	r.mu.Unlock()
	return r.Logs.RemoveLog(ctx, name)
}

func (r *removals) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.removed)
}

// TestUsesAnIDAgainWhileItsLogIsRemoved: another process submits a build under a forgotten id, and
// carries it out, in the moment before the process that forgot it removes the old log.
func TestUsesAnIDAgainWhileItsLogIsRemoved(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	other := open(t, m, "two", succeeds)
	again := make(chan builds.Build, 1) // of the one removal
	logs := &removals{Logs: m, before: sync.OnceFunc(func() {
		_, err := other.Submit(t.Context(), order("a"))
		if err != nil {
			t.Error(err)
			return
		}
		stop := run(t, other)
		defer stop()
		ended, err := other.Wait(t.Context(), "a")
		if err != nil {
			t.Error(err)
		}
		again <- ended
	})}
	b := open(t, m, "one", succeeds, func(c *builds.Config) { c.KeepEnded, c.Logs = 1, logs })
	for _, id := range []string{"a", "b"} {
		_, err := b.Submit(t.Context(), order(id))
		require.NoError(t, err)
		_, err = b.Cancel(t.Context(), id, "ann", "over")
		require.NoError(t, err)
	}
	run(t, b)
	select {
	case ended := <-again:
		require.Equal(t, builds.StateSucceeded, ended.State)
	case <-time.After(time.Minute):
		t.Fatal("no log was removed within a minute")
	}
	poll(t, "the old log is removed", func() bool { return len(logs.names()) > 0 })
	text, state := logOf(t, other, "a")
	require.Equal(t, "build a, attempt 1 by two\nstep one\nstep two\n", text)
	require.Equal(t, builds.Complete, state.Verdict)
}

// TestUsesAnIDAgainBeforeItsLogIsRemoved: the log of a build has nothing of the build that had its
// id before, although that one's log is still there.
func TestUsesAnIDAgainBeforeItsLogIsRemoved(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	first := open(t, m, "one", succeeds)
	_, err := first.Submit(t.Context(), order("a"))
	require.NoError(t, err)
	stop := run(t, first)
	old := wait(t, first, "a")
	stop()
	forgotten := builds.Entry{Seq: old.Seq + 1, Kind: builds.Forgotten, Builds: []string{"a"}}
	require.NoError(t, m.Append(t.Context(), old.Seq, forgotten))
	_, err = first.Submit(t.Context(), order("a"))
	require.NoError(t, err)
	second := open(t, m, "two", succeeds)
	run(t, second)
	require.Equal(t, builds.StateSucceeded, wait(t, second, "a").State)
	text, state := logOf(t, second, "a")
	require.Equal(t, "build a, attempt 1 by two\nstep one\nstep two\n", text)
	require.Equal(t, builds.Complete, state.Verdict)
}

// TestForgetsTheOldest: ended builds beyond KeepEnded go with their entries and logs, for every
// process, and their ids are free. Builds that have not ended stay.
func TestForgetsTheOldest(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	asks := open(t, m, "", nil)
	lags := open(t, m, "", nil)
	serial := func(id string) builds.Order {
		o := order(id)
		o.Group, o.Policy = "g", builds.Serial
		return o
	}
	begun := make(chan string, 1)
	hang := hangs(begun)
	logs := &removals{Logs: m}
	keep := func(c *builds.Config) { c.KeepEnded, c.Builders, c.Logs = 3, 2, logs }
	b := open(t, m, "one", func(ctx context.Context, r builder.Request) (builder.Result, error) {
		if r.Tag == "open" {
			return hang(ctx, r)
		}
		return succeeds(ctx, r)
	}, keep)
	_, err := asks.Submit(t.Context(), order("open"))
	require.NoError(t, err)
	run(t, b)
	<-begun
	for i := range 12 {
		_, err := asks.Submit(t.Context(), serial(fmt.Sprint("b", i)))
		require.NoError(t, err)
		wait(t, asks, fmt.Sprint("b", i))
		if i == 4 {
			require.NotEmpty(t, ids(t, lags)) // its state is old from now on
		}
	}
	poll(t, "3 builds are kept", func() bool { return len(ids(t, asks)) == 4 })
	want := []string{"open", "b9", "b10", "b11"}
	require.Equal(t, want, ids(t, asks))
	require.Equal(t, want, ids(t, lags), "a process that missed the entries")
	require.Equal(t, want, ids(t, open(t, m, "", nil)), "a new process")
	_, err = asks.Get(t.Context(), "b0")
	require.ErrorIs(t, err, builder.ErrNotFound)
	var left []builds.Entry
	poll(t, "the entries are removed", func() bool {
		left, err = m.Read(t.Context(), 0)
		require.NoError(t, err)
		return len(left) < 2+3*3+2
	})
	for _, e := range left {
		if e.Kind != builds.Forgotten {
			require.Contains(t, want, e.Build)
		}
	}
	require.NotEmpty(t, logs.names())
	for _, name := range logs.names() {
		_, size, err := m.ReadLog(t.Context(), name, 0, 0)
		require.NoError(t, err)
		require.Zero(t, size, name)
	}

	again, err := asks.Submit(t.Context(), serial("b0"))
	require.NoError(t, err)
	require.Equal(t, "b0", again.ID, "a new build, which may have ended by now")
	require.Equal(t, builds.StateSucceeded, wait(t, asks, "b0").State)
	text, _ := logOf(t, asks, "b0")
	require.Equal(t, "build b0, attempt 1 by one\nstep one\nstep two\n", text)
	got, err := asks.Get(t.Context(), "open")
	require.NoError(t, err)
	require.Equal(t, builds.StateRunning, got.State)
}

func TestForgetsTheOld(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	var mu sync.Mutex
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b := open(t, m, "one", succeeds, func(c *builds.Config) {
		c.KeepFor = 24 * time.Hour
		c.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
	})
	run(t, b)
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	for _, id := range []string{"a", "b"} {
		_, err := b.Submit(t.Context(), order(id))
		require.NoError(t, err)
		wait(t, b, id)
		pass(20 * time.Hour)
	}
	require.Equal(t, []string{"a", "b"}, ids(t, b))
	poll(t, "the older one is forgotten", func() bool {
		pass(time.Second)
		return len(ids(t, b)) == 1
	})
	require.Equal(t, []string{"b"}, ids(t, b))
}

// TestCrashAfterForgetting: the process that forgot a build died before it removed its entries and
// log, and the next one does.
func TestCrashAfterForgetting(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	o := order("a")
	for i, e := range []builds.Entry{
		{Kind: builds.Submitted, Build: "a", Order: &o},
		{Kind: builds.Started, Build: "a", Attempt: 2, Owner: "one"},
		{Kind: builds.Succeeded, Build: "a", Attempt: 2, Result: &builder.Result{}},
		{Kind: builds.Forgotten, Builds: []string{"a"}},
	} {
		e.Seq = uint64(i) + 1
		require.NoError(t, m.Append(t.Context(), e.Seq-1, e))
	}
	require.NoError(t, m.AppendLog(t.Context(), "a", 0, []byte("line\n")))
	b := open(t, m, "one", succeeds)
	run(t, b)
	poll(t, "entries and log are removed", func() bool {
		left, err := m.Read(t.Context(), 0)
		require.NoError(t, err)
		_, size, err := m.ReadLog(t.Context(), "a", 0, 0)
		require.NoError(t, err)
		return len(left) == 1 && left[0].Kind == builds.Forgotten && size == 0
	})
	require.Empty(t, ids(t, b))
}
