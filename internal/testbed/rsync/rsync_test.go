//go:build linux

package rsync_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed/rsync"
	"github.com/stretchr/testify/require"
)

func TestRsyncdServesADirectory(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(from, "a"), []byte("code"), 0o600))
	server := rsync.Start(t, from)
	out, err := exec.Command("rsync", "-a", server.URL+"/", to).CombinedOutput()
	require.NoError(t, err, "%s", out)
	data, err := os.ReadFile(filepath.Join(to, "a"))
	require.NoError(t, err)
	require.Equal(t, "code", string(data))
	require.Error(t, exec.Command("rsync", "-a", to+"/", server.URL+"/").Run(), "it only reads")
}
