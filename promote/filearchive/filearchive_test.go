package filearchive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/archivetest"
	"github.com/sluice-deploy/sluice/promote/filearchive"
)

func TestArchive(t *testing.T) {
	t.Parallel()
	archivetest.Run(t, func(t *testing.T) promote.Archive {
		a, err := filearchive.Open(filearchive.Config{Dir: filepath.Join(t.TempDir(), "segments")})
		require.NoError(t, err)
		return a
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, dir := range []string{"", file} {
		_, err := filearchive.Open(filearchive.Config{Dir: dir})
		require.ErrorIs(t, err, promote.ErrInvalid)
		require.ErrorContains(t, err, "filearchive: Config.Dir: ")
	}
}

func TestNamesStayInTheDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := filearchive.Open(filearchive.Config{Dir: filepath.Join(dir, "segments")})
	require.NoError(t, err)
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/etc/passwd"} {
		require.ErrorIs(t, a.Put(t.Context(), name, nil), promote.ErrInvalid, name)
		_, err := a.Get(t.Context(), name)
		require.ErrorIs(t, err, promote.ErrInvalid, name)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func Example() {
	dir, err := os.MkdirTemp("", "segments")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	archive, err := filearchive.Open(filearchive.Config{Dir: dir})
	fmt.Println(archive != nil, err)
	// promote.New(promote.Config{Archive: archive, …}), then Promoter.Archive each night
	// Output: true <nil>
}
