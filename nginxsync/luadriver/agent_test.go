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
	require.NoError(t, a.WaitVerified(t.Context(), 1))
	generation := a.Status().Verified
	stop()

	b.Kill()
	require.NoError(t, luadriver.RemoveStaleSockets(b.cfg))
	b.Start()
	b.ready(t)
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
	require.NoError(t, a.WaitVerified(t.Context(),
		source.Set(
			nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": full.Baseline["a"]}})))
	b.answers(t, vipA, "/b/", "v1")
	b.answers(t, vipA, "/", "v1")
	held := a.Status().Held
	require.Len(t, held, 1)
	require.Equal(t, "b", held[0].Cluster)

	// It goes empty altogether.
	require.NoError(t, a.WaitVerified(t.Context(), source.Set(nginxsync.Snapshot{})))
	b.answers(t, vipA, "/", "v1")
	require.Len(t, a.Status().Held, 2)
	require.Equal(t, held[0].Since, a.Status().Held[1].Since)

	// By plan b goes, and a comes back.
	require.NoError(t, a.WaitVerified(t.Context(), source.Set(nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": full.Baseline["a"]},
		Planned:  []string{"b"}})))
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

func TestAgentRefusesADamagedStateFile(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/routes"
	text, err := nginxsync.NewRoutes(1, routes(t, "v2")).MarshalText()
	require.NoError(t, err)
	driver, err := luadriver.New(luadriver.Config{Socket: "/nonexistent/socket"})
	require.NoError(t, err)
	for i := range len(text) {
		require.NoError(t, os.WriteFile(file, text[:i], 0o600))
		_, err := nginxsync.OpenAgent(t.Context(),
			nginxsync.Config{Source: nginxsync.NewStaticSource(nginxsync.Snapshot{}),
				Driver: driver, StateFile: file})
		require.ErrorIs(t, err, nginxsync.ErrInvalid, "cut at %d", i)
		require.ErrorContains(t, err, file)
	}
}
