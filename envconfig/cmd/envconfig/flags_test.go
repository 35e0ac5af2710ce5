//go:build linux

package main

import (
	"bytes"
	"flag"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig/entry"
)

// Every flag can be given as a variable as well, is in the help, and one on the command line counts
// more.
func TestFlagsAreVariablesToo(t *testing.T) {
	t.Parallel()
	values := map[string]string{
		"source": "/s", "root": "/r", "state": "/t", "var": "STAGE", "quiet": "true",
		"init": "false", "durable": "true", "in-place": "true", "grace": "8s", "on-main-exit": "wait",
		"map-exit": "143:0\n130:1",
		"scope":    "group", "rewrite": "TERM:SIGQUIT\n2:15", "stop-signal": "rtmin+3",
		"pid-file": "/run/x.pid", "parent-death": "TERM",
		"drain-signal": "USR1", "drain-port": "80\n8080", "drain-time": "3s",
		"pristine": "true", "unset": "SECRET_*\nTOKEN", "set": "A=1\nB=2 3", "dry-run": "true",
		"label": "true", "bake": "true",
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
		env = append(env, "ENVCONFIG_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))+"="+
			values[f.Name])
	})
	require.Len(t, values, n)
	require.Contains(t, help.String(), "examples:")

	c := &command{env: env, stdout: io.Discard}
	require.NoError(t, c.parse([]string{"--grace", "9s", "--", "cmd", "-x"}))
	require.Equal(t, []string{"cmd", "-x"}, c.args)
	require.Equal(t, options{
		source: "/s", root: "/r", state: "/t", variable: "STAGE", quiet: true, init: "false",
		durable: true, inPlace: true,
		service: entry.Init{
			Grace: 9 * time.Second, OnMainExit: entry.Wait, MapExit: map[int]int{143: 0, 130: 1},
			Scope: entry.Group,
			Rewrite: map[syscall.Signal]syscall.Signal{syscall.SIGTERM: syscall.SIGQUIT,
				syscall.SIGINT: syscall.SIGTERM},
			StopSignal: 37, PIDFile: "/run/x.pid", ParentDeath: syscall.SIGTERM,
		},
		environ: entry.Environ{Pristine: true, Unset: []string{"SECRET_*", "TOKEN"},
			Set: []string{"A=1", "B=2 3"}}, dryRun: true, label: true, bake: true,
		drainSignal: syscall.SIGUSR1, drainPorts: []int{80, 8080}, drainTime: 3 * time.Second,
	}, c.options)
	for _, bad := range []string{"ENVCONFIG_INIT=s3cret", "ENVCONFIG_GRACE=s3cret",
		"ENVCONFIG_ON_MAIN_EXIT=s3cret", "ENVCONFIG_MAP_EXIT=s3cret", "ENVCONFIG_SET=s3cret",
		"ENVCONFIG_UNSET=["} {
		err := (&command{env: []string{bad}, stdout: io.Discard}).parse(nil)
		require.Equal(t, 64, exitCode(err), bad)
		require.NotContains(t, err.Error(), "s3cret", bad)
	}
}

// Every flag refuses a bad value with 64 and an error that names the flag, on the command line and
// as a variable.
func TestFlagsRefuseBadValues(t *testing.T) {
	t.Parallel()
	values := map[string][]string{
		"source": {"", "a\x00b"}, "root": {""}, "state": {""}, "var": {"", "A=B"},
		"quiet": {"", "maybe"}, "durable": {"2"}, "in-place": {"x"}, "pristine": {"x"}, "dry-run": {"x"},
		"label": {"x"}, "bake": {"x"},
		"init": {"perhaps", ""}, "grace": {"0", "-1s", "8", "x", ""}, "on-main-exit": {"", "go"},
		"scope": {"", "all"}, "rewrite": {"TERM", "TERM:", "TERM:KILL", "STOP:TERM", "TERM:QUITT",
			"0:1"},
		"stop-signal": {"", "KILL", "65", "RTMIN+31", "-1"}, "pid-file": {"", "a\x00b"},
		"parent-death": {"", "KILL", "x"},
		"drain-signal": {"", "KILL"}, "drain-port": {"0", "65536", "http"},
		"drain-time": {"0", "-1s", ""},
		"map-exit":   {"143", "256:0", "1:-1", "a:b"}, "unset": {"["}, "set": {"NAME", "=x"},
	}
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	(&command{}).define(fs)
	n := 0
	fs.VisitAll(func(f *flag.Flag) {
		n++
		require.NotEmpty(t, values[f.Name], "bad values of -%s", f.Name)
		for _, value := range values[f.Name] {
			variable := variables + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) + "=" +
				value
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

// The error of a time without a unit, and of a signal or an exit code that is replaced twice, names
// the right form. A flag counts before its variable.
func TestErrorsOfFlagsNameTheRightForm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args, env []string
		want      string
	}{
		{[]string{"--grace", "5"}, nil, "-grace: must be a time with its unit, such as 5s"},
		{nil, []string{"ENVCONFIG_GRACE=5"}, "-grace: must be a time with its unit, such as 5s"},
		{nil, []string{"ENVCONFIG_DRAIN_TIME=s3cret"}, "-drain-time: must be a time with its unit"},
		{[]string{"--rewrite", "TERM:QUIT", "--rewrite", "15:INT"}, nil,
			"-rewrite: must replace signal 15 once only"},
		{nil, []string{"ENVCONFIG_REWRITE=TERM:QUIT\nTERM:INT"},
			"-rewrite: must replace signal 15 once only"},
		{[]string{"--map-exit", "143:0", "--map-exit=143:1"}, nil,
			"-map-exit: must replace exit code 143 once only"},
	} {
		err := (&command{env: c.env, stdout: io.Discard}).parse(c.args)
		require.Equal(t, 64, exitCode(err), "%v", err)
		require.ErrorContains(t, err, c.want)
		require.NotContains(t, err.Error(), "s3cret")
	}
	c := &command{env: []string{"ENVCONFIG_REWRITE=TERM:QUIT"}, stdout: io.Discard}
	require.NoError(t, c.parse([]string{"--rewrite", "TERM:INT", "--rewrite", "HUP:USR1"}))
	require.Equal(t, map[syscall.Signal]syscall.Signal{syscall.SIGTERM: syscall.SIGINT,
		syscall.SIGHUP: syscall.SIGUSR1}, c.service.Rewrite)
}

// A variable that stands for no flag is refused with the nearest name, but for those of Kubernetes'
// service links.
func TestVariablesThatStandForNoFlag(t *testing.T) {
	t.Parallel()
	for variable, near := range map[string]string{
		"ENVCONFIG_GRACEE=8s":          "ENVCONFIG_GRACE",
		"ENVCONFIG_REWRITES=TERM:QUIT": "ENVCONFIG_REWRITE",
		"ENVCONFIG_MAPEXIT=s3cret":     "ENVCONFIG_MAP_EXIT", "ENVCONFIG_grce=1": "ENVCONFIG_GRACE",
		"envconfig_grace=8s": "ENVCONFIG_GRACE", "Envconfig_Rewrite=TERM:QUIT": "ENVCONFIG_REWRITE",
		"ENVCONFIG_=s3cret":               "see envconfig --help",
		"ENVCONFIG_COLOUR_OF_THE_LOG=red": "see envconfig --help",
	} {
		err := (&command{env: []string{"A=1", variable}, stdout: io.Discard}).parse(nil)
		require.Equal(t, 64, exitCode(err), variable)
		require.ErrorContains(t, err, near, variable)
		require.NotContains(t, err.Error(), "s3cret")
	}
	links := []string{
		"ENVCONFIG_SERVICE_HOST=10.0.0.1", "ENVCONFIG_SERVICE_PORT=80",
		"ENVCONFIG_SERVICE_PORT_HTTP=80",
		"ENVCONFIG_PORT=tcp://10.0.0.1:80", "ENVCONFIG_PORT_80_TCP=tcp://10.0.0.1:80",
		"ENVCONFIG_PORT_80_TCP_ADDR=10.0.0.1",
		"ENVCONFIG_DEMO_SERVICE_HOST=10.0.0.1", "ENVCONFIG_DEMO_PORT=tcp://10.0.0.1:80",
	}
	require.NoError(t, (&command{env: links, stdout: io.Discard}).parse(nil))
}
