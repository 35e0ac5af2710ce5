package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBadFlagIsNamed(t *testing.T) {
	t.Parallel()
	precious := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(precious, []byte("x"), 0o600))
	named := map[string]bool{}
	for _, tc := range []struct{ flag, value, want string }{
		{"once", "perhaps", "parse error"},
		{"server", "/nonexistent", "make binaries"},
		{"server", "", "make binaries"},
		{"data", filepath.Dir(precious), "would be deleted"},
		{"data", precious, "not a directory"},
		{"examples", "/nonexistent", "want the directory of the examples module"},
		{"examples", "", "want the directory of the examples module"},
	} {
		named[tc.flag] = true
		err := run(t.Context(), []string{"-server", os.Args[0], "-examples", "..", "-" +
			tc.flag + "=" + tc.value}, io.Discard)
		require.ErrorContains(t, err, "-"+tc.flag)
		require.ErrorContains(t, err, tc.want)
	}
	require.FileExists(t, precious)
	f := flag.NewFlagSet("", flag.ContinueOnError)
	new(options).define(f)
	f.VisitAll(func(f *flag.Flag) { require.True(t, named[f.Name], "-%s has no case", f.Name) })
}

// Where Nginx cannot take the path of the working directory, the data goes below the temporary
// directory.
func TestDefaultData(t *testing.T) {
	plain, blank := filepath.Join(t.TempDir(), "plain"), filepath.Join(t.TempDir(), "a b")
	for _, dir := range []string{plain, blank} {
		require.NoError(t, os.Mkdir(dir, 0o755))
	}
	t.Chdir(plain) // not parallel: for the whole process
	require.Equal(t, filepath.Join(".cache", "demo"), defaultData())
	t.Chdir(blank)
	require.Contains(t, defaultData(), filepath.Join(os.TempDir(), "sluice-demo-"))
}
