package web_test

import (
	"archive/tar"
	"bytes"
	"net/http"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// tarOf returns an archive of one file.
func tarOf(t *testing.T, name string, content []byte) *bytes.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)),
		Uid: os.Getuid(), Gid: os.Getgid()}))
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return bytes.NewReader(b.Bytes())
}

// TestFullDisk uploads more than the server's file system holds: the answer is 507, the source that
// was there stays, and the next upload that fits is taken.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	testbed.NeedRoot(t, "a file system of its own")
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	s := servertest.Start(t, servertest.Config{Dir: dir})
	put := func(size int) (int, string) {
		response, answer := s.Do(t, http.MethodPut, "/sources/web", tarOf(t, "app",
			bytes.Repeat([]byte("x"), size)))
		return response.StatusCode, string(answer)
	}
	status, answer := put(1000)
	require.Equal(t, http.StatusOK, status, answer)
	for range 3 {
		status, answer = put(32 << 20)
		require.Equal(t, http.StatusInsufficientStorage, status, answer)
		require.NotContains(t, answer, dir)
		kept, err := os.Stat(dir + "/sources/web/app")
		require.NoError(t, err)
		require.EqualValues(t, 1000, kept.Size(), "the source that was there")
	}
	status, answer = put(2000)
	require.Equal(t, http.StatusOK, status, answer)
	kept, err := os.Stat(dir + "/sources/web/app")
	require.NoError(t, err)
	require.EqualValues(t, 2000, kept.Size())
	entries, err := os.ReadDir(dir + "/sources")
	require.NoError(t, err)
	require.Len(t, entries, 1, "no part of an upload is left")
}
