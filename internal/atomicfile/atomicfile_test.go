package atomicfile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
)

func Example() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "state.json")
	_ = atomicfile.Write(name, []byte("old"), 0o600)
	_ = atomicfile.Write(name, []byte("new"), 0o640)
	data, _ := os.ReadFile(name)
	info, _ := os.Stat(name)
	fmt.Println(string(data), info.Mode())
	// Output: new -rw-r-----
}

func TestWriteErrorLeavesOldFileAndNoLitter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "d")
	// a directory that rename cannot replace
	require.NoError(t, os.MkdirAll(filepath.Join(target, "full"), 0o755))

	require.ErrorContains(t, atomicfile.Write(target, []byte("x"), 0o600), target)

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.DirExists(t, filepath.Join(target, "full"))
}

func TestWriteIntoMissingDirectory(t *testing.T) {
	t.Parallel()
	err := atomicfile.Write(filepath.Join(t.TempDir(), "no", "file"), nil, 0o600)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestRoom(t *testing.T) {
	t.Parallel()
	require.NoError(t, atomicfile.Room(nil))
	require.Equal(t, os.ErrPermission, atomicfile.Room(os.ErrPermission))
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		err := atomicfile.Room(fmt.Errorf("write a: %w", full))
		require.ErrorIs(t, err, full)
		require.EqualError(t, err, "write a: "+full.Error()+
			": make room in that file system, then ask again")
	}
}
