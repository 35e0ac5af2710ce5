package builds_test

import (
	"context"
	"fmt"
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
	keep := func(c *builds.Config) { c.KeepEnded, c.Builders = 3, 2 }
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
	data, size, err := m.ReadLog(t.Context(), "b0", 0, 100)
	require.NoError(t, err)
	require.Zero(t, size, "%s", data)

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
