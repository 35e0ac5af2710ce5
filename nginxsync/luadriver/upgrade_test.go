//go:build linux

package luadriver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// While an upgrade of Nginx's program has two masters on the same sockets, nothing is verified: the
// old one answers with other routes. When the old workers have ended, every request gets what was
// verified.
func TestUpgradeIsNotVerifiedByHalf(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	source := nginxsync.NewStaticSource(routes(t, "v1"))
	a, _ := b.agent(t, source)
	require.NoError(t, a.WaitSaved(t.Context(), 1))
	first, old := b.Pid(), b.Workers()
	require.NoError(t, syscall.Kill(first, syscall.SIGUSR2))
	second := 0
	nginxtest.Poll(t, "the second master has workers", func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", first, first))
		if err != nil {
			return err
		}
		for _, f := range strings.Fields(string(text)) {
			pid, _ := strconv.Atoi(f)
			workers, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
			if len(strings.Fields(string(workers))) >= len(old) {
				second = pid
				return nil
			}
		}
		return errors.New("there is none")
	})
	t.Cleanup(func() { _ = syscall.Kill(second, syscall.SIGTERM) })

	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	revision := source.Set(routes(t, "v2"))
	go func() { ended <- a.WaitVerified(ctx, revision) }()
	nginxtest.Poll(t, "the agent sees workers of both masters", func() error {
		seen := map[bool]int{}
		for _, w := range a.Status().Workers {
			seen[slices.Contains(old, w.PID)]++
		}
		if seen[true] == 0 || seen[false] == 0 {
			return fmt.Errorf("%+v", a.Status().Workers)
		}
		return nil
	})
	select {
	case err := <-ended:
		t.Fatalf("the routes are verified while two masters answer: %v", err)
	default:
	}
	require.NoError(t, syscall.Kill(first, syscall.SIGWINCH)) // its workers end, and it stays
	require.NoError(t, <-ended)
	for range 40 {
		b.answers(t, vipA, "/", "v2")
	}
	require.NoError(t, a.WaitSaved(t.Context(), revision))
}
