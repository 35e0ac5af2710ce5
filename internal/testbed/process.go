//go:build linux

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// StartWithin bounds how long a server may take until it is ready, on a busy machine.
const StartWithin = 3 * time.Minute

// Command says how a server is started.
type Command struct {
	Name  string // in messages
	Path  string // of the program
	Args  []string
	Netns string // name of a network namespace; the default is the test's own

	// Orphan is the signal that the kernel sends when the test binary has died. The default is
	// SIGKILL; a server whose end leaves children needs a milder one.
	Orphan syscall.Signal

	// Ready returns nil once the server answers; a server with a nil Ready is ready at once.
	Ready func(ctx context.Context) error
	Logs  []string // files that the server writes besides its output, shown with it

	lasts bool // goes on when the test binary has died, for it is shared
}

// Process is a server that a test runs, with the processes that it started itself. Its methods end
// the test when they do not succeed, and may be called from several goroutines one after the other.
type Process struct {
	c   Command
	dir string

	mu   sync.Mutex
	t    testing.TB // nil for one that belongs to no test
	cmd  *exec.Cmd
	done chan struct{} // closed when the process of cmd has ended
}

// Start runs a server in its directory, waits until it is ready, and stops it when the test has
// ended, with the end of its log if the test has failed.
func Start(t testing.TB, dir string, c Command) *Process {
	t.Helper()
	p := Prepare(t, dir, c)
	p.Start()
	return p
}

// Prepare is Start without the start.
func Prepare(t testing.TB, dir string, c Command) *Process {
	p := &Process{c: c, dir: dir, t: t}
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", c.Name, p.tail())
		}
	})
	return p
}

// StartShared runs a server in its directory and waits until it is ready. It belongs to no test and
// ends with its owner.
func StartShared(dir string, c Command) (*Process, error) {
	c.lasts = true
	p := &Process{c: c, dir: dir}
	return p, p.Begin()
}

// Start runs the server again, after Stop or Kill or its own end, and waits until it is ready. Its
// files are as it left them.
func (p *Process) Start() {
	p.t.Helper()
	if err := p.Begin(); err != nil {
		p.t.Fatal(err)
	}
}

// Stop asks the server to end, and waits until it and its descendants are gone; after twenty
// seconds it is killed.
func (p *Process) Stop() {
	p.t.Helper()
	if err := p.end(); err != nil {
		p.t.Fatal(err)
	}
}

// Kill ends the server and its descendants at once, as a crash would.
func (p *Process) Kill() {
	p.t.Helper()
	if err := p.kill(); err != nil {
		p.t.Fatal(err)
	}
}

// Pause stops the server in its tracks: it keeps its connections and answers nothing, as on a
// machine that hangs.
func (p *Process) Pause() { p.t.Helper(); p.all(syscall.SIGSTOP) }

// Resume lets the server go on after Pause.
func (p *Process) Resume() { p.t.Helper(); p.all(syscall.SIGCONT) }

// Signal sends a signal to the server's first process.
func (p *Process) Signal(sig syscall.Signal) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("signal %v to %s: %v", sig, p.c.Name, err)
	}
}

// Pid is the number of the server's first process.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Done is closed when the server's first process of the last Start has ended.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Log returns the output of the server since its first start.
func (p *Process) Log() string {
	text, _ := os.ReadFile(p.logFile())
	return string(text)
}

// StartWith is Start with other arguments than before.
func (p *Process) StartWith(args ...string) {
	p.t.Helper()
	p.c.Args = args
	p.Start()
}

// Dir is the server's directory.
func (p *Process) Dir() string { return p.dir }

// logName is the name of the file in a process's directory that holds its output.
const logName = "log"

func (p *Process) logFile() string { return filepath.Join(p.dir, logName) }

// Begin is Start for goroutines that may not end the test.
func (p *Process) Begin() error {
	if err := p.fork(); err != nil {
		return fmt.Errorf("start %s: %w", p.c.Name, err)
	}
	if p.c.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), StartWithin)
	defer cancel()
	done := p.Done()
	err := Wait(ctx, func() error {
		select {
		case <-done:
			return final{errors.New("it ended")}
		default:
			return p.c.Ready(ctx)
		}
	})
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: it is not ready: %w; the end of its log:\n%s",
			p.c.Name, err, p.tail()), p.kill())
	}
	return nil
}

// fork starts the process, with its mark, its output in its log, and its group on record.
func (p *Process) fork() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && !p.ended() {
		return errors.New("it runs already")
	}
	log, err := os.OpenFile(p.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	path, args := p.c.Path, p.c.Args
	if p.c.Netns != "" {
		path, args = "nsenter", append([]string{"--net=" + NetnsDir + p.c.Netns, "--", path},
			args...)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.Env = append(os.Environ(), MarkKey+"="+p.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !p.c.lasts {
		cmd.SysProcAttr.Pdeathsig = p.c.Orphan
		if p.c.Orphan == 0 {
			cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		}
	}
	if err := onForkThread(cmd.Start); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its ProcessState
		close(done)
	}()
	p.cmd, p.done = cmd, done
	groups, err := os.OpenFile(filepath.Join(p.dir, groupsFile),
		os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err == nil {
		_, err = fmt.Fprintln(groups, cmd.Process.Pid)
		err = errors.Join(err, groups.Close())
	}
	if err != nil {
		return errors.Join(err, p.killLocked())
	}
	return nil
}

// forks are done by one thread that never ends, since a child hears of the end of the thread that
// made it, not of the process.
var (
	forks    = make(chan func())
	forkOnce = sync.OnceFunc(func() {
		go func() {
			runtime.LockOSThread()
			for f := range forks {
				f()
			}
		}()
	})
)

func onForkThread(f func() error) error {
	forkOnce()
	result := make(chan error)
	forks <- func() { result <- f() }
	return <-result
}

// Running reports whether the server's first process of the last Start lives.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && !p.ended()
}

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *Process) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killLocked()
}

// killLocked needs the lock. A server that was never started is dead.
func (p *Process) killLocked() error {
	if p.cmd == nil {
		return nil
	}
	if !p.ended() {
		// by the handle that no other process can have; its mark may not be written yet
		_ = p.cmd.Process.Kill()
	}
	<-p.done
	return KillAll(p.dir)
}

func (p *Process) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	if !p.ended() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		_, _ = signal(p.dir, syscall.SIGCONT) // one that is paused hears nothing
		select {
		case <-p.done:
		case <-time.After(20 * time.Second):
		}
	}
	return p.killLocked()
}

// all sends SIGSTOP or SIGCONT to every process of the server and waits until they have heard it.
func (p *Process) all(sig syscall.Signal) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	Poll(p.t, fmt.Sprintf("%s has heard %v", p.c.Name, sig), func() error {
		n, err := signal(p.dir, sig)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("it has no processes")
		}
		pids, err := Processes(p.dir)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if s, err := readStat(pid); err == nil && (s.state == 'T') != (sig == syscall.SIGSTOP) {
				return fmt.Errorf("process %d is in state %c", pid, s.state)
			}
		}
		return nil
	})
}

// tail is the end of the output and of the other logs.
func (p *Process) tail() string { return tail(append([]string{p.logFile()}, p.c.Logs...)...) }
