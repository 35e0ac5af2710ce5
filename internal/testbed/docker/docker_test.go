//go:build linux

package docker_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed/docker"
)

func TestStart(t *testing.T) {
	t.Parallel()
	d := docker.Start(t)
	out, err := exec.Command(docker.Program, "-H", d.Host, "info", "--format",
		"{{.Driver}} {{.Containers}}").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "vfs 0\n", string(out))
}
