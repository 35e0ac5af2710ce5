//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// service is envconfig as process 1 of a PID namespace of its own.
type service struct {
	t      *testing.T
	cmd    *exec.Cmd
	output *watched
}

// watched is output that can be looked at while it grows.
type watched struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// start runs a shell line in a new PID namespace with a /proc of its own. $E is the static
// envconfig with its flags for the files of the test, $A is the test binary, which is one of apps.
func start(t *testing.T, line string, env ...string) *service {
	t.Helper()
	return startWith(t,
		&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
		"mount -t proc proc /proc && "+line, env...)
}

// source makes a directory with a source of one file, src, and an empty root.
func source(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.MkdirAll(dir+"/src/envs/test/etc", 0o755))
	require.NoError(t, os.WriteFile(dir+"/src/envs/test/etc/app.conf", []byte("x"), 0o644))
	require.NoError(t, os.Mkdir(dir+"/root", 0o755))
	return dir
}

func startWith(t *testing.T, attr *syscall.SysProcAttr, line string, env ...string) *service {
	t.Helper()
	exe, err := binary()
	require.NoError(t, err)
	dir := source(t)
	s := &service{t: t, output: &watched{}}
	unignore()
	s.cmd = exec.Command("/bin/sh", "-c", line)
	s.cmd.Dir = dir
	s.cmd.Env = append(os.Environ(), "DEPLOY_ENV=test", "A="+os.Args[0], "E="+exe,
		"ENVCONFIG_SOURCE="+dir+"/src", "ENVCONFIG_ROOT="+dir+"/root", "ENVCONFIG_STATE="+
			dir+"/run")
	s.cmd.Env = append(s.cmd.Env, env...)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if os.Getuid() != 0 && attr.Cloneflags != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	s.cmd.SysProcAttr = attr
	s.cmd.WaitDelay = time.Minute // for output that is still held open
	require.NoError(t, s.cmd.Start())
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	return s
}

// unignore makes the commands of this process get the signals that it was started with as ignored,
// and would hand down so: SIGHUP under nohup, SIGINT and SIGQUIT in the background of a script.
var unignore = sync.OnceFunc(func() {
	for _, n := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(n) {
			signal.Notify(make(chan os.Signal, 1), n)
		}
	}
})

// sees waits until the output holds text.
func (s *service) sees(text string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		return strings.Contains(s.output.String(), text)
	}, 2*time.Minute, 2*time.Millisecond, "%q in %v", text, s.output)
}

func (s *service) signal(n syscall.Signal) { _ = s.cmd.Process.Signal(n) }

// ends waits for the end and returns the exit code, or minus the signal's number. A service that
// hangs is killed, so that its output is seen.
func (s *service) ends() int {
	hangs := time.AfterFunc(5*time.Minute, func() {
		s.t.Errorf("does not end: %v", s.output)
		_ = s.cmd.Process.Kill()
	})
	defer hangs.Stop()
	_ = s.cmd.Wait()
	status := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return -int(status.Signal())
	}
	return status.ExitStatus()
}

func TestDrainBehindAShellThatDoesNotExec(t *testing.T) {
	t.Parallel()
	s := start(t,
		`printf '%s\n' '"$A"; echo shell went on' > startup.sh; SLUICE_TEST_APP=drain; export SLUICE_TEST_APP; exec "$E" -- sh startup.sh`)
	s.sees("READY")
	s.signal(syscall.SIGTERM)
	require.Equal(t, 143, s.ends())
	require.Contains(t, s.output.String(), "DRAINED")
	require.NotContains(t, s.output.String(), "ASKED TWICE")
	require.Contains(t, s.output.String(), "drained processes=1")
}

func TestDrainOfAServiceInASessionOfItsOwn(t *testing.T) {
	t.Parallel()
	s := start(t, `SLUICE_TEST_APP=background exec "$E" --init --on-main-exit=wait -- "$A" drain`)
	s.sees("READY")
	s.signal(syscall.SIGTERM)
	require.Contains(t, []int{0, 143}, s.ends(), "whether the one that started it has ended by "+
		"itself before the signal came")
	require.Contains(t, s.output.String(), "DRAINED")
}

func TestMainExitStopsOrWaits(t *testing.T) {
	t.Parallel()
	s := start(t, `SLUICE_TEST_APP=background exec "$E" --init -- "$A" drain`)
	require.Equal(t, 0, s.ends())
	s = start(t,
		`SLUICE_TEST_APP=drain; export SLUICE_TEST_APP; exec "$E" -- sh -c '"$A" > log & until grep -qs READY log; do :; done; exit 7'; `)
	require.Equal(t, 7, s.ends(), "the main process's own code")
	log, err := os.ReadFile(filepath.Join(s.cmd.Dir, "log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "DRAINED")
}

func TestStubbornServiceIsKilledAfterTheGraceTime(t *testing.T) {
	t.Parallel()
	s := start(t, `SLUICE_TEST_APP=stubborn exec "$E" --init --grace 200ms -- "$A"`)
	s.sees("READY")
	s.signal(syscall.SIGTERM)
	require.Equal(t, 137, s.ends())
	name := filepath.Base(os.Args[0])
	name = name[:min(len(name), 15)] // as much as the kernel keeps
	require.Regexp(t, `grace time over after .*, killed: \d+ `+regexp.QuoteMeta(name)+"\n",
		s.output.String())
}

func TestSignalsArePassedOnEveryTimeInOrder(t *testing.T) {
	t.Parallel()
	s := start(t, `SLUICE_TEST_APP=signals exec "$E" --init -- "$A"`)
	s.sees("READY")
	want := ""
	for _, n := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT,
		syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGUSR1} {
		s.signal(n)
		want += fmt.Sprintf("GOT %d\n", n)
		s.sees(want)
	}
	// caught a little later
	for _, n := range []syscall.Signal{syscall.SIGALRM, syscall.SIGPWR, 35, 64} {
		got := fmt.Sprintf("GOT %d\n", n)
		require.Eventually(t, func() bool {
			s.signal(n)
			return strings.Contains(s.output.String(), got)
		}, 2*time.Minute, 5*time.Millisecond)
	}
	s.signal(syscall.SIGTERM)
	require.Equal(t, 0, s.ends())
}

func TestSignalStormDoesNotLoseSIGTERM(t *testing.T) {
	t.Parallel()
	s := start(t, `SLUICE_TEST_APP=signals exec "$E" --init -- "$A"`)
	s.sees("READY")
	for range 10_000 {
		s.signal(syscall.SIGUSR1)
	}
	s.signal(syscall.SIGTERM)
	require.Equal(t, 0, s.ends())
	require.Contains(t, s.output.String(), "GOT 15\n")
}

func TestExitCodesComeThrough(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(dir+"/src/envs/test", 0o755))
	require.NoError(t, os.WriteFile(dir+"/src/envs/test/f", nil, 0o644))
	for code := range 256 {
		for _, mode := range []string{"--init=true", "--init=false"} {
			if mode == "--init=false" && code%17 != 0 {
				continue // the process itself has ended: the kernel alone has a say
			}
			cmd := exec.Command(exe, "--quiet", mode, "--source", dir+"/src", "--root", dir,
				"--state", dir+"/run", "--", "/bin/sh", "-c", fmt.Sprintf("exit %d", code))
			cmd.Env = []string{"DEPLOY_ENV=test"}
			_ = cmd.Run()
			require.Equal(t, code, cmd.ProcessState.ExitCode(), mode)
		}
	}
}

func TestFatalSignalsOfTheServiceGive128AndTheirNumber(t *testing.T) {
	t.Parallel()
	for _, n := range []syscall.Signal{1, 2, 3, 6, 9, 10, 11, 12, 13, 14, 15, 24, 31, 34, 64} {
		s := start(t, fmt.Sprintf(`ulimit -c 0; exec "$E" --init -- sh -c 'kill -%d $$'`, n))
		require.Equal(t, 128+int(n), s.ends(), "%v", s.output)
	}
}

func TestMapExit(t *testing.T) {
	t.Parallel()
	s := start(t, `exec "$E" --map-exit 143:0 -- sh -c 'kill -TERM $$; sleep 9'`)
	require.Equal(t, 0, s.ends())
}

func TestZombiesAreReaped(t *testing.T) {
	t.Parallel()
	// 200 children whose parent goes at once are orphans of process 1.
	s := start(t, `exec "$E" -- sh -c 'i=0; while [ $i -lt 200 ]; do (true & true &); i=$((i+2)); done
		while grep -qs "^State:.Z" /proc/[0-9]*/status; do :; done; echo CLEAN'`)
	require.Equal(t, 0, s.ends())
	require.Contains(t, s.output.String(), "CLEAN")
}

func TestSubreaperWhenNotProcess1(t *testing.T) {
	t.Parallel()
	s := startWith(t, &syscall.SysProcAttr{},
		`SLUICE_TEST_APP=drain; export SLUICE_TEST_APP; exec "$E" --init --on-main-exit=wait -- sh -c '(setsid "$A" &)'`)
	s.sees("READY")
	s.signal(syscall.SIGTERM)
	require.Equal(t, 0, s.ends())
	require.Contains(t, s.output.String(), "DRAINED")
	require.NotContains(t, s.output.String(), "ASKED TWICE")
}

func TestExecModeIsProcess1AndFiltersVariables(t *testing.T) {
	t.Parallel()
	s := start(t,
		`exec "$E" --init=false --unset 'SECRET_*' --set COLOUR=red -- sh -c 'echo pid $$ $DEPLOY_ENV $COLOUR; env'`, "SECRET_TOKEN=canary")
	require.Equal(t, 0, s.ends())
	require.Contains(t, s.output.String(), "pid 1 test red\n")
	require.NotContains(t, s.output.String(), "canary")
	s = start(t, `exec "$E" --init=false --pristine --set A=1 -- /usr/bin/env`)
	require.Equal(t, 0, s.ends())
	require.Regexp(t, `(?m)^envconfig: .*\nA=1\n$`, s.output.String())
}

func TestNoDescriptorIsLeaked(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"--init=true", "--init=false"} {
		s := start(t, `ls /proc/self/fd > bare; "$E" `+
			mode+` -- ls /proc/self/fd > behind; cmp bare behind && echo SAME`)
		s.ends()
		require.Contains(t, s.output.String(), "SAME", mode)
	}
}

func TestLimitOfDescriptorsReachesTheService(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"--init=true", "--init=false"} {
		s := start(t, `ulimit -Sn 1000; exec "$E" `+mode+` -- sh -c 'ulimit -Sn'`)
		require.Equal(t, 0, s.ends())
		require.Contains(t, s.output.String(), "\n1000\n")
	}
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"--init=true", "--init=false"} {
		const show = `grep -E 'SigIgn|SigBlk' /proc/self/status`
		s := start(t, `trap "" HUP INT; `+show+`; exec "$E" `+mode+` -- `+show)
		require.Equal(t, 0, s.ends())
		// the process that started the tests may ignore other signals besides
		shown := regexp.MustCompile(`SigBlk:\s+\S+\nSigIgn:\s+\S+\n`).FindAllString(
			s.output.String(), -1)
		require.Len(t, shown, 2, s.output.String())
		require.Regexp(t, `SigIgn:\s+\S+[37bf]\n`, shown[0])
		require.Equal(t, shown[0], shown[1], mode)
	}
}

func TestSIGTERMDuringActivationRollsBack(t *testing.T) {
	t.Parallel()
	s := startWith(t, &syscall.SysProcAttr{},
		`until read go < gate; do :; done 2>&-; exec "$E" -- echo STARTED`)
	root := filepath.Join(s.cmd.Dir, "root")
	// another start has its turn, so that this one waits for certain when the signal comes
	held, err := os.Open(root)
	require.NoError(t, err)
	defer held.Close()
	require.NoError(t, syscall.Flock(int(held.Fd()), syscall.LOCK_EX))
	require.NoError(t, os.WriteFile(filepath.Join(s.cmd.Dir, "gate"), []byte("go\n"), 0o644))
	fds := fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid)
	require.Eventually(t, func() bool {
		open, _ := filepath.Glob(fds + "/*")
		n := 0
		for _, fd := range open {
			if to, err := os.Readlink(fd); err == nil && to == root {
				n++
			}
		}
		return n >= 2
	}, 2*time.Minute, time.Millisecond)
	s.signal(syscall.SIGTERM)
	require.Equal(t, 143, s.ends())
	require.NotContains(t, s.output.String(), "STARTED")
	require.NoDirExists(t, filepath.Join(root, "etc"))
}

func TestClosedLogChangesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, `exec "$E" -- sh -c 'echo went on >&3' 3>&1 1>/dev/full 2>&-`)
	require.Equal(t, 0, s.ends())
	require.Contains(t, s.output.String(), "went on")
	exe, err := binary()
	require.NoError(t, err)
	gone, log, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	cmd := exec.Command(exe, "--", "/bin/sh", "-c", "exit 7")
	cmd.Env = s.cmd.Env
	cmd.Stderr = log
	_ = cmd.Run()
	require.Equal(t, 7, cmd.ProcessState.ExitCode(), "a log that nobody reads")
}

func TestWithoutProc(t *testing.T) {
	t.Parallel()
	s := startWith(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
		`mount -t tmpfs none /proc && SLUICE_TEST_APP=drain && export SLUICE_TEST_APP && exec "$E" -- sh -c '"$A"; echo never'`)
	s.sees("READY")
	s.signal(syscall.SIGTERM)
	require.Equal(t, 143, s.ends())
	require.Contains(t, s.output.String(), "DRAINED")
}

// The /proc of another PID namespace, as of the host, shows other processes under the numbers of
// the service's.
func TestProcOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	s := startWith(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
		`SLUICE_TEST_APP=drain; export SLUICE_TEST_APP; exec "$E" --grace 1h -- sh -c '"$A"; echo never'`)
	s.sees("READY")
	s.signal(syscall.SIGTERM)
	require.Equal(t, 143, s.ends())
	require.Contains(t, s.output.String(), "DRAINED")
	require.NotContains(t, s.output.String(), "ASKED TWICE")
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	require.NoError(t, err, "util-linux's script makes the terminal")
	// The service reads from the terminal though it is in a process group of its own; a key stops
	// it, no process could continue process 1 of a session, so it goes on.
	s := startWith(t, &syscall.SysProcAttr{}, `{ until grep -qs READY typescript; do :; done; printf 'hello\n'; until grep -qs 'got hello' typescript; do :; done; printf '\032again\n'; } |
		`+script+` -qefc 'exec "$E" --quiet --init=true -- sh -c "echo READY; read x; echo got \$x; read y; echo got \$y; exit 7"' typescript`)
	require.Equal(t, 7, s.ends(), "%v", s.output)
	require.Contains(t, s.output.String(), "got hello")
	require.Contains(t, s.output.String(), "got again")
}

// Of a script that is the session's leader, as a container's process 1 is, no process could
// continue a process that a key has stopped. When a shell that was the service has been killed, the
// script reads from the terminal again although a job of that had it.
func TestTerminalOfAScript(t *testing.T) {
	t.Parallel()
	s := startWith(t, &syscall.SysProcAttr{}, `
		sees() { n=0; until tr -d '\r' < typescript | grep -qs "$1"; do sleep 0.02; n=$((n+1)); [ $n -lt 1500 ] || exit; done; }
		{
			sees '^UP'; printf '\032hello\n'; sees 'got hello$'
			sees '^. $'; printf 'sh -c "echo RAN; kill -9 \$PPID; sleep 0.2"\n'; sees '^RAN'; sees '^NEXT'
			printf 'again\n'; sees 'after again$'
		} | PS1='$ ' timeout -k 5 90 script -qefc '
			"$E" --quiet --init -- sh -c "echo UP; read x; echo got \$x"
			"$E" --quiet --init -- sh -i; echo NEXT
			read x; echo after $x; exit 6' typescript`, "ENV=")
	require.Equal(t, 6, s.ends(), "%v", s.output)
}

// A shell's job control treats envconfig as it would the service: ^Z, bg, fg, and a start in the
// background, also of one that starts another. When it has ended, a script that runs it reads from
// the terminal again.
func TestJobControl(t *testing.T) {
	t.Parallel()
	s := startWith(t, &syscall.SysProcAttr{}, `
		sees() { n=0; until tr -d '\r' < typescript | grep -qs "$1"; do sleep 0.02; n=$((n+1)); [ $n -lt 1500 ] || exit; done; }
		mkfifo go on # a shell that waits for a child is not stopped while the child is not yet another program: vfork(2)
		rests() { n=0; until grep -qs ') T' /proc/$(cat pid)/stat; do sleep 0.02; n=$((n+1)); [ $n -lt 1500 ] || exit; done; }
		{
			sees '^. $'
			printf '%s\n' '"$E" --quiet --init -- sh -c "echo \$PPID > pid; echo UP; read x < go; echo RAN; read x; echo got \$x; exit 7"'
			sees 'UP$'; printf '\032'; sees '[Ss]topped'
			printf 'bg\necho > go\n'; sees 'RAN$'; rests
			printf 'fg\n'; printf 'hello\n'; sees 'got hello$'
			printf 'echo code $?\n'; sees 'code 7$'
			printf '%s\n' '"$E" --quiet --init -- sh -c "echo \$PPID > pid; echo SOON; read x; echo had \$x" &'
			sees 'SOON$'; rests
			printf 'fg\nthere\n'; sees 'had there$'
			printf '%s\n' 'sh -c "\"\$E\" --quiet --init -- true; read x; echo after \$x"' again; sees 'after again$'
			printf '%s\n' 'true | "$E" --quiet --init -- sh -c "echo PIPED; read x < on; echo WENT; exit 8"'
			sees 'PIPED$'; printf '\032'; printf 'echo prompt $((1+1))\n'; sees 'prompt 2$'
			printf 'fg\n'; echo > on; sees 'WENT$'; printf 'echo code $?\n'; sees 'code 8$'
			printf '%s\n' '"$E" --quiet --init -- sh -c "\"\$E\" --quiet --init -- sh -c \"echo INNER; read x; echo inner \\\$x\"; exit 9"'
			sees 'INNER$'; printf '\032'; sees 'topped.*INNER'
			printf 'fg\nwell\n'; sees 'inner well$'; printf 'echo code $?\n'; sees 'code 9$'
			printf 'exit 5\n'
		} | timeout -k 5 90 script -qefc 'PS1="$ " exec sh -i' typescript`, "ENV=")
	require.Equal(t, 5, s.ends(), "%v", s.output)
}
