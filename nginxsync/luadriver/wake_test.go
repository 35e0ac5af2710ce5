//go:build linux

package luadriver_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
)

// follow pushes routes of that number and polls until the running workers, and no others, answer
// with them.
func (b *bed) follow(t *testing.T, number uint64) {
	t.Helper()
	r := nginxsync.NewRoutes(number, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
		"a": one(fmt.Sprint(number), "v1", plainPort)}})
	require.NoError(t, b.driver.Apply(t.Context(), r.All()))
	nginxtest.Poll(t, fmt.Sprintf("the workers answer with push %d", number), func() error {
		_, err := b.reported(t, r.Generation)
		return err
	})
}

// A push reaches workers that do not look by themselves, also those that a reload or a death has
// brought, and they answer what is in flight; a worker that listens ends when it is told to.
func TestPushWakesWorkers(t *testing.T) {
	t.Parallel()
	b := startWith(t, luadriver.SnippetConfig{Memory: 1 << 20, Tick: 24 * time.Hour})
	number := uint64(0)
	next := func() {
		for range 3 {
			number++
			b.follow(t, number)
		}
		f, err := b.driver.InFlight(t.Context(), []netip.AddrPort{plainPort})
		require.NoError(t, err)
		require.Empty(t, f.Silent)
	}
	next()
	for _, change := range []func(old []int){
		func(old []int) { require.NoError(t, syscall.Kill(old[0], syscall.SIGKILL)) },
		func([]int) { require.NoError(t, syscall.Kill(b.Pid(), syscall.SIGHUP)) },
		func([]int) { require.NoError(t, syscall.Kill(b.Pid(), syscall.SIGHUP)) },
	} {
		old := b.Workers()
		change(old)
		nginxtest.Poll(t, "the workers are others", func() error {
			state, err := b.driver.State(t.Context())
			for _, w := range state.Workers {
				if len(state.Workers) != 2 || w.PID == 0 || slices.Equal(b.Workers(), old) {
					err = errors.New("not yet")
				}
			}
			return err
		})
		next()
	}
}

// Workers that nothing wakes follow all the same.
func TestWorkersThatNothingWakesFollow(t *testing.T) {
	t.Parallel()
	b := startWith(t, luadriver.Alone(luadriver.SnippetConfig{Memory: 1 << 20}))
	for number := range uint64(3) {
		b.follow(t, number+1)
	}
	f, err := b.driver.InFlight(t.Context(), []netip.AddrPort{plainPort})
	require.NoError(t, err)
	require.Empty(t, f.Silent)
}
