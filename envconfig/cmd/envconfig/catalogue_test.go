//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/services"
)

// outcome is how a stop with work in flight went.
type outcome struct {
	whole  error // nil: the work was finished
	code   int
	output string
}

// workTime bounds how long a service may take to be ready and to finish its work on a busy machine.
const workTime = 4 * time.Minute

// lay writes a service's files into a directory of the test, which other users may write.
func lay(t *testing.T, s services.Service) *services.Laid {
	t.Helper()
	s.Need(t)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	require.NoError(t, os.Chmod(dir, 0o777))
	l, err := s.Lay(dir, testbed.Port(t))
	require.NoError(t, err)
	return l
}

// stopAtWork starts a service behind envconfig, as process 1 of a PID namespace, stops it while it
// is at work, and waits for its end. flags are those of envconfig.
func stopAtWork(t *testing.T, l *services.Laid, way services.Way, flags string) outcome {
	t.Helper()
	s := startWith(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
		services.Isolate()+l.SetUp()+`exec "$E" `+flags+l.EnvconfigFlags()+`-- `+l.CommandLine(way))
	ctx, cancel := context.WithTimeout(t.Context(), workTime)
	defer cancel()
	work, err := l.Begin(ctx, s.output.String)
	require.NoError(t, err)
	s.signal(syscall.SIGTERM)
	o := outcome{code: s.ends()}
	o.whole, o.output = work.Whole(), work.Output()
	return o
}

// finished holds the outcome to a stop that lost no work and did not wait for the grace time.
func (o outcome) finished(t *testing.T, l *services.Laid) {
	t.Helper()
	require.NoError(t, o.whole)
	require.Contains(t, []int{0, 143}, o.code, "%s", o.output)
	require.NotContains(t, o.output, "grace time over")
	if l.Flags == "" {
		require.NotContains(t, o.output, services.WentOn)
	}
}

// Every service of the catalogue finishes the work that it is at when it is stopped, however the
// image starts it, and none is killed for outliving the grace time.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	testbed.NeedRoot(t, "services with users of their own")
	for i, r := range services.All {
		for j, way := range services.Ways {
			if !soak.Whole() && j != i%len(services.Ways) {
				continue // each service one way, each way several services
			}
			t.Run(r.Name+"/"+way.Name, func(t *testing.T) {
				t.Parallel()
				l := lay(t, r)
				// the last call would come after the test has given up
				stopAtWork(t, l, way, "--grace 1h ").finished(t, l)
			})
		}
	}
}
