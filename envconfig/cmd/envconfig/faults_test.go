//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A service in the background keeps its exit code.
func TestExitCodeOfAServiceInTheBackground(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags, script string
		want          int
	}{
		"its own": {"", `(setsid sh -c 'sleep 0.1; exit 3' &)`, 3},
		"died of a signal": {"", `(setsid sh -c 'sleep 0.1; kill -SEGV $$' &)`,
			139},
		"died before its worker": {"",
			`(setsid sh -c 'sleep 0.4 & sleep 0.1; kill -SEGV $$' &)`, 139},
		"a helper fails before it": {"",
			`(sh -c 'echo $$ > helper; exit 4' &); (setsid sh -c 'until [ -s helper ] && ! kill -0 "$(cat helper)" 2>&-; do :; done' &)`,
			0},
		"the start script fails": {"", `(setsid sleep 0.1 &); exit 6`, 6},
		"of the PID file": {"--pid-file pid",
			`(setsid sh -c 'echo $$ > pid; sleep 0.2; exit 3' &); (setsid sh -c 'sleep 600' &)`, 3},
		"of a PID file that comes later": {"--pid-file pid",
			`(setsid sh -c 'sleep 0.1; echo $$ > pid; sleep 0.3; kill -SEGV $$' &); (setsid sh -c 'sleep 600' &)`, 139},
		"of a PID file of an earlier container": {"--pid-file pid",
			`sleep 0.3 & echo $! > pid; touch -d '1 hour ago' pid; (setsid sh -c 'sleep 0.6; echo $$ > pid; sleep 0.2; exit 3' &)`,
			3},
		"of a PID file with more lines, as PostgreSQL's": {"--pid-file pid",
			`(setsid sh -c 'printf "%s\n/var/lib\n5432\n" $$ > pid; sleep 0.2; exit 3' &); (setsid sleep 600 &)`,
			3},
		"of a PID file that is a pipe": {"--pid-file pid",
			`mkfifo pid; (setsid sh -c 'sleep 0.1; exit 3' &)`, 3},
		"died before its start script": {"--pid-file pid",
			`(setsid sh -c 'echo $$ > pid; exit 3' &); until [ -s pid ] && ! kill -0 "$(cat pid)" 2>&-; do :; done; (setsid sleep 600 &)`,
			3},
		"has left the PID file to another": {"--pid-file pid",
			`(setsid sh -c 'echo $$ > pid; sleep 0.2; setsid sh -c "echo \$\$ > pid; sleep 0.3; exit 3" & until p=$(cat pid); [ -n "$p" ] && [ "$p" != $$ ]; do :; done' &)`,
			3},
		"is waited for by another": {"--pid-file pid",
			`(setsid sh -c 'sh -c "sleep 0.2; exit 4" & echo $! > pid; wait $!; exit 3' &)`, 3},
		"of a PID file that is left behind": {"--pid-file pid",
			`echo 1 > pid; (setsid sh -c 'sleep 0.1; exit 3' &)`, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, `ulimit -c 0; cat > start.sh <<'END'
`+c.script+`
END
exec "$E" --on-main-exit=wait `+c.flags+` -- sh start.sh`)
			require.Equal(t, c.want, s.ends(), "%v", s.output)
		})
	}
}

// A full pipe without a reader holds up neither the start nor the end.
func TestFullLogHoldsNothingUp(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	require.NoError(t, err)
	for _, mode := range []string{"--init=true", "--init=false"} {
		s := start(t, `exec "$E" --quiet -- true`)
		require.Equal(t, 0, s.ends())
		unread, log, err := os.Pipe()
		require.NoError(t, err)
		defer unread.Close()
		fd := int(log.Fd())
		require.NoError(t, syscall.SetNonblock(fd, true))
		for err == nil {
			_, err = syscall.Write(fd, make([]byte, 1))
		}
		require.ErrorIs(t, err, syscall.EAGAIN)
		require.NoError(t, syscall.SetNonblock(fd, false))
		cmd := exec.Command(exe, mode, "--", "/bin/sh", "-c", "exit 7")
		cmd.Env, cmd.Stderr = s.cmd.Env, log
		require.NoError(t, cmd.Start())
		hangs := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		hangs.Stop()
		require.Equal(t, 7, cmd.ProcessState.ExitCode(), mode)
	}
}

// A service on a terminal that does not read from it too soon gets no signal at its start.
func TestNoSignalAtTheStartOnATerminal(t *testing.T) {
	t.Parallel()
	s := startWith(t, &syscall.SysProcAttr{},
		`script -qefc '"$A" "$E" --quiet -- grep -E "SigPnd|ShdPnd|SigBlk" /proc/self/status' typescript < /dev/null`,
		"SLUICE_TEST_APP=blockcont")
	require.Equal(t, 0, s.ends(), "%v", s.output)
	require.Regexp(t, `SigPnd:\s0+\r\nShdPnd:\s0+\r\nSigBlk:\s0+20000\r\n`, s.output.String())
}

// Where the container's profile forbids to wait for a child, no service is started whose end could
// not be seen.
func TestRefusedWaitIsAnError(t *testing.T) {
	t.Parallel()
	s := startWith(t, &syscall.SysProcAttr{},
		`SLUICE_TEST_APP=nowait exec "$A" "$E" -- sh -c 'echo STARTED'`)
	require.Equal(t, 74, s.ends(), "%v", s.output)
	require.Contains(t, s.output.String(), "wait4")
	require.Contains(t, s.output.String(), "--init=false")
	require.NotContains(t, s.output.String(), "STARTED")
}

func TestNoexecIsNamed(t *testing.T) {
	t.Parallel()
	s := start(t,
		`mkdir none && mount -t tmpfs -o noexec none none && cp /bin/true none/tool && exec "$E" -- none/tool`)
	require.Equal(t, 126, s.ends(), "%v", s.output)
	require.Contains(t, s.output.String(), "none/tool: its file system is mounted noexec")
	s = start(t,
		`mkdir none && mount -t tmpfs -o noexec none none && cp /bin/sh none/sh && printf "#!$PWD/none/sh\n" > tool && chmod +x tool && exec "$E" -- ./tool`)
	require.Equal(t, 126, s.ends(), "%v", s.output)
	require.Contains(t, s.output.String(), "none/sh: its file system is mounted noexec")
}

// With --parent-death the service ends when the process dies that has started envconfig, or
// envconfig itself; without it, it goes on.
func TestParentDeath(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"--init=true", "--init=false"} {
		s := startWith(t, &syscall.SysProcAttr{}, `SLUICE_TEST_APP=drain; export SLUICE_TEST_APP
			sh -c '"$E" `+mode+` --parent-death TERM -- "$A" & echo $$ > launcher; wait'; :`)
		s.sees("READY")
		require.NoError(t, syscall.Kill(pidIn(t, s, "launcher"), syscall.SIGKILL))
		s.sees("DRAINED")
		require.Equal(t, 0, s.ends(), "%v", s.output)
	}
	s := startWith(t, &syscall.SysProcAttr{}, `SLUICE_TEST_APP=drain; export SLUICE_TEST_APP
		"$E" --parent-death TERM -- "$A" & echo $! > own; wait`)
	s.sees("READY")
	require.NoError(t, syscall.Kill(pidIn(t, s, "own"), syscall.SIGKILL))
	s.sees("DRAINED")
	s.ends()
}

// pidIn returns the process id that the service has written to a file.
func pidIn(t *testing.T, s *service, name string) (pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		data, _ := os.ReadFile(filepath.Join(s.cmd.Dir, name))
		n, err := strconv.Atoi(strings.TrimSpace(string(data)))
		pid = n
		return err == nil
	}, 2*time.Minute, 2*time.Millisecond)
	return pid
}

// Other inits have to be process 1 themselves.
func TestOtherInitsAreExecuted(t *testing.T) {
	t.Parallel()
	s := start(t, `printf '#!/bin/sh\necho pid $$\n' > init; chmod +x init; exec "$E" -- ./init`)
	require.Equal(t, 0, s.ends())
	require.Contains(t, s.output.String(), "pid 1\n")
	s = start(t, `exec "$E" -- sh -c 'echo pid $$'`)
	require.Equal(t, 0, s.ends())
	require.NotContains(t, s.output.String(), "pid 1\n", "envconfig runs a shell")
}
