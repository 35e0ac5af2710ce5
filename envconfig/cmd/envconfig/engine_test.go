//go:build linux

package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed/engine"
	"github.com/sluice-deploy/sluice/internal/testbed/services"
)

// Under real runtimes, too, a service that is stopped finishes the work that it is at and does not
// wait for the grace time.
func TestCatalogueUnderRuntimes(t *testing.T) {
	t.Parallel()
	for n, r := range []struct {
		name  string
		start func(testing.TB) engine.Engine
	}{{"docker stop", engine.Docker}, {"runc kill", engine.Runc}} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			e := r.start(t)
			for i, s := range services.All {
				for j, way := range services.Ways {
					// each service under one runtime, one way; the rest in make soak
					if !soak.Whole() && (i%2 != n || j != (i/2+n)%len(services.Ways)) {
						continue
					}
					t.Run(s.Name+"/"+way.Name, func(t *testing.T) {
						t.Parallel()
						l := lay(t, s)
						stopContainer(t, e, l, way).finished(t, l)
					})
				}
			}
		})
	}
}

// stopContainer starts a service behind envconfig in a container, stops the container while the
// service is at work, and waits for its end.
func stopContainer(t *testing.T, e engine.Engine, l *services.Laid, way services.Way) outcome {
	t.Helper()
	exe, err := binary()
	require.NoError(t, err)
	dir := source(t)
	const grace = 2 * time.Minute
	c := e.Run(t, engine.Spec{
		Line: l.SetUp() + `exec ` + exe + ` --grace 100s ` + l.EnvconfigFlags() + `-- ` +
			l.CommandLine(way),
		Env: []string{"DEPLOY_ENV=test", "ENVCONFIG_SOURCE=" + dir + "/src", "ENVCONFIG_ROOT=" +
			dir + "/root", "ENVCONFIG_STATE=" + dir + "/run"},
		Dirs: []string{filepath.Dir(dir), filepath.Dir(exe)},
	})
	ctx, cancel := context.WithTimeout(t.Context(), workTime)
	defer cancel()
	work, err := l.Begin(ctx, c.Output)
	require.NoError(t, err)
	code, err := c.Stop(grace)
	require.NoError(t, err)
	o := outcome{code: code}
	o.whole, o.output = work.Whole(), work.Output()
	return o
}

// Root in a container may not see which program a process of another user runs: the name that the
// process has given itself tells.
func TestServiceOfAnotherUser(t *testing.T) {
	t.Parallel()
	s := real(t, "nginx and php-fpm")
	files := map[string]string{}
	for name, text := range s.Files {
		files[name] = strings.NewReplacer("/proc/self/fd/2", "DIR/log", "error_log stderr",
			"error_log DIR/log", "user root;", "").Replace(text)
	}
	s.Files, s.Command = files, "setpriv --reuid=33 --regid=33 --clear-groups sh DIR/both.sh"
	e := engine.Runc(t)
	l := lay(t, s)
	stopContainer(t, e, l, services.Ways[0]).finished(t, l)
}
