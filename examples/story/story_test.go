package story_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/story"
)

// examples is the directory of the module.
const examples = ".."

func tell(t *testing.T, s *server, between func(part int) error) {
	t.Helper()
	var told bytes.Buffer
	result, err := story.Run(t.Context(), story.Config{Server: s.url, Examples: examples,
		Out: &told, Between: between})
	if err != nil || result.Failed > 0 || result.Steps < 50 {
		t.Fatalf("%d steps, %d failed, %v:\n%s", result.Steps, result.Failed, err, told.String())
	}
}

func TestTheStory(t *testing.T) {
	t.Parallel()
	tell(t, newServer(t, "127.61.0.0/24"), nil)
}

func TestTheStoryGoesOnAfterTheServerIsKilled(t *testing.T) {
	t.Parallel()
	s := newServer(t, "127.62.0.0/24")
	tell(t, s, func(part int) error {
		before, instances := s.state(), get[[]runningInstance](s, "/instances")
		s.kill()
		gone := 0
		if part%2 == 0 { // also instances and Nginx end, now and then
			for _, i := range instances[:2] {
				endProcess(t, i.PID)
			}
			endProcess(t, nginxMaster(t, s))
			gone = 2
		}
		s.start()
		require.Equal(t, before, s.state(), "what was acknowledged is there, and nothing else")
		s.inOrder()
		found := 0
		for _, i := range get[[]runningInstance](s, "/instances") {
			for _, b := range instances {
				if i == b {
					found++
				}
			}
		}
		require.Equal(t, len(instances)-gone, found, "instances that live are found, the others "+
			"started again")
		return nil
	})
	require.NotEmpty(t, processes(s.dir))
}

func nginxMaster(t *testing.T, s *server) int {
	pid, err := os.ReadFile(filepath.Join(s.dir, "nginx", "nginx.pid"))
	require.NoError(t, err)
	return atoi(t, string(bytes.TrimSpace(pid)))
}
