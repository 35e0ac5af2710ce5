package luadriver

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Processes with the titles of an upgrade: the second master has forked two workers, of which one
// has not set its own title yet.
func TestOtherWorkersAreSeenFromTheirFork(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/bin/bash", "-c", `(exec -a "nginx: master process two" bash -c '
		(exec -a "nginx: master process two" sleep 600) &
		(exec -a "nginx: worker process" sleep 600) &
		(exec -a "nginx: worker process is shutting down" sleep 600) &
		wait') & wait`)
	cmd.Args[0] = "nginx: master process one"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	one := cmd.Process.Pid
	var two int
	testbed.Poll(t, "the workers of the second master", func() error {
		if masters := childrenOf(one); len(masters) == 1 {
			two = masters[0]
		}
		var seen []int
		for _, w := range otherWorkers(one) {
			seen = append(seen, w.PID)
		}
		if len(seen) != 2 || len(childrenOf(two)) != 3 || title(seen[0]) == title(seen[1]) {
			return fmt.Errorf("%d of %d", seen, childrenOf(two))
		}
		return nil
	})
	require.Empty(t, otherWorkers(two), "the first master has none besides the second master")
}
