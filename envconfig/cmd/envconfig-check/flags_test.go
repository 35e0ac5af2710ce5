package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every flag refuses a bad value with 2 and an error that names the flag, on the command line and
// as a variable.
func TestFlagsRefuseBadValues(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "envs/test/etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "envs/test/etc/app"), nil, 0o644))
	dockerfile := filepath.Join(dir, "Dockerfile")
	require.NoError(t, os.WriteFile(dockerfile, []byte("FROM x\nENTRYPOINT [\"/app\"]\n"), 0o644))
	values := map[string][]string{
		"source": {"", dir + "/absent", "a\x00b"}, "state": {""}, "format": {"", "xml"},
		"dockerfile": {dir + "/absent"}, "image-root": {dir + "/absent"}, "matrix": {"x"},
		"bake":     {"x"},
		"baseline": {dir + "/absent", dockerfile}, "write-baseline": {dir + "/absent/x"},
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	(&command{}).define(flags)
	n := 0
	flags.VisitAll(func(f *flag.Flag) {
		n++
		require.NotEmpty(t, values[f.Name], "bad values of -%s", f.Name)
		for _, value := range values[f.Name] {
			good := []string{"check", "--source", dir}
			if f.Name == "source" {
				good = good[:1]
			}
			if f.Name == "image-root" {
				good = append(good, "--dockerfile", dockerfile)
			}
			variable := "ENVCONFIG_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) + "=" +
				value
			for _, c := range []struct{ args, env []string }{
				{append(good, "-"+f.Name+"="+value), nil},
				{good, []string{variable}},
			} {
				var stdout, stderr bytes.Buffer
				require.Equal(t, 2, run(c.args, c.env, &stdout, &stderr), "-%s %q: %s", f.Name,
					value, &stdout)
				require.Contains(t, stderr.String(), "-"+f.Name)
			}
		}
	})
	require.Len(t, values, n)

	var stdout, stderr bytes.Buffer
	args := []string{"manifest", "--source", dir}
	require.Zero(t, run(args, []string{"ENVCONFIG_FORMAT=junit"}, &stdout, &stderr), "%s", &stderr)

	for _, args := range [][]string{{"diff", "--format", "junit", "test", "test"},
		{"explain", "--format=xml", "k"}} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 2, run(args, nil, &stdout, &stderr))
		require.Contains(t, stderr.String(), "--format")
	}
}
