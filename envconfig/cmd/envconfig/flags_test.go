//go:build linux

package main

import (
	"bytes"
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig/entry"
)

// Every flag can be given as a variable as well, is in the help, and one on the command line counts more.
func TestFlagsAreVariablesToo(t *testing.T) {
	t.Parallel()
	values := map[string]string{
		"source": "/s", "root": "/r", "state": "/t", "var": "STAGE", "quiet": "true", "init": "false", "durable": "true", "grace": "8s", "on-main-exit": "wait", "map-exit": "143:0\n130:1",
		"pristine": "true", "unset": "SECRET_*\nTOKEN", "set": "A=1\nB=2 3", "dry-run": "true", "label": "true", "bake": "true",
	}
	var help bytes.Buffer
	require.ErrorIs(t, (&command{stdout: &help}).parse([]string{"--help"}), flag.ErrHelp)
	env := []string{"PATH=/bin"}
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	(&command{stdout: io.Discard}).define(fs)
	n := 0
	fs.VisitAll(func(f *flag.Flag) {
		n++
		require.Contains(t, values, f.Name)
		require.Contains(t, help.String(), "-"+f.Name)
		env = append(env, "ENVCONFIG_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))+"="+values[f.Name])
	})
	require.Len(t, values, n)
	require.Contains(t, help.String(), "examples:")

	c := &command{env: env, stdout: io.Discard}
	require.NoError(t, c.parse([]string{"--grace", "9s", "--", "cmd", "-x"}))
	require.Equal(t, []string{"cmd", "-x"}, c.args)
	require.Equal(t, options{
		source: "/s", root: "/r", state: "/t", variable: "STAGE", quiet: true, init: "false", durable: true, grace: 9 * time.Second, onMainExit: entry.Wait, mapExit: map[int]int{143: 0, 130: 1},
		environ: entry.Environ{Pristine: true, Unset: []string{"SECRET_*", "TOKEN"}, Set: []string{"A=1", "B=2 3"}}, dryRun: true, label: true, bake: true,
	}, c.options)
	for _, bad := range []string{"ENVCONFIG_INIT=s3cret", "ENVCONFIG_GRACE=s3cret", "ENVCONFIG_ON_MAIN_EXIT=s3cret", "ENVCONFIG_MAP_EXIT=s3cret", "ENVCONFIG_SET=s3cret", "ENVCONFIG_UNSET=["} {
		err := (&command{env: []string{bad}, stdout: io.Discard}).parse(nil)
		require.Equal(t, 64, exitCode(err), bad)
		require.NotContains(t, err.Error(), "s3cret", bad)
	}
}

// Every flag refuses a bad value with 64 and an error that names the flag, on the command line and as a
// variable.
func TestFlagsRefuseBadValues(t *testing.T) {
	t.Parallel()
	values := map[string][]string{
		"source": {"", "a\x00b"}, "root": {""}, "state": {""}, "var": {"", "A=B"},
		"quiet": {"", "maybe"}, "durable": {"2"}, "pristine": {"x"}, "dry-run": {"x"}, "label": {"x"}, "bake": {"x"},
		"init": {"perhaps", ""}, "grace": {"0", "-1s", "8", "x", ""}, "on-main-exit": {"", "go"},
		"map-exit": {"143", "256:0", "1:-1", "a:b"}, "unset": {"["}, "set": {"NAME", "=x"},
	}
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	(&command{}).define(fs)
	n := 0
	fs.VisitAll(func(f *flag.Flag) {
		n++
		require.NotEmpty(t, values[f.Name], "bad values of -%s", f.Name)
		for _, value := range values[f.Name] {
			variable := variables + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) + "=" + value
			for _, c := range []struct{ args, env []string }{
				{[]string{"-" + f.Name + "=" + value}, nil},
				{nil, []string{variable}},
			} {
				err := (&command{env: c.env, stdout: io.Discard}).parse(c.args)
				require.Equal(t, 64, exitCode(err), "-%s %q: %v", f.Name, value, err)
				require.ErrorContains(t, err, "-"+f.Name)
			}
		}
	})
	require.Len(t, values, n)
}
