//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Services without a handler end at SIGTERM though the kernel would not give it to them as process
// 1. The last call of a grace time of an hour comes after the test has given up.
func TestServiceWithoutAHandlerEnds(t *testing.T) {
	t.Parallel()
	for _, command := range []string{
		`tail -f /dev/null`, `sh -c 'tail -f /dev/null'`, `/usr/bin/env tail -f /dev/null`,
		`sh -c 'sleep 600 & sleep 600 & wait'`, `bash -c 'while :; do sleep 600; done'`,
	} {
		s := start(t, `exec "$E" --grace 1h -- `+command)
		s.sees("envconfig: environment=")
		s.startsBelow("tail", "sleep")
		s.signal(syscall.SIGTERM)
		require.Equal(t, 143, s.ends(), "%s: %v", command, s.output)
	}
}

// A launcher that is no shell dies of the signal and has told its service nothing: the service ends
// at once, though it has no handler, and not at the last call.
func TestServiceBehindALauncherEnds(t *testing.T) {
	t.Parallel()
	testbed.NeedProgram(t, "node", "nodejs")
	testbed.NeedProgram(t, "/usr/bin/python3", "python3")
	for _, command := range []string{
		`python3 -c 'import subprocess; subprocess.call(["dd", "if=pipe"])'`,
		`perl -e 'system("dd", "if=pipe"); print "never"'`,
		`find . -maxdepth 0 -exec dd if=pipe ';'`,
		`node -e 'require("child_process").spawn("dd", ["if=pipe"])'`,
		`sh -c 'find . -maxdepth 0 -exec dd if=pipe ";"; echo never'`,
	} {
		s := start(t, `mkfifo pipe; exec "$E" --grace 1h -- `+command)
		s.startsBelow("dd")
		s.signal(syscall.SIGTERM)
		require.Equal(t, 143, s.ends(), "%s: %v", command, s.output)
		require.NotContains(t, s.output.String(), "never", command)
	}
}

// A launcher that catches the signal and leaves a service without a handler behind has told it
// nothing, nor has a trap that only ends its shell: the service ends at once.
func TestServiceThatItsLauncherLeavesEnds(t *testing.T) {
	t.Parallel()
	testbed.NeedProgram(t, "node", "nodejs")
	testbed.NeedProgram(t, "/usr/bin/python3", "python3")
	const python = `import signal, subprocess, sys; signal.signal(signal.SIGTERM, lambda *a: sys.exit(5)); `
	for _, command := range []string{
		`python3 -c '` + python + `subprocess.Popen(["dd", "if=pipe"]).wait()'`,
		`python3 -c '` + python + `subprocess.Popen(["sh", "-c", "dd if=pipe; true"]).wait()'`,
		`perl -e '$SIG{TERM} = sub { exit 5 }; system("dd", "if=pipe")'`,
		`node -e 'process.on("SIGTERM", () => process.exit(5));
			require("child_process").spawn("dd", ["if=pipe"])'`,
		`sh -c 'trap "exit 5" TERM; dd if=pipe & wait; true'`,
		`bash -c 'trap "echo stopping; exit 5" TERM; dd if=pipe & wait; true'`,
		`bash -c 'trap "kill \$p; exit 5" TERM; sleep 600 & p=$!; dd if=pipe & wait'`,
		`sh trap.sh`, `bash trap.sh`,
	} {
		s := start(t, `mkfifo pipe; echo 'bye() { exit 5; }; trap bye TERM; dd if=pipe & wait' > trap.sh
			exec "$E" --grace 1h -- `+command)
		s.startsBelow("dd")
		s.signal(syscall.SIGTERM)
		require.Equal(t, 5, s.ends(), "%s: %v", command, s.output)
	}
}

// A launcher that catches the signal, goes on, and waits for another program without a handler has
// not passed it on: the program is asked when a fifth of the grace time has gone, and ends. Only
// then does the launcher go on and end, and what else it has started is asked.
func TestServiceThatItsLauncherAwaitsEnds(t *testing.T) {
	t.Parallel()
	testbed.NeedProgram(t, "/usr/bin/python3", "python3")
	const witness = `perl -e '$| = 1; $SIG{TERM} = sub { print "ASKED\n"; exit }; ` +
		`print "WITNESS\n"; sleep 1 while 1'`
	for _, command := range []string{
		`python3 -c 'import signal, subprocess
signal.signal(signal.SIGTERM, lambda *a: print("CAUGHT", flush=True))
subprocess.Popen(["setsid", "sh", "witness"])
subprocess.call(["dd", "if=pipe"])
print("AFTER", flush=True)'`,
		`perl -e '$| = 1; $SIG{TERM} = sub { print "CAUGHT\n" };
			fork // die or exec("setsid", "sh", "witness");
			$p = fork // die; exec("dd", "if=pipe") unless $p;
			0 while waitpid($p, 0) < 0; print "AFTER\n"'`,
	} {
		name, _, _ := strings.Cut(command, " ")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, `mkfifo pipe; cat > witness <<'.'
exec `+witness+`
.
				exec "$E" --grace 100s -- `+command)
			s.startsBelow("dd")
			s.sees("WITNESS")
			s.signal(syscall.SIGTERM)
			s.sees("CAUGHT")
			require.Equal(t, 0, s.ends(), "%v", s.output)
			require.Regexp(t, `(?s)CAUGHT.*AFTER.*ASKED`, s.output.String())
		})
	}
}

// A service that waits for a worker of its own has told it, however that stops, and a service that
// is at work in a process group of its own is not asked when its launcher ends.
func TestWorkersOfAServiceThatWaitsFinish(t *testing.T) {
	t.Parallel()
	testbed.NeedProgram(t, "/usr/bin/python3", "python3")
	s := start(t, `cat > pool.py <<'.'
import multiprocessing, signal, sys, time
def work(stop):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print("WORKING", flush=True)
    stop.wait()
    time.sleep(19)
    print("TASK DONE", flush=True)
stop = multiprocessing.Event()
worker = multiprocessing.Process(target=work, args=(stop,))
worker.start()
signal.signal(signal.SIGTERM, lambda *a: stop.set())
worker.join()
.
		exec "$E" --grace 90s -- python3 pool.py`)
	s.sees("WORKING")
	s.signal(syscall.SIGTERM)
	require.Equal(t, 0, s.ends(), "%v", s.output)
	require.Contains(t, s.output.String(), "TASK DONE")

	s = start(t, `exec "$E" --grace 1h -- python3 -c '
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
subprocess.Popen(["setsid", "sh", "-c", "echo WORKING; dd if=/dev/zero bs=1M count=3000 of=/dev/null; echo TASK DONE"]).wait()'`)
	s.sees("WORKING")
	s.signal(syscall.SIGTERM)
	require.Equal(t, 0, s.ends(), "%v", s.output)
	require.Contains(t, s.output.String(), "TASK DONE")
}

// startsBelow waits until a process of one of the names runs below the service's namespace.
func (s *service) startsBelow(names ...string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		for _, p := range childrenOf(s.cmd.Process.Pid) {
			name, _ := os.ReadFile("/proc/" + p + "/comm")
			for _, want := range names {
				if strings.TrimSpace(string(name)) == want {
					return true
				}
			}
		}
		return false
	}, 2*time.Minute, 2*time.Millisecond)
}

// childrenOf lists the process and all below it.
func childrenOf(pid int) []string {
	all := []string{strconv.Itoa(pid)}
	for i := 0; i < len(all); i++ {
		lists, _ := filepath.Glob("/proc/" + all[i] + "/task/*/children")
		for _, list := range lists {
			data, _ := os.ReadFile(list)
			all = append(all, strings.Fields(string(data))...)
		}
	}
	return all
}

// A service signals its workers itself: they are not signalled in mid-task, however the service was
// started.
func TestWorkersFinishTheirTask(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{
		"binary":                 `"$A"`,
		"script":                 `./service`,
		"behind sh":              `sh start.sh`,
		"behind two shells":      `sh -c 'sh start.sh; echo shell went on'`,
		"behind env and nice":    `env LC_ALL=C nice sh start.sh`,
		"behind chroot and bash": `chroot / bash "$PWD/start.sh"`,
		"behind flock":           `flock lock sh start.sh`,
		"in a pipe":              `sh -c '"$A" 2>&1 | tee log'`,
		"in a loop":              `sh -c 'while :; do "$A"; done'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, `printf '#!/bin/sh\nexec "$A"\n' > service; chmod +x service; printf '"$A"\necho went on\n' > start.sh
				SLUICE_TEST_APP=pool; export SLUICE_TEST_APP; exec "$E" -- `+command)
			s.sees("WORKING")
			s.signal(syscall.SIGTERM)
			code := s.ends()
			require.Contains(t, []int{0, 143}, code, "%v", s.output)
			require.Contains(t, s.output.String(), "TASK DONE")
			require.NotContains(t, s.output.String(), "WORKER SIGNALLED")
			require.NotContains(t, s.output.String(), "went on")
			require.Equal(t, 1, strings.Count(s.output.String(), "WORKING"), "not started again")
		})
	}
}

// With the scope group the workers get the signal, with main a shell alone does.
func TestOtherScopes(t *testing.T) {
	t.Parallel()
	s := start(t, `SLUICE_TEST_APP=pool; export SLUICE_TEST_APP; exec "$E" --scope group -- "$A"`)
	s.sees("WORKING")
	s.signal(syscall.SIGTERM)
	s.ends()
	require.Contains(t, s.output.String(), "WORKER SIGNALLED")
	s = start(t,
		`SLUICE_TEST_APP=signals; export SLUICE_TEST_APP; exec "$E" --scope main -- sh -c 'trap "echo SHELL" USR1; "$A"; true'`)
	s.sees("READY")
	s.signal(syscall.SIGUSR1)
	s.signal(syscall.SIGTERM)
	require.Equal(t, 143, s.ends(), "%v", s.output)
	require.NotContains(t, s.output.String(), "GOT 10")
}

// A trap decides what to do: the shell gets the signal, and its background processes do not; a
// command in the foreground gets it, too, since no trap runs before its end.
func TestShellsWithATrap(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell+" waits in the background", func(t *testing.T) {
			t.Parallel()
			s := start(t, `SLUICE_TEST_APP=signals; export SLUICE_TEST_APP
				printf '%s\n' 'trap "kill -USR1 \$p; sleep 0.2; kill -TERM \$p; wait \$p; exit 5" TERM' '"$A" & p=$!' 'wait $p' > two.sh
				exec "$E" -- `+shell+` two.sh`)
			s.sees("READY")
			s.signal(syscall.SIGTERM)
			require.Equal(t, 5, s.ends(), "%v", s.output)
			require.Contains(t, s.output.String(), "GOT 10\nGOT 15\n", "in the order of the trap")
		})
		t.Run(shell+" waits in the foreground", func(t *testing.T) {
			t.Parallel()
			s := start(t, `SLUICE_TEST_APP=drain; export SLUICE_TEST_APP
				printf '%s\n' 'trap "echo TRAPPED; exit 5" TERM' '"$A"' 'echo never' > one.sh
				exec "$E" -- `+shell+` one.sh`)
			s.sees("READY")
			s.signal(syscall.SIGTERM)
			require.Equal(t, 5, s.ends(), "%v", s.output)
			require.Contains(t, s.output.String(), "DRAINED\nTRAPPED\n")
			require.NotContains(t, s.output.String(), "ASKED TWICE")
			require.NotContains(t, s.output.String(), "never")
		})
		// The trap asks in its own way and ends: a process that still works is not asked again.
		t.Run(shell+" leaves before its service", func(t *testing.T) {
			t.Parallel()
			s := start(t, `SLUICE_TEST_APP=signals; export SLUICE_TEST_APP
				printf '%s\n' 'trap "kill -HUP \$p; exit 0" QUIT' '"$A" & p=$!' 'wait $p' > quit.sh
				exec "$E" --grace 1h -- `+shell+` quit.sh`)
			s.sees("READY")
			s.signal(syscall.SIGQUIT)
			s.sees("GOT 1\n")
			s.signal(syscall.SIGUSR1) // comes after all that the end of the shell may have caused
			s.sees("GOT 10\n")
			require.NotContains(t, s.output.String(), "GOT 15")
			s.signal(syscall.SIGTERM)
			require.Equal(t, 0, s.ends(), "%v", s.output)
		})
	}
}

// Signals are replaced by --rewrite, --stop-signal or the kind of the service.
func TestSignalsAreRewritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags string
		sent  syscall.Signal
		got   string
	}{
		"rewrite": {"--rewrite TERM:QUIT", syscall.SIGTERM, "GOT 3\n"},
		"several": {"--rewrite TERM:QUIT --rewrite HUP:USR2", syscall.SIGHUP,
			"GOT 12\n"},
		"stop signal": {"--stop-signal USR1", syscall.SIGTERM, "GOT 10\n"},
		"rewrite before stop signal": {"--stop-signal USR1 --rewrite TERM:WINCH", syscall.SIGTERM,
			"GOT 28\n"},
		"the stop signal as it comes": {"--stop-signal USR1", syscall.SIGUSR1, "GOT 10\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, `SLUICE_TEST_APP=signals; export SLUICE_TEST_APP; exec "$E" --grace 1h `+
				c.flags+` -- sh -c '"$A"; true'`)
			s.sees("READY")
			s.signal(c.sent)
			s.sees(c.got)
			require.NotContains(t, s.output.String(), "GOT 15")
		})
	}
}

// Each signal that asks to stop starts the grace time; others do not.
func TestEveryStopSignalStartsTheGrace(t *testing.T) {
	t.Parallel()
	for flags, sent := range map[string]syscall.Signal{
		"":                       syscall.SIGTERM,
		"--scope main":           syscall.SIGINT,
		"--scope group":          syscall.SIGQUIT,
		"--stop-signal RTMIN+3":  37,
		"--rewrite USR2:TERM":    syscall.SIGUSR2,
		"--stop-signal SIGWINCH": syscall.SIGWINCH,
	} {
		s := start(t, `SLUICE_TEST_APP=stubborn exec "$E" --grace 200ms `+flags+` -- "$A"`)
		s.sees("READY")
		require.Eventually(t, func() bool {
			s.signal(sent)
			return s.cmd.Process.Signal(syscall.Signal(0)) != nil ||
				strings.Contains(s.output.String(), "grace time over")
		},
			2*time.Minute, 5*time.Millisecond, flags)
		require.Equal(t, 137, s.ends(), flags)
	}
	s := start(t, `SLUICE_TEST_APP=signals exec "$E" --grace 1ms -- "$A"`)
	s.sees("READY")
	s.signal(syscall.SIGUSR1)
	s.sees("GOT 10\n")
	s.signal(syscall.SIGHUP)
	s.sees("GOT 1\n")
	s.signal(syscall.SIGTERM)
	require.Contains(t, []int{0, 137}, s.ends())
}

// The stop signal that the manifest carries counts as if it were a flag.
func TestStopSignalOfTheManifest(t *testing.T) {
	t.Parallel()
	for _, manifest := range []string{`"$E" manifest --stop-signal USR1`,
		`echo '{"stopSignal":"USR1"}' > src/envconfig.json && "$E" manifest`} {
		s := start(t,
			manifest+` && rm -f src/envconfig.json && SLUICE_TEST_APP=signals exec "$E" --grace 1h -- "$A"`)
		s.sees("READY")
		s.signal(syscall.SIGTERM)
		s.sees("GOT 10\n")
		require.NotContains(t, s.output.String(), "GOT 15")
	}
}

// A service that is stopped while it starts, before it catches the signal on which it would finish
// its work, ends at once: the kernel drops a SIGWINCH without a handler.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	for program, by := range map[string]syscall.Signal{
		"apache2": syscall.SIGTERM, "httpd": syscall.SIGTERM, "haproxy": syscall.SIGUSR1,
		"nginx": syscall.SIGQUIT, "php-fpm8.2": syscall.SIGQUIT,
	} {
		s := start(t, `cp "$(command -v sleep)" `+program+`; exec "$E" --grace 1h -- ./`+
			program+` 600`)
		s.startsBelow(program)
		s.signal(syscall.SIGTERM)
		require.Equal(t, 128+int(by), s.ends(), "%s: %v", program, s.output)
	}
}

// A process that is stopped handles no signal before it goes on, so a stop continues it and its
// stopped workers.
func TestStoppedServiceEnds(t *testing.T) {
	t.Parallel()
	for _, scope := range []string{"service", "main", "group"} {
		s := start(t, `SLUICE_TEST_APP=signals; export SLUICE_TEST_APP; exec "$E" --grace 1h --scope `+
			scope+` -- "$A"`)
		s.sees("READY")
		for _, p := range childrenOf(s.cmd.Process.Pid)[1:] {
			pid, err := strconv.Atoi(p)
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
			require.Eventually(t, func() bool {
				stat, err := os.ReadFile("/proc/" + p + "/stat")
				return err == nil && strings.Contains(string(stat), ") T ")
			}, 2*time.Minute, time.Millisecond)
		}
		s.signal(syscall.SIGTERM)
		require.Equal(t, 0, s.ends(), "%s: %v", scope, s.output)
	}
}
