//go:build linux

package kube

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOneKubeletAMachine(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "kubelet") // t.TempDir is too long for a socket
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, freeOfKubelets(dir))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "device-plugins"), 0o755))
	socket := filepath.Join(dir, "device-plugins", "kubelet.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	require.NoError(t, err)
	require.ErrorContains(t, freeOfKubelets(dir), "a kubelet runs on this machine")
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	require.ErrorContains(t, freeOfKubelets(dir), "a kubelet ran on this machine: delete "+dir)
}

func TestLongTemporaryDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	require.NoError(t, shortEnough("/tmp/"+strings.Repeat("d", 77)))
	require.ErrorContains(t, shortEnough("/tmp/"+strings.Repeat("d", 80)), "3 bytes too long")
}
