//go:build linux

package luadriver_test

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// stopInReload begins a reload and stops the master when it has started new workers and has not
// told the old ones to end yet, for which it takes 100 ms. It runs in slices, and is looked at
// while it stands: a look may take longer than the 100 ms. It returns the ids of the old workers
// and a function that lets the master go on.
func (b *bed) stopInReload(t *testing.T) (old []int, resume func()) {
	t.Helper()
	master := b.Pid()
	resume = func() { _ = syscall.Kill(master, syscall.SIGCONT) }
	for range 20 {
		old = b.Workers()
		require.NoError(t, syscall.Kill(master, syscall.SIGHUP))
		for {
			require.NoError(t, syscall.Kill(master, syscall.SIGSTOP))
			fresh := slices.DeleteFunc(b.Workers(), func(pid int) bool {
				return slices.Contains(old, pid)
			})
			if len(fresh) >= len(old) || t.Context().Err() != nil {
				break
			}
			resume()
			time.Sleep(time.Millisecond)
		}
		var pids []int
		nginxtest.Poll(t, "all workers report", func() (err error) {
			pids, err = b.reported(t, nginxsync.Generation{})
			return err
		})
		if len(pids) == 2*len(old) {
			return old, resume
		}
		resume() // it was too late
		b.ready(t)
	}
	t.Fatal("no reload was stopped in time")
	return nil, nil
}

// reported returns the processes that the state names, with an error unless they are the running
// workers and answer with want.
func (b *bed) reported(t *testing.T, want nginxsync.Generation) ([]int, error) {
	state, err := b.driver.State(t.Context())
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, w := range state.Workers {
		pids = append(pids, w.PID)
		if want != (nginxsync.Generation{}) && w.Applied != want {
			err = errors.Join(err, fmt.Errorf("%d answers with %v", w.PID, w.Applied))
		}
	}
	running := b.Workers()
	slices.Sort(pids)
	slices.Sort(running)
	if !slices.Equal(pids, running) {
		err = errors.Join(err, fmt.Errorf("%d report, %d run", pids, running))
	}
	return pids, err
}

// During a reload old and new workers take requests, with the same slots: each of them counts until
// it ends, and none speaks for another.
func TestOldAndNewWorkersOfAReload(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	routes := func(n uint64) nginxsync.Routes {
		return nginxsync.NewRoutes(n,
			nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": one(fmt.Sprint(n),
				"v1", nginxtest.Backend(t, "a"))}})
	}
	old, resume := b.stopInReload(t)
	t.Cleanup(resume)
	second := routes(2)
	require.NoError(t, b.driver.Apply(t.Context(), second.All()))
	nginxtest.Poll(t, "old and new workers answer with the routes", func() error {
		_, err := b.reported(t, second.Generation)
		return err
	})

	// A worker that is killed cannot report that it ends.
	require.NoError(t, syscall.Kill(old[0], syscall.SIGKILL))
	nginxtest.Poll(t, "it is gone", func() error {
		if slices.Contains(b.Workers(), old[0]) {
			return errors.New("it runs")
		}
		return nil
	})
	resume()
	third := routes(3)
	require.NoError(t, b.driver.Apply(t.Context(), third.All()))
	nginxtest.Poll(t, "the new workers are alone", func() error {
		pids, err := b.reported(t, third.Generation)
		if err == nil && (len(pids) != 2 || slices.Contains(pids, old[0]) ||
			slices.Contains(pids, old[1])) {
			err = fmt.Errorf("%d are there, old are %d", pids, old)
		}
		return err
	})
}
