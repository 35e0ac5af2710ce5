package testbed_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

func TestRsyncdServesAFolder(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(from, "a"), []byte("code"), 0o600))
	server := testbed.Rsyncd(t, from)
	out, err := exec.Command("rsync", "-a", server.URL+"/", to).CombinedOutput()
	require.NoError(t, err, "%s", out)
	data, err := os.ReadFile(filepath.Join(to, "a"))
	require.NoError(t, err)
	require.Equal(t, "code", string(data))
	require.Error(t, exec.Command("rsync", "-a", to+"/", server.URL+"/").Run(), "it only reads")
}
