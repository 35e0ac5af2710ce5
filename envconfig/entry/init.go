//go:build linux

package entry

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// DefaultGrace is below the 30 seconds that Kubernetes gives a pod. "docker stop" gives 10 unless
// it is told otherwise.
const DefaultGrace = 25 * time.Second

// killWait bounds how long killed processes are waited for: one that hangs in the kernel must not
// hold the container.
const killWait = 5 * time.Second

// Init runs a service as the process 1 of a container should: it stays in front of the service,
// passes every signal on to the service's whole process group, reaps what is orphaned, and ends
// when the last descendant has gone rather than when the first child has. That is what lets a
// service behind "sh /sbin/startup.sh" finish its requests after SIGTERM, which the shell does not
// survive and does not pass on.
//
// Run waits for all children of the process, so no other part of the program may wait for or start
// any. Where the process is not process 1, Run makes it the reaper of its descendants.
type Init struct {
	// Grace is how long descendants may go on after SIGTERM was passed on or, under [Stop],
	// after the service's main process has ended; then they are killed. The default is
	// [DefaultGrace]; a negative Grace is refused.
	Grace time.Duration
	// OnMainExit says what becomes of other descendants when the main process ends by itself. The
	// default is [Stop].
	OnMainExit MainExit
	// MapExit replaces exit codes, e.g. {143: 0} for a JVM that ends cleanly on SIGTERM. The
	// default is none. Both codes are from 0 to 255.
	MapExit map[int]int
}

// MainExit is what Init does when the main process has ended without having been asked to.
type MainExit int

const (
	// Stop sends SIGTERM to the descendants that are left and gives them the grace time.
	Stop MainExit = iota
	// Wait goes on until they have ended by themselves; for start scripts that put the service into
	// the background.
	Wait
)

// Report says how a service ended.
type Report struct {
	// Code is the exit code for the container: the main process's own or 128 and the signal that
	// ended it, after MapExit.
	Code int
	// Drained counts the descendants that ended after the main process had.
	Drained int
	// Killed are those that had to be killed when the grace time was over.
	Killed []Process
	// Drain is the time between the end of the main process, or SIGTERM where that came first, and
	// the end of the last.
	Drain time.Duration
}

// Process is a process as /proc shows it; Name is empty where there is no /proc.
type Process struct {
	PID  int
	Name string
}

// Run starts the command and returns when it and all its descendants have ended. Every signal that
// comes out of signals is passed on in order; give it all that the process can catch but SIGCHLD,
// SIGURG and SIGPIPE, in a channel with room to spare. Closing signals means that no more will
// come: those in the channel are passed on, and Run goes on until the descendants have ended. A nil
// channel passes on none. Run only receives; after it has returned, nothing receives from the
// channel. The error says why the command could not be started and matches [ErrNotFound] or
// [ErrNotExecutable], or names all bad fields of i and c and matches [ErrInvalid]; then nothing was
// started.
func (i *Init) Run(c *Command, env []string, signals <-chan os.Signal) (Report, error) {
	if err := errors.Join(i.validate(), c.validate()); err != nil {
		return Report{}, err
	}
	becomeReaper()
	tty := openTerminal()
	pid, err := syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return Report{}, startError(c, err)
	}
	if tty.give(pid) {
		_ = syscall.Kill(-pid, syscall.SIGCONT) // it was faster, and was stopped for reading too soon
	}
	r := running{
		Init: i, main: pid, tty: tty, signals: signals, ends: make(chan end),
		isPID1: os.Getpid() == 1,
	}
	go reap(r.ends)
	for !r.turn() {
	}
	return r.finish(), nil
}

// validate returns all problems of the fields at once.
func (i *Init) validate() error {
	var problems []error
	if i.Grace < 0 {
		problems = append(problems,
			bad(fmt.Sprintf("Init.Grace: %v", i.Grace), fmt.Sprintf("0 (default %v) or more", DefaultGrace)))
	}
	if i.OnMainExit != Stop && i.OnMainExit != Wait {
		problems = append(problems, bad(fmt.Sprintf("Init.OnMainExit: %d", i.OnMainExit), "Stop or Wait"))
	}
	for from, to := range i.MapExit {
		if from != from&0xff || to != to&0xff {
			problems = append(problems,
				bad(fmt.Sprintf("Init.MapExit: %d:%d", from, to), "exit codes from 0 to 255"))
		}
	}
	return errors.Join(problems...)
}

// end is a child that has ended or stopped.
type end struct {
	pid    int
	status syscall.WaitStatus
}

// reap reports every child that ends, and closes ends when there is none left.
func reap(ends chan<- end) {
	defer close(ends)
	for {
		var e end
		var err error
		e.pid, err = syscall.Wait4(-1, &e.status, syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return
		default:
			ends <- e
		}
	}
}

// running is a service that runs.
type running struct {
	*Init
	main    int
	tty     *terminal
	signals <-chan os.Signal // nil once the caller has closed it
	ends    chan end
	isPID1  bool // of its namespace, where every other process is a descendant

	report Report
	ended  bool // the main process
	// asked: SIGTERM or SIGINT was passed on, or a signal that was passed on ended the main process.
	asked    bool
	passed   map[syscall.Signal]bool
	since    time.Time // when the drain began
	deadline <-chan time.Time
	outside  <-chan time.Time
	killing  bool
}

// turn waits for one event and handles it. It reports whether the service and its descendants have
// ended, or have been given up.
func (r *running) turn() (done bool) {
	select {
	case s, ok := <-r.signals:
		if !ok {
			r.signals = nil // a closed channel is always ready
		} else if s, ok := s.(syscall.Signal); ok {
			r.pass(s)
		}
	case e, ok := <-r.ends:
		if !ok {
			return true
		}
		r.childChanged(e)
	case <-r.outside:
		r.signalOutside(syscall.SIGTERM)
	case <-r.deadline:
		if r.killing {
			return true
		}
		r.kill()
	}
	return false
}

// pass gives a signal to the service's process group; once the main process has ended, to every
// descendant, since one that went into the background has most likely left the group.
func (r *running) pass(s syscall.Signal) {
	if r.tty.stopAgain(s) {
		return
	}
	if r.passed == nil {
		r.passed = map[syscall.Signal]bool{}
	}
	r.passed[s] = true
	if s == syscall.SIGCONT {
		r.tty.restoreHandler()
	}
	r.tty.give(r.main) // the signal may have come because a shell has brought this process into the foreground
	if r.ended {
		r.signalAll(s)
	} else {
		_ = syscall.Kill(-r.main, s)
	}
	if s == syscall.SIGTERM || s == syscall.SIGINT {
		r.asked = true
	}
	if s == syscall.SIGTERM {
		r.startGrace()
	}
}

func (r *running) startGrace() {
	if r.deadline != nil {
		return
	}
	grace := r.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	r.since = time.Now()
	r.deadline = time.After(grace)
}

// childChanged notes that a child has ended or stopped.
func (r *running) childChanged(e end) {
	switch {
	case e.status.Stopped():
		if by := e.status.StopSignal(); e.pid == r.main && by != syscall.SIGSTOP {
			r.tty.follow(r.main, by, r.passed[by])
			delete(r.passed, by)
		}
		return
	case e.pid != r.main:
		if r.ended && !r.killing {
			r.report.Drained++
		}
		return
	}
	r.ended = true
	r.report.Code = exitCode(e.status)
	if e.status.Signaled() && r.passed[e.status.Signal()] {
		r.asked = true
	}
	if r.OnMainExit == Wait && !r.asked {
		return
	}
	r.startGrace()
	// Who has been asked already must not be asked twice: many a service takes the second SIGTERM
	// for an order to drop everything. Those outside of the group have not heard it yet.
	if !r.asked {
		_ = syscall.Kill(-r.main, syscall.SIGTERM)
	}
	r.outside = time.After(scanDelay)
}

// scanDelay is the time to wait for the end of the last child before the process table is scanned;
// usually no child is left.
const scanDelay = 2 * time.Millisecond

// signalOutside signals the descendants that have left the service's process group.
func (r *running) signalOutside(s syscall.Signal) {
	for _, p := range r.descendants() {
		if pgid, err := syscall.Getpgid(p.PID); err == nil && pgid != r.main {
			_ = syscall.Kill(p.PID, s)
		}
	}
}

// signalAll signals every descendant.
func (r *running) signalAll(s syscall.Signal) {
	if r.isPID1 {
		_ = syscall.Kill(-1, s)
		return
	}
	_ = syscall.Kill(-r.main, s)
	r.signalOutside(s)
}

// kill ends what has outlived the grace time.
func (r *running) kill() {
	r.killing = true
	r.report.Killed = r.descendants()
	if len(r.report.Killed) == 0 {
		r.report.Killed = []Process{{PID: r.main}} // no /proc to look into
	}
	r.signalAll(syscall.SIGKILL)
	r.deadline = time.After(killWait)
}

func (r *running) finish() Report {
	r.tty.takeBack(r.main)
	if !r.since.IsZero() {
		r.report.Drain = time.Since(r.since)
	}
	if to, ok := r.MapExit[r.report.Code]; ok {
		r.report.Code = to
	}
	return r.report
}

func (r *running) descendants() []Process {
	all := processes()
	if r.isPID1 {
		return slices.DeleteFunc(all, func(p Process) bool { return p.PID == 1 })
	}
	return descendantsOf(os.Getpid())
}

// exitCode is what a shell shows for the status.
func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// becomeReaper makes orphaned descendants children of this process. Where that is not allowed,
// those that leave their parent go to process 1 as they always did.
func becomeReaper() {
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
	if os.Getpid() != 1 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
	}
}
