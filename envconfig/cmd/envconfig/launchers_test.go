//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/services"
)

// real returns a service of the catalogue.
func real(t *testing.T, name string) services.Service {
	t.Helper()
	for _, s := range services.All {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no service %q", name)
	return services.Service{}
}

// Programs that change the user and become the service, or wait for it, change nothing about its
// stop. No Debian package brings su-exec: a program of the test behaves as it does.
func TestLaunchers(t *testing.T) {
	t.Parallel()
	testbed.NeedRoot(t, "services with users of their own")
	testbed.NeedProgram(t, "gosu", "gosu")
	testbed.NeedProgram(t, "chpst", "runit")
	for launcher, service := range map[string]string{
		"gosu root": "apache", "gosu www-data": "node",
		"setpriv --reuid=0 --regid=0 --clear-groups":  "haproxy",
		"setpriv --reuid=33 --regid=33 --init-groups": "node",
		"chpst -u root":                                     "nginx and php-fpm",
		"chpst -u www-data":                                 "gunicorn",
		"su -s /bin/sh www-data -c":                         "node",
		"runuser -u www-data --":                            "node",
		"gosu root nice setpriv --no-new-privs chpst -n +1": "apache",
		"env SLUICE_TEST_APP=su-exec DIR/su-exec root":      "apache",
		"env SLUICE_TEST_APP=su-exec DIR/su-exec www-data":  "node",
	} {
		// env would take a directory with = in its name for a variable
		t.Run(strings.ReplaceAll(launcher+" "+service, "=", " "), func(t *testing.T) {
			t.Parallel()
			s := real(t, service)
			if strings.HasSuffix(launcher, " -c") {
				s.Command = launcher + " '" + s.Command + "'"
			} else {
				s.Command = launcher + " " + s.Command
			}
			l := lay(t, s)
			if strings.Contains(launcher, "su-exec") {
				self, err := os.Executable()
				require.NoError(t, err)
				require.NoError(t, os.Symlink(self, strings.Fields(l.CommandLine(
					services.Ways[0]))[2]))
				require.NoError(t, os.Chmod(filepath.Dir(self), 0o755))
			}
			stopAtWork(t, l, services.Ways[0], "--grace 2m ").finished(t, l)
		})
	}
}

// A JVM prints its threads at SIGQUIT and goes on: neither the request nor the service ends.
func TestQuitOfAJVM(t *testing.T) {
	t.Parallel()
	testbed.NeedRoot(t, "a mount namespace")
	l := lay(t, real(t, "java"))
	s := startWith(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
		services.Isolate()+l.SetUp()+`exec "$E" --grace 1ms -- `+l.CommandLine(services.Ways[2]))
	ctx, cancel := context.WithTimeout(t.Context(), workTime)
	defer cancel()
	work, err := l.Begin(ctx, s.output.String)
	require.NoError(t, err)
	s.signal(syscall.SIGQUIT)
	s.sees("Full thread dump")
	require.NoError(t, work.Whole())
	require.NotContains(t, s.output.String(), "grace time over")
	s.signal(syscall.SIGTERM)
	require.Contains(t, []int{143, 137}, s.ends())
}
