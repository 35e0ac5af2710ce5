//go:build linux

package entry

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// DefaultGrace is below the 30 seconds that Kubernetes gives a pod. "docker stop" gives 10 by
// default.
const DefaultGrace = 25 * time.Second

// killWait bounds how long killed processes are waited for: one that hangs in the kernel must not
// hold the container.
const killWait = 5 * time.Second

// Init runs a service as the process 1 of a container should: it stays in front of the service,
// passes every signal on, reaps orphans, and ends when the last descendant has gone rather than
// when the first child has. So a service behind "sh /sbin/startup.sh" can finish its requests after
// SIGTERM, which the shell does not survive and does not pass on.
//
// Run waits for all children of the process, so no other part of the program may wait for or start
// any. Where the process is not process 1, Run makes it the reaper of its descendants.
type Init struct {
	// Grace is how long descendants may go on after a signal that asks them to stop or, under
	// [Stop], after the service's main process has ended; then they are killed. Descendants that
	// the service itself should ask are asked when four fifths of it have gone. The default is
	// [DefaultGrace]; a negative Grace is refused.
	Grace time.Duration
	// Scope says which processes get the signals. The default is [Service].
	Scope Scope
	// Rewrite replaces signals before they reach the service, e.g. {SIGTERM: SIGQUIT}; a signal
	// rewritten to itself is left alone. Without an entry for SIGTERM it becomes StopSignal, or for
	// Nginx, php-fpm, Apache and HAProxy the signal on which they finish their requests.
	Rewrite map[syscall.Signal]syscall.Signal
	// StopSignal asks the service to stop, as the image's STOPSIGNAL says. The default, 0, is
	// SIGTERM. SIGTERM, SIGINT and SIGQUIT ask it in any case, SIGQUIT except for a JVM, which
	// prints its threads.
	StopSignal syscall.Signal
	// OnMainExit chooses the fate of other descendants when the main process ends by itself. The
	// default is [Stop].
	OnMainExit MainExit
	// PIDFile is the file in which a service in the background leaves its process id, in the first
	// line. Under [Wait] that process becomes the main one when the start script has ended, and
	// after it the one that it has left the file to. The default is none: then the exit code is
	// that of the last process, see [Wait].
	PIDFile string
	// ParentDeath is sent to this process when the one that started it dies, see [EndWithParent],
	// and to the service when this process does. The default, 0, is that both go on.
	ParentDeath syscall.Signal
	// MapExit replaces exit codes, e.g. {143: 0} for a JVM that ends cleanly on SIGTERM. The
	// default is none. Both codes are from 0 to 255.
	MapExit map[int]int
}

// Scope says which of the service's processes get a signal. The signals of job control, SIGTSTP,
// SIGTTIN, SIGTTOU and SIGCONT, go to the process group in every scope.
type Scope int

const (
	// Service is the first process below this one that is neither a shell nor a wrapper such as env
	// or su: a service signals its own workers. Where a shell has started several, it is all of
	// them. A shell without a trap dies of a stopping signal, lest it start its next command; one
	// that catches a signal gets it in place of its background processes. Where /proc cannot be
	// read, it is the main process or, for a shell, the group.
	Service Scope = iota
	// Main is the process that was started.
	Main
	// Group is the process group of the main process.
	Group
)

// MainExit is the action of Init when the main process has ended without having been asked to.
type MainExit int

const (
	// Stop sends SIGTERM to the services that are left and gives them the grace time.
	Stop MainExit = iota
	// Wait goes on until they have ended by themselves; for start scripts that put the service into
	// the background. The exit code is that of the process of PIDFile. Without one it is that of
	// the process that ended last or, where that is 0, of one that died of a signal of its own, or
	// of the main process.
	Wait
)

// Report says how a service ended.
type Report struct {
	// Code is the exit code for the container: the main process's own or 128 and the signal that
	// ended it, after MapExit.
	Code int
	// Drained counts the descendants that ended after the main process had.
	Drained int
	// Killed lists the processes that had to be killed when the grace time was over.
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
	if err := mayWait(); err != nil {
		return Report{}, err
	}
	becomeReaper()
	tty := openTerminal()
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if i.ParentDeath != 0 {
		attributes.Pdeathsig = i.ParentDeath
		if err := EndWithParent(i.ParentDeath); err != nil {
			return Report{}, err
		}
	}
	begun := time.Now()
	pid, err := syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{0, 1, 2},
		Sys:   attributes,
	})
	if err != nil {
		return Report{}, startError(c, err)
	}
	tty.give(pid) // should it have read too soon, it was stopped for that: see follow
	r := running{
		Init: i, main: pid, shell: c.isShell(), tty: tty, signals: signals, ends: make(chan end),
		isPID1: os.Getpid() == 1, begun: begun,
	}
	go r.reap()
	for !r.turn() {
	}
	return r.finish(), r.broken
}

// mayWait returns an error where the container's profile forbids to wait for children. It comes
// before the service is started.
func mayWait() error {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); err != nil &&
		!errors.Is(err, syscall.ECHILD) && !errors.Is(err, syscall.EINTR) {
		return fmt.Errorf("wait4, without which no end of a service can be seen; "+
			"--init=false does without: %w", err)
	}
	return nil
}

// validate returns all problems of the fields at once.
func (i *Init) validate() error {
	var problems []error
	if i.Grace < 0 {
		problems = append(problems,
			bad(fmt.Sprintf("Init.Grace: %v", i.Grace), fmt.Sprintf("0 (default %v) or more",
				DefaultGrace)))
	}
	if i.OnMainExit != Stop && i.OnMainExit != Wait {
		problems = append(problems, bad(fmt.Sprintf("Init.OnMainExit: %d", i.OnMainExit),
			"Stop or Wait"))
	}
	if i.Scope < Service || i.Scope > Group {
		problems = append(problems, bad(fmt.Sprintf("Init.Scope: %d", i.Scope),
			"Service, Main or Group"))
	}
	const catchable = "signals from 1 to 64 that can be caught"
	for from, to := range i.Rewrite {
		if !canBePassedOn(from) || !canBePassedOn(to) {
			problems = append(problems, bad(fmt.Sprintf("Init.Rewrite: %d:%d", from, to),
				catchable))
		}
	}
	if i.StopSignal != 0 && !canBePassedOn(i.StopSignal) {
		problems = append(problems, bad(fmt.Sprintf("Init.StopSignal: %d", i.StopSignal),
			catchable))
	}
	if i.ParentDeath != 0 && !canBePassedOn(i.ParentDeath) {
		problems = append(problems, bad(fmt.Sprintf("Init.ParentDeath: %d", i.ParentDeath),
			catchable))
	}
	for from, to := range i.MapExit {
		if from != from&0xff || to != to&0xff {
			problems = append(problems,
				bad(fmt.Sprintf("Init.MapExit: %d:%d", from, to), "exit codes from 0 to 255"))
		}
	}
	return errors.Join(problems...)
}

// exitCode returns the exit code that a shell shows for the status.
func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// becomeReaper makes orphaned descendants children of this process. Where that is not allowed,
// orphans go to process 1 as they always did.
func becomeReaper() {
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
	if os.Getpid() != 1 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
	}
}
