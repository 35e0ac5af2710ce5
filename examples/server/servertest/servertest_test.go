package servertest_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

func TestAServerThatWasLeftGoesOnAndNothingStaysBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	t.Run("two servers on one folder", func(t *testing.T) {
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
	}, 10*time.Second, 10*time.Millisecond,
		"Nginx removes its pid file a moment before it ends")
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
