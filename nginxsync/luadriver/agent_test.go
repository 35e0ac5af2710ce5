//go:build linux

package luadriver_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
)

// agent runs an agent until the returned function or the test ends it.
func (b *bed) agent(t *testing.T, source nginxsync.Source) (*nginxsync.Agent, func()) {
	t.Helper()
	a, err := nginxsync.OpenAgent(t.Context(), nginxsync.Config{Source: source, Driver: b.driver,
		StateFile: b.state})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { a.Run(ctx) })
	stop := func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return a, stop
}

// restart kills Nginx, calls f, and starts it again.
func (b *bed) restart(t *testing.T, f func()) {
	t.Helper()
	b.Kill()
	f()
	require.NoError(t, luadriver.RemoveStaleSockets(b.cfg))
	b.Start()
	b.ready(t)
}

func (b *bed) answers(t *testing.T, to netip.Addr, path, version string) {
	t.Helper()
	answer, err := b.get(t.Context(), to, path)
	require.NoError(t, err)
	require.Equal(t, version, answer.Version, "%s on %s: status %d %s", path, to, answer.Status,
		answer.Body)
}

func routes(t *testing.T, version string) nginxsync.Snapshot {
	one := func(cluster, version string) []nginxsync.Instance {
		return []nginxsync.Instance{{ID: cluster + version, Addr: nginxtest.Backend(t, version),
			Version: version}}
	}
	return nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a", "v1"), "b": one("b", "v1")},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": one("a", version)}},
	}
}

func TestAgentFollowsItsSource(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{})
	a, _ := b.agent(t, source)
	workers := b.Workers()
	for i := range 10 {
		version := fmt.Sprintf("v%d", i+2)
		require.NoError(t, a.WaitVerified(t.Context(), source.Set(routes(t, version))))
		b.answers(t, vipA, "/", version)
		b.answers(t, vipA, "/b/", "v1")
		b.answers(t, vipB, "/", "v1")
	}
	require.Equal(t, workers, b.Workers())
	status := a.Status()
	require.Equal(t, status.Desired, status.Verified)
	require.Empty(t, status.LastError)
	require.Empty(t, status.Held)
	// A snapshot with the same routes is not pushed again.
	before := status.Pushes
	same := routes(t, "v2")
	require.NoError(t, a.WaitVerified(t.Context(), source.Set(same)))
	require.NoError(t, a.WaitVerified(t.Context(), source.Set(same)))
	require.Equal(t, before+1, a.Status().Pushes)
}

func TestNginxStartsWithoutTheAgent(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	source := nginxsync.NewStaticSource(routes(t, "v2"))
	a, stop := b.agent(t, source)
	require.NoError(t, a.WaitSaved(t.Context(), 1))
	generation := a.Status().Verified
	stop()

	b.restart(t, func() {})
	b.answers(t, vipA, "/", "v2")
	b.answers(t, vipB, "/", "v1")

	// The agent takes up where it was: nothing is pushed for the same routes.
	a, _ = b.agent(t, source)
	require.NoError(t, a.WaitVerified(t.Context(), 1))
	require.Equal(t, generation, a.Status().Verified)
	require.Zero(t, a.Status().Pushes)
}

func TestAgentBringsALostNginxBack(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	source := nginxsync.NewStaticSource(routes(t, "v2"))
	a, _ := b.agent(t, source)
	require.NoError(t, a.WaitVerified(t.Context(), 1))
	b.Kill()
	revision := source.Set(routes(t, "v3"))
	require.NoError(t, os.Remove(b.state)) // not even the state file is left
	require.NoError(t, luadriver.RemoveStaleSockets(b.cfg))
	b.Start()
	require.NoError(t, a.WaitVerified(t.Context(), revision))
	b.answers(t, vipA, "/", "v3")
}

func TestRoutesSurviveReloadAndWorkerKill(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	source := nginxsync.NewStaticSource(routes(t, "v2"))
	a, stop := b.agent(t, source)
	require.NoError(t, a.WaitVerified(t.Context(), 1))
	generation := a.Status().Verified
	stop()
	replaced := func(before []int) {
		nginxtest.Poll(t, "every worker is another one and answers", func() error {
			state, err := b.driver.State(t.Context())
			if err != nil {
				return err
			}
			for _, w := range state.Workers {
				for _, pid := range before {
					if w.PID == pid {
						return errors.New("old worker in its slot")
					}
				}
			}
			if !state.Verified(generation) {
				return fmt.Errorf("state %+v", state)
			}
			return nil
		})
		b.answers(t, vipA, "/", "v2")
		b.answers(t, vipB, "/", "v1")
	}
	before := b.Workers()
	b.Signal(syscall.SIGHUP)
	replaced(before)
	before = b.Workers()
	for _, pid := range before {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	replaced(before)
}

func TestAgentHoldsAnEmptyingChange(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	full := routes(t, "v2")
	source := nginxsync.NewStaticSource(full)
	a, _ := b.agent(t, source)
	require.NoError(t, a.WaitVerified(t.Context(), 1))

	// The registry goes half empty: b stays, and the other changes of the snapshot take effect.
	half := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": full.Baseline["a"]},
		Planned: []nginxsync.Intent{{VIP: vipA}}}
	require.ErrorIs(t, a.WaitVerified(t.Context(), source.Set(half)), nginxsync.ErrHeld)
	b.answers(t, vipA, "/b/", "v1")
	b.answers(t, vipA, "/", "v1")
	held := a.Status().Held
	require.Len(t, held, 1)
	require.Equal(t, "b", held[0].Cluster)

	// It goes empty altogether.
	require.ErrorIs(t, a.WaitVerified(t.Context(), source.Set(nginxsync.Snapshot{})),
		nginxsync.ErrHeld)
	b.answers(t, vipA, "/", "v1")
	require.Len(t, a.Status().Held, 2)
	require.Equal(t, held[0].Since, a.Status().Held[1].Since)

	// By plan b goes, and a comes back.
	half.Planned = []nginxsync.Intent{{Cluster: "b"}}
	require.NoError(t, a.WaitVerified(t.Context(), source.Set(half)))
	b.answers(t, vipA, "/b/", "none")
	require.Empty(t, a.Status().Held)
}

func TestWaitVerifiedEndsWithTheContext(t *testing.T) {
	t.Parallel()
	driver, err := luadriver.New(luadriver.Config{Socket: "/nonexistent/socket"})
	require.NoError(t, err)
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{})
	a, err := nginxsync.OpenAgent(t.Context(), nginxsync.Config{Source: source, Driver: driver})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		require.ErrorIs(t, a.Run(ctx), context.Canceled)
	})
	nginxtest.Poll(t, "the agent says what is wrong", func() error {
		if !strings.Contains(a.Status().LastError, "/nonexistent/socket") {
			return errors.New(a.Status().LastError)
		}
		return nil
	})
	cancel()
	wg.Wait()
	err = a.WaitVerified(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "/nonexistent/socket")
}

// With any damage of the state file, Nginx alone serves the copy of before, never a row that was
// changed, and an agent rebuilds the file.
func TestNginxStartsFromTheCopy(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	source := nginxsync.NewStaticSource(routes(t, "v2"))
	a, stop := b.agent(t, source)
	require.NoError(t, a.WaitSaved(t.Context(), 1))
	newest := routes(t, "v3")
	require.NoError(t, a.WaitSaved(t.Context(), source.Set(newest)))
	stop()
	good, err := os.ReadFile(b.state)
	require.NoError(t, err)
	for name, damage := range map[string]func(string) string{
		"cut":   func(s string) string { return s[:len(s)/2] },
		"empty": func(string) string { return "" },
		"VIP":   func(s string) string { return strings.ReplaceAll(s, vipA.String(), vipB.String()) },
		"port": func(s string) string {
			port := fmt.Sprintf(" %d 1 v3", newest.Overlays[vipA]["a"][0].Addr.Port())
			return strings.ReplaceAll(s, port, " 1 1 v3")
		},
		"version":   func(s string) string { return strings.Replace(s, "s 2 ", "s 9 ", 1) },
		"number":    func(s string) string { return strings.Replace(s, "s 2 0", "s 2 1", 1) },
		"NUL bytes": func(s string) string { return strings.Repeat("\x00", len(s)) },
		"last line": func(s string) string { return s[:len(s)-1] },
		"a row is missing": func(s string) string {
			i := strings.Index(s, "r "+vipA.String())
			return s[:i] + "end 2\n"
		},
	} {
		b.restart(t, func() {
			require.NoError(t, os.WriteFile(b.state, []byte(damage(string(good))), 0o644))
		})
		b.answers(t, vipA, "/", "v2")
		b.answers(t, vipB, "/", "v1")
		require.NotContains(t, name, "\n")
	}
	a, _ = b.agent(t, source)
	require.NoError(t, a.WaitSaved(t.Context(), 2))
	b.answers(t, vipA, "/", "v3")
	b.restart(t, func() {})
	b.answers(t, vipA, "/", "v3")
}

// An agent that was killed between a push and the state file left Nginx newer than the file: the
// next one keeps what Nginx has, and so does one that has lost its file.
func TestAgentKeepsWhatNginxHas(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("file lost %v", lost), func(t *testing.T) {
			t.Parallel()
			b := start(t, 1<<20)
			source := nginxsync.NewStaticSource(routes(t, "v1"))
			a, stop := b.agent(t, source)
			require.NoError(t, a.WaitSaved(t.Context(), 1))
			before, err := os.ReadFile(b.state)
			require.NoError(t, err)
			require.NoError(t, a.WaitSaved(t.Context(), source.Set(routes(t, "v2"))))
			generation := a.Status().Verified
			stop()
			if lost {
				require.NoError(t, errors.Join(os.Remove(b.state), os.Remove(b.state+".1")))
			} else {
				require.NoError(t, os.WriteFile(b.state, before, 0o644))
			}
			a, _ = b.agent(t, nginxsync.NewStaticSource(nginxsync.Snapshot{}))
			require.ErrorIs(t, a.WaitVerified(t.Context(), 1), nginxsync.ErrHeld)
			require.Equal(t, generation, a.Status().Verified)
			require.Zero(t, a.Status().Pushes)
			b.answers(t, vipA, "/", "v2")
			nginxtest.Poll(t, "the file is rebuilt", func() error {
				if a.Status().Saved != generation {
					return errors.New(a.Status().SaveError)
				}
				return nil
			})
			b.restart(t, func() {})
			b.answers(t, vipA, "/", "v2")
		})
	}
}
