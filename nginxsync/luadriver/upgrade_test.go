//go:build linux

package luadriver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
)

// daemon ends Nginx and starts it as a daemon, which alone can be upgraded, and returns its master.
func (b *bed) daemon(t *testing.T) int {
	t.Helper()
	program := testbed.NeedProgram(t, "nginx", "nginx")
	b.Kill()
	text, err := os.ReadFile(b.Conf)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(b.Conf, bytes.Replace(text, []byte("daemon off;"),
		[]byte("daemon on;"), 1), 0o644))
	require.NoError(t, luadriver.RemoveStaleSockets(b.cfg))
	out, err := exec.CommandContext(t.Context(), program, "-p", b.Prefix, "-c", b.Conf, "-e",
		b.ErrorLog()).CombinedOutput()
	require.NoError(t, err, string(out))
	pid := 0
	nginxtest.Poll(t, "the master runs", func() error {
		text, err := os.ReadFile(filepath.Join(b.Prefix, "nginx.pid"))
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		if err == nil && len(children(pid)) < 2 {
			err = errors.New("it has no workers")
		}
		return err
	})
	t.Cleanup(func() {
		all := append(children(pid), pid)
		for _, pid := range append(all, children(all...)...) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return pid
}

// children are the processes that these have started.
func children(pids ...int) (all []int) {
	for _, pid := range pids {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		for _, f := range strings.Fields(string(text)) {
			child, _ := strconv.Atoi(f)
			all = append(all, child)
		}
	}
	return all
}

// While an upgrade of Nginx's program has two masters on the same sockets, nothing is verified: the
// old one answers with other routes. When the old workers have ended, every request gets the
// verified routes.
func TestUpgradeIsNotVerifiedByHalf(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	source := nginxsync.NewStaticSource(routes(t, "v1"))
	first := b.daemon(t)
	a, _ := b.agent(t, source)
	require.NoError(t, a.WaitSaved(t.Context(), 1))
	old := children(first)
	require.NoError(t, syscall.Kill(first, syscall.SIGUSR2))
	nginxtest.Poll(t, "the second master has workers", func() error {
		for _, pid := range children(first) {
			if len(children(pid)) >= len(old) {
				return nil
			}
		}
		return errors.New("there is none")
	})

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
