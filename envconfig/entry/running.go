//go:build linux

package entry

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// end is a child that has ended or stopped.
type end struct {
	pid    int
	status syscall.WaitStatus
}

// running is a service that runs.
type running struct {
	*Init
	main    int
	shell   bool // main was started as a shell
	tty     *terminal
	signals <-chan os.Signal // nil once the caller has closed it
	ends    chan end
	broken  error // why ends was closed while children are left; read after that
	isPID1  bool  // of its namespace, where every other process is a descendant
	begun   time.Time

	report Report
	ended  bool // the main process
	// asked: the service was given a signal to stop, or the main process ended by a signal that was
	// passed on, or soon after one.
	asked bool
	// askedGroup: the whole process group was, since /proc does not show its processes.
	askedGroup bool
	// trapped: the main process is a shell with a trap for the last signal, so that it has to stop
	// its background processes itself. asks is how its script may do that.
	trapped bool
	asks    asking
	// inCharge: the main process is the service itself.
	inCharge bool
	// program is the name of the program in the main process at the time of the signal to stop.
	program string
	// scheduler: one of the processes that were told is a scheduler. Its jobs, which have process
	// groups of their own, end by themselves.
	scheduler bool
	told      map[identity]bool // processes that were given a signal to stop
	passed    map[syscall.Signal]bool
	last      time.Time // when a signal was passed on

	since    time.Time // when the drain began
	deadline <-chan time.Time
	lastCall <-chan time.Time
	check    <-chan time.Time // whether the main process waits for one that it has not told
	late     bool             // the last call has come
	deferred bool             // a service is to be told after another has ended
	drops    []drop
	again    <-chan time.Time // when the drops are looked at
	outside  <-chan time.Time
	killing  bool

	waits   bool // for the end of a service in the background
	pidFile <-chan time.Time
	pause   time.Duration // until the next look for the PID file
	adopted bool          // main is, or was, the process of the PID file
	early   bool          // the process of the PID file has ended before the start script
	// code and crash are the exit codes of the process that ended last after the main process, and
	// of one that died of a signal that was not passed on.
	code, crash int
}

// reap reports every child that ends, and closes ends when there is none left or none can be waited
// for.
func (r *running) reap() {
	defer close(r.ends)
	for {
		var e end
		var err error
		e.pid, err = syscall.Wait4(-1, &e.status, syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			return
		case err != nil:
			r.broken = fmt.Errorf("wait4: %w", err)
			return
		default:
			r.ends <- e
		}
	}
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
			if r.broken != nil {
				r.everyone(syscall.SIGKILL) // their ends could not be seen
			}
			return true
		}
		r.childChanged(e)
	case <-r.outside:
		r.askLeft()
	case <-r.check:
		r.askAwaited()
	case <-r.lastCall:
		r.late = true
		r.tell(r.all(syscall.SIGTERM), syscall.SIGTERM)
	case <-r.again:
		r.tellAgain()
	case <-r.pidFile:
		r.adopt()
	case <-r.deadline:
		if r.killing {
			return true
		}
		r.kill()
	}
	return false
}

// pass gives a signal to the service.
func (r *running) pass(s syscall.Signal) {
	if r.tty.stopAgain(s) {
		return
	}
	if r.passed == nil {
		r.passed = map[syscall.Signal]bool{}
	}
	r.passed[s] = true
	if !ofJobControl(s) && s != syscall.SIGWINCH {
		r.last = time.Now()
	}
	if s == syscall.SIGCONT {
		r.tty.restoreHandler()
	}
	// the signal may have come because a shell has brought this process into the foreground
	r.tty.give(r.main)
	switch plain := r.translate(s, ""); {
	case ofJobControl(s):
		r.group(s)
	case r.Scope == Group:
		r.passed[plain] = true
		r.group(plain)
		r.begin(r.stops(s, plain, ""))
	case r.Scope == Main && !r.ended:
		program := programOf(Process{PID: r.main})
		given := r.translate(s, program)
		r.passed[given] = true
		_ = syscall.Kill(r.main, given)
		r.begin(r.stops(s, given, program))
	default:
		v := r.view(s)
		all, shown := r.services(v)
		if !shown {
			r.unseen(s)
			return
		}
		clear(r.told) // whoever sends a signal twice means it
		r.begin(r.tell(all, s))
	}
}

// begin starts the grace where a signal has asked the service to stop.
func (r *running) begin(stops bool) {
	if stops {
		r.asked = true
		r.resume()
		r.startGrace()
	}
}

// resume continues the descendants that are stopped: they would handle no other signal before.
func (r *running) resume() {
	for _, s := range belowOf(os.Getpid()) {
		if s.stopped {
			_ = syscall.Kill(s.PID, syscall.SIGCONT)
		}
	}
}

// group gives a signal to the process group; once the main process has ended, to every descendant,
// since one that went into the background has most likely left the group.
func (r *running) group(s syscall.Signal) {
	if r.ended {
		r.everyone(s)
	} else {
		_ = syscall.Kill(-r.main, s)
	}
}

// unseen sends a signal where no /proc shows which processes are shells.
func (r *running) unseen(s syscall.Signal) {
	given := r.translate(s, "")
	r.passed[given] = true
	if r.ended || r.shell {
		r.group(given)
		r.askedGroup = r.stops(s, given, "")
	} else {
		_ = syscall.Kill(r.main, given)
	}
	r.begin(r.stops(s, given, ""))
}

func (r *running) view(s syscall.Signal) *view {
	return newView(func(program string) syscall.Signal { return r.translate(s, program) })
}

// services returns the processes that a signal is for. While a main process runs that is itself the
// service, or a shell with a trap, it has to stop its detached processes itself. shown is false
// where /proc does not show the children of this process.
func (r *running) services(v *view) (all []target, shown bool) {
	children := v.children[os.Getpid()]
	if r.ended {
		return v.all(children), len(v.children) > 0
	}
	at := slices.IndexFunc(children, func(s stat) bool { return s.PID == r.main })
	if at < 0 { // it has ended, which is still to be noted
		return v.all(children), len(v.children) > 0
	}
	all = v.services(children[at])
	first := all[0]
	r.inCharge = first.PID == r.main && !first.ends
	r.trapped = r.inCharge && len(v.children[r.main]) > 0 && slices.Contains(shells, first.program)
	if r.asks = otherwise; r.trapped {
		if script, seen := scriptOf(r.main); seen {
			r.asks = askingOf(script)
		}
	}
	if !r.inCharge {
		all = append(all, v.all(slices.Delete(slices.Clone(children), at, at+1))...)
	}
	return all, true
}

// tell sends the processes the signal, or its replacement for the program in question, and reports
// whether that asks the service to stop. A process that was asked to stop is not asked again, since
// many a service takes a second signal for an order to drop everything; a shell without a trap gets
// signals to stop and no others. A service that answers for a proxy beside it gets the signal when
// the proxy has ended.
func (r *running) tell(all []target, s syscall.Signal) (stops bool) {
	for i, t := range all {
		if !t.ends || i == len(all)-1 {
			stops = stops || r.stops(s, r.translate(s, t.program), t.program)
		}
	}
	front := slices.ContainsFunc(all, func(t target) bool {
		return slices.Contains(fronts, t.program)
	})
	for _, t := range all {
		if r.told[t.identity()] || t.ends && !stops {
			continue
		}
		if stops && front && !r.late && isBehind(t.program) {
			r.deferred = true
			continue
		}
		given := r.given(s, t)
		if r.passed == nil {
			r.passed = map[syscall.Signal]bool{}
		}
		r.passed[given] = true
		if stops && t.PID == r.main {
			r.program = t.program
		}
		// looked at first: it may unblock the signal, and drop it, soon after it was sent
		drops := stops && slices.Contains(forgetful, t.program) &&
			dispositionsOf(t.PID).blocks(given)
		_ = syscall.Kill(t.PID, given)
		if stops {
			if r.told == nil {
				r.told = map[identity]bool{}
			}
			r.told[t.identity()] = true
			r.scheduler = r.scheduler || slices.Contains(schedulers, t.program)
			if drops {
				r.drops, r.again = append(r.drops, drop{t, given}), time.After(scanDelay)
			}
		}
	}
	return stops
}

// given returns the signal for a process in place of s. A SIGWINCH without a handler is dropped
// by the kernel, so a program that has not installed its handler yet, and has no work to finish,
// gets s as it came. The other signals end such a program.
func (r *running) given(s syscall.Signal, t target) syscall.Signal {
	to := r.translate(s, t.program)
	_, wanted := r.Rewrite[s]
	if to != syscall.SIGWINCH || to == s || wanted || r.StopSignal != 0 {
		return to
	}
	if d := dispositionsOf(t.PID); d.known && !d.catches(to) {
		return s
	}
	return to
}

// drop is a signal that a forgetful program was given while it blocked it.
type drop struct {
	target
	signal syscall.Signal
}

// dropPause is the time between two looks at the drops.
const dropPause = 20 * time.Millisecond

// tellAgain gives forgetful programs the signal again, once they catch it.
func (r *running) tellAgain() {
	r.again = nil
	r.drops = slices.DeleteFunc(r.drops, func(d drop) bool {
		now := dispositionsOf(d.PID)
		if now.blocks(d.signal) || !now.catches(d.signal) {
			return !now.known // it has ended
		}
		_ = syscall.Kill(d.PID, d.signal)
		return true
	})
	if len(r.drops) > 0 {
		r.again = time.After(dropPause)
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
	r.lastCall = time.After(grace / 5 * 4)
	r.check = time.After(grace / 5)
}

// soon is the time within which a main process that ends has most likely done so because of a
// signal.
const soon = time.Second

// childChanged notes that a child has ended or stopped.
func (r *running) childChanged(e end) {
	switch {
	case e.status.Stopped():
		if by := e.status.StopSignal(); e.pid == r.main && by != syscall.SIGSTOP {
			r.tty.follow(r.main, by, r.passed[by])
			delete(r.passed, by)
		}
		return
	case e.pid != r.main || r.ended:
		if r.ended && !r.killing {
			r.report.Drained++
		}
		// one that died of the signal, as a launcher below a shell, has told those below it nothing
		deaf := r.ended && r.asked && e.status.Signaled() && r.passed[e.status.Signal()]
		if r.deferred || deaf && !r.killing {
			r.outside = time.After(scanDelay)
		}
		r.code = exitCode(e.status)
		if e.status.Signaled() && !r.passed[e.status.Signal()] && !r.killing {
			r.crash = r.code
		}
		if r.awaitsPIDFile() && r.named() == e.pid {
			r.serviceEnded(e)
		}
		return
	case r.adopted && r.follow(e.pid):
		return
	}
	r.ended = true
	if !r.early {
		r.report.Code = exitCode(e.status)
	}
	if e.status.Signaled() && r.passed[e.status.Signal()] || time.Since(r.last) < soon {
		r.asked = true
	}
	if r.OnMainExit == Wait && !r.adopted && !r.early {
		r.waits, r.code, r.crash = true, 0, 0
		if r.PIDFile != "" {
			r.adopt()
		}
		if !r.asked {
			return
		}
	}
	r.startGrace()
	r.outside = time.After(scanDelay)
}

// scanDelay is the time to wait for the end of the last child before the process table is scanned;
// usually no child is left.
const scanDelay = 2 * time.Millisecond

// askLeft asks the processes to stop that the main process has left behind. If the main process was
// asked itself, it may have asked them already, in its own way: see untold. The others get the
// signal at the last call.
func (r *running) askLeft() {
	s := syscall.SIGTERM
	defer r.resume()
	if r.Scope == Group {
		if !r.asked {
			_ = syscall.Kill(-r.main, s)
		}
		r.outsideGroup(s)
		return
	}
	all := r.all(s)
	if r.asked && r.inCharge && r.ended {
		all = slices.DeleteFunc(all, func(t target) bool { return !r.untold(t, s) })
	} else if r.asked && r.scheduler {
		all = slices.DeleteFunc(all, func(t target) bool { return !r.inGroup(t.PID) })
	}
	r.tell(all, s)
}

// all returns all services.
func (r *running) all(s syscall.Signal) []target {
	v := r.view(s)
	if len(v.children) == 0 {
		if !r.askedGroup || r.late {
			r.everyone(s)
		}
		return nil
	}
	return v.all(v.children[os.Getpid()])
}

// untold reports whether a process is to be asked that the main process has left when it was asked
// itself. One that SIGTERM would have ended is still there, so no such signal has come to it: it
// is asked, unless it has a process group of its own, as a job of cron, which ends by itself. The
// trap of a shell may have asked in another way.
func (r *running) untold(t target, s syscall.Signal) bool {
	catches := dispositionsOf(t.PID).catches(r.translate(s, t.program))
	switch {
	case slices.Contains(followers, t.program):
		return true
	case slices.Contains(schedulers, r.program):
		return catches
	case r.trapped && r.asks == otherwise:
		return false
	case r.trapped && r.asks == bySignal:
		return !catches && r.inGroup(t.PID)
	}
	return catches || r.inGroup(t.PID)
}

// askAwaited asks the child that the main process waits for, where that has a handler and did not
// pass the signal on: another program without a handler, which the signal would have ended. A
// service that waits for its own workers runs the same program in them.
func (r *running) askAwaited() {
	if r.ended || r.Scope != Service || !r.inCharge || r.trapped || !inWait(r.main) {
		return
	}
	s := syscall.SIGTERM
	v := r.view(s)
	for _, child := range v.children[r.main] {
		below := v.services(child)
		if v.program(child) == r.program || !r.inGroup(child.PID) ||
			slices.ContainsFunc(below, func(t target) bool {
				d := dispositionsOf(t.PID)
				return !d.known || d.catches(r.translate(s, t.program))
			}) {
			continue
		}
		r.tell(below, s)
	}
}

// inGroup reports whether a process is in the process group of the main one.
func (r *running) inGroup(pid int) bool {
	pgid, err := syscall.Getpgid(pid)
	return err == nil && pgid == r.main
}

// outsideGroup signals the descendants that have left the service's process group.
func (r *running) outsideGroup(s syscall.Signal) {
	for _, p := range r.descendants() {
		if !r.inGroup(p.PID) {
			_ = syscall.Kill(p.PID, s)
		}
	}
}

// everyone signals every descendant.
func (r *running) everyone(s syscall.Signal) {
	if r.isPID1 {
		_ = syscall.Kill(-1, s)
		return
	}
	_ = syscall.Kill(-r.main, s)
	r.outsideGroup(s)
}

// identity distinguishes a process from all others.
type identity struct {
	pid   int
	start uint64
}

func (t target) identity() identity { return identity{t.PID, t.start} }

// kill ends the processes that have outlived the grace time.
func (r *running) kill() {
	r.killing = true
	r.report.Killed = r.descendants()
	if len(r.report.Killed) == 0 {
		r.report.Killed = []Process{{PID: r.main}} // no /proc to look into
	}
	r.everyone(syscall.SIGKILL)
	r.deadline = time.After(killWait)
}

func (r *running) finish() Report {
	r.tty.takeBack(r.main)
	if r.waits || r.adopted && !r.ended { // another process has waited for the adopted one
		r.report.Code = cmp.Or(r.code, r.crash, r.report.Code)
	}
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
