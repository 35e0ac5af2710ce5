package servertest_test

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

func TestLeave(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	t.Run("two servers on one directory", func(t *testing.T) {
		first := servertest.Start(t, servertest.Config{Dir: dir})
		build := first.MustBuild(t, "hello_web", "v1")
		first.MustPromote(t, "hello_web", "v1", "test", "sandbox")
		before := first.Platform.Instances()
		require.Len(t, before, 2)
		first.Leave()

		second := servertest.Start(t, servertest.Config{Dir: dir})
		after := second.Platform.Instances()
		require.Len(t, after, 2)
		require.Equal(t, before[0].PID, after[0].PID, "the instances were not touched")
		var builds []platform.Build
		second.Call(t, http.MethodGet, "/builds", nil, &builds)
		require.Equal(t, []platform.Build{build}, builds)
	})
	require.Eventually(t, func() bool {
		return len(processesOn(t, dir)) == 0
	}, time.Minute, 10*time.Millisecond,
		"Nginx removes its pid file a moment before it ends")
}

// TestKilledTestBinary kills a copy of this test binary in the middle of another test.
func TestKilledTestBinary(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "kill-") // t.TempDir is too long for the sockets of its Nginx
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestLeave$")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		return strings.Contains(strings.Join(processesOn(t, dir), " "), "nginx: master")
	}, time.Minute, 10*time.Millisecond, "its Nginx runs")
	require.NoError(t, cmd.Process.Kill())
	require.ErrorContains(t, cmd.Wait(), "killed", output.String())
	require.Eventually(t, func() bool {
		left, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		return err == nil && len(left) == 0 && len(processesOn(t, dir)) == 0
	}, time.Minute, 10*time.Millisecond, "nothing of it runs, its directories are gone")
}

// processesOn are the command lines and roots of the processes that have something to do with dir.
func processesOn(t *testing.T, dir string) []string {
	var found []string
	procs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, proc := range procs {
		title, _ := os.ReadFile(proc + "/cmdline") // it may have ended meanwhile
		mounts, _ := os.ReadFile(proc + "/mountinfo")
		if strings.Contains(string(title)+string(mounts), dir) {
			found = append(found, proc+" "+strings.ReplaceAll(string(title), "\x00", " "))
		}
	}
	return found
}
