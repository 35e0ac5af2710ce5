package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Not parallel: the limit is one for the package.
func TestLogBeginsAgain(t *testing.T) {
	before := maxLog
	maxLog = 100
	defer func() { maxLog = before }()
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path)
	require.NoError(t, err)
	line := strings.Repeat("x", 29) + "\n"
	for range 20 {
		_, err := l.Write([]byte(line))
		require.NoError(t, err)
	}
	require.NoError(t, l.Close())
	l, err = openLog(path) // which goes on where it was
	require.NoError(t, err)
	_, err = l.Write([]byte("the last\n"))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	for name, end := range map[string]string{path: "the last\n", path + ".1": line} {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		require.LessOrEqual(t, len(data), 100)
		require.True(t, strings.HasSuffix(string(data), end), name)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 2)
}
