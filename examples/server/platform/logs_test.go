package platform_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

// TestLogsStayShort lets a service and Nginx write, rotates, and lets them write on.
func TestLogsStayShort(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	s.MustBuild(t, "hello_web", "v1")
	s.MustPromote(t, "hello_web", "v1", "test", "sandbox", "production", "stable")
	nginx := filepath.Join(s.Dir, "nginx", "logs", "access.log")
	service, err := s.Platform.InstanceLog(s.Platform.Instances()[0].ID)
	require.NoError(t, err)
	written := func(path string) string {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(data)
	}
	hit := func() {
		_, err := ask(s, netip.MustParseAddr("127.0.0.1"))
		require.NoError(t, err)
	}
	eventually(t, func() bool {
		hit()
		return written(nginx) != "" && written(service) != ""
	}, "both write")
	require.NoError(t, platform.RotateLogs(s.Platform, 1<<20))
	require.NoFileExists(t, nginx+".1", "they are short")
	before := written(service)
	require.NoError(t, platform.RotateLogs(s.Platform, 10))
	require.Equal(t, before, written(service+".1"))
	require.Empty(t, written(service))
	require.FileExists(t, nginx+".1")
	eventually(t, func() bool {
		hit()
		now := written(nginx)
		return now != "" && !strings.Contains(now, "\x00")
	}, "Nginx appends to the empty file")
	left, err := filepath.Glob(filepath.Join(s.Dir, "nginx", "logs", "*.new"))
	require.NoError(t, err)
	require.Empty(t, left)
}
