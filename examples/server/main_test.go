package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func env(string) string { return "" }

// with returns valid arguments, followed by args, which override them.
func with(t *testing.T, args ...string) []string {
	return append([]string{
		"-data", filepath.Join(t.TempDir(), "data"), "-envconfig", os.Args[0], "-listen",
		"127.0.0.1:0", "-registry", "127.0.0.1:0", "-door", "", "-door-shared", "",
	}, args...)
}

func TestBadFlagIsNamed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	cases := []struct{ flag, value, want string }{
		{"data", "", "want the path of a directory"},
		{"data", file, "not a directory"},
		{"data", filepath.Join(t.TempDir(), "a b"), "letters, digits and /._- only"},
		{"data", filepath.Join(t.TempDir(), strings.Repeat("long/", 30)), "choose a shorter one"},
		{"listen", "", "want host:port"},
		{"listen", "127.0.0.1", "want host:port"},
		{"listen", "127.0.0.1:99999", "want a port up to 65535"},
		{"listen", "0.0.0.0:0", "set SLUICE_TOKEN"},
		{"listen", "192.0.2.1:0", "set SLUICE_TOKEN"},
		{"registry", "", "want host:port"},
		{"registry", "127.0.0.1:-1", "want a port up to 65535"},
		{"registry", "0.0.0.0:0", "loopback address only"},
		{"pool", "", `range ""`},
		{"pool", "foo", `range "foo"`},
		{"pool", "127.58.0.0/33", `range "127.58.0.0/33"`},
		{"pool", "::1/120", "host bits are set"},
		{"pool", "192.0.2.0/24", "192.0.2.1 is not an address of this machine"},
		{"pool", "127.58.0.9-127.58.0.1", "first is after last"},
		{"nginx", "/nonexistent", "want a tree with nginx.conf in it"},
		{"nginx", "relative/nonexistent", "want a tree with nginx.conf in it"},
		{"nginx", file, "want a tree with nginx.conf in it"},
		{"nginx-port", "99999", "want a port from 1 to 65535"},
		{"nginx-port", "-1", "want a port from 1 to 65535"},
		{"nginx-port", "http", "parse error"},
		{"nginx-tls-port", "99999", "or a port from 1 to 65535"},
		{"nginx-tls-port", "8880", "other than NginxPort"},
		{"envconfig", "/nonexistent", "build it with: CGO_ENABLED=0 go build -o /nonexistent"},
		{"envconfig", t.TempDir(), "is no regular file"},
		{"cool-down", "-5s", "want 0 for the default, or more"},
		{"cool-down", "1000000h", "up to 100 years"},
		{"cool-down", "long", "parse error"},
		{"task-ttl", "-1h", "want 0 for the default, or more"},
		{"drain", "-1s", "want 0 for the default, or more"},
		{"builds", "-1", "want 0 for the default, or up to 64"},
		{"builds", "65", "want 0 for the default, or up to 64"},
		{"fetch", "git,ftp", `"ftp": want rsync, git, archive or artifact`},
		{"build-policy", "newest", "want parallel, serial or latestOnly"},
		{"door", "21000", "want first-last"},
		{"door-host", "localhost", "want an IP address"},
		{"door-shared", "8801", "want host:port"},
		{"door-client", "via", "want x-forwarded-for"},
		{"rules", "/nonexistent", "no such file"},
		{"rules", file, "rules"},
		{"breakers", "ann,a\x00b", "a\\x00b"},
		{"adopters", "ann,a\nb", "a\\nb"},
		{"templates", "/nonexistent", "no such file"},
		{"templates", file, "not a directory"},
		{"tls-proxy", "true", "set SLUICE_TOKEN"},
		{"keep-baseline", "perhaps", "parse error"},
		{"keep", "perhaps", "parse error"},
		{"stop", "perhaps", "parse error"},
	}
	named := map[string]bool{}
	for _, tc := range cases {
		named[tc.flag] = true
		t.Run(tc.flag+"="+filepath.Base(tc.value), func(t *testing.T) {
			t.Parallel()
			err := run(t.Context(), with(t, "-"+tc.flag+"="+tc.value), env, io.Discard)
			require.ErrorContains(t, err, "-"+tc.flag)
			require.ErrorContains(t, err, tc.want)
		})
	}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	new(options).define(f)
	f.VisitAll(func(f *flag.Flag) { require.True(t, named[f.Name], "-%s has no case", f.Name) })
}

func TestAllBadFlagsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), with(t, "-pool=foo", "-nginx-port=0", "-task-ttl=-1s", "-listen=x"),
		env, io.Discard)
	for _, want := range []string{"-pool", "-nginx-port", "-task-ttl", "-listen"} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, run(t.Context(), []string{"left"}, env, io.Discard),
		`unexpected argument "left"`)
}

// TestREADMEHasEveryFlag holds the table of README.md against the flags.
func TestREADMEHasEveryFlag(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var want, got []string
	f := flag.NewFlagSet("", flag.ContinueOnError)
	new(options).define(f)
	f.VisitAll(func(f *flag.Flag) {
		_, usage := flag.UnquoteUsage(f)
		value := f.DefValue
		if value == "0" || value == "0s" || value == "false" {
			value = ""
		}
		want = append(want, strings.TrimSpace(fmt.Sprintf("| `-%s` | %s | %s |", f.Name, value,
			usage)))
	})
	for line := range strings.Lines(string(readme)) {
		if strings.HasPrefix(line, "| `-") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	require.Equal(t, want, got)
}

// TestEndWhileStarting stands for a signal that arrives before everything is open.
func TestEndWhileStarting(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the signal"))
	var log bytes.Buffer
	require.NoError(t, run(ctx, with(t), env, &log))
	require.Contains(t, log.String(), "asked to end before it had started")
	require.NotContains(t, log.String(), "the page is at")
}
