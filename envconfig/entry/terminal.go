//go:build linux

package entry

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// terminal is the controlling terminal, or nil where none of the standard files is it. Where
// standard input is not, as in a pipe, the terminal is left to the others of the pipe, and only
// processes that it stops are followed.
type terminal struct {
	own int
	// the signal that stopped this process's group and that, until it goes on, it does not handle
	stopped syscall.Signal
	// its handler
	handler sigaction
}

// sigaction has room for the kernel's struct sigaction; its zero value is the default action.
type sigaction [8]uintptr

func openTerminal() *terminal {
	for fd := range uintptr(3) {
		if foregroundOf(fd) >= 0 {
			return &terminal{own: syscall.Getpgrp()}
		}
	}
	return nil
}

// foreground is the process group that may read from the terminal on standard input, or -1.
func foreground() int { return foregroundOf(0) }

func foregroundOf(fd uintptr) int {
	var group int32
	if _, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, fd, syscall.TIOCGPGRP,
		uintptr(unsafe.Pointer(&group))); errno != 0 {
		return -1
	}
	return int(group)
}

// setForeground is allowed from the background, too, to a thread that blocks SIGTTOU.
func setForeground(group int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const block, set = 0, 2 // SIG_BLOCK and SIG_SETMASK
	mask, before, to := uint64(1)<<(syscall.SIGTTOU-1), uint64(0), int32(group)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, block, uintptr(unsafe.Pointer(&mask)),
		uintptr(unsafe.Pointer(&before)), 8, 0, 0)
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCSPGRP, uintptr(unsafe.Pointer(&to)))
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, set, uintptr(unsafe.Pointer(&before)),
		0, 8, 0, 0)
}

// give puts the service's group into the foreground in place of this process's, so that it may read
// and gets the signals of the keys. It reports whether this process was there: a shell that runs it
// in the background keeps the terminal.
func (t *terminal) give(group int) bool {
	if t == nil || foreground() != t.own {
		return false
	}
	setForeground(group)
	return true
}

// takeBack is for the shell script that goes on when this process ends. It takes the terminal from
// the service, or from a group that has gone, as a shell leaves behind that was killed.
func (t *terminal) takeBack(group int) {
	if t == nil {
		return
	}
	if now := foreground(); now == group || now > 0 && errors.Is(syscall.Kill(-now, 0),
		syscall.ESRCH) {
		setForeground(t.own)
	}
}

// follow follows a service that a key has stopped, or that wanted to read in the background: where
// a shell runs this process, it stops as well, so that the shell knows and takes the terminal,
// until "fg" or "bg" sends SIGCONT. In a container no process could ever continue it, nor where the
// script that runs this process has the terminal, so the service gets the terminal and goes on,
// unless it was a signal passed on that had asked it to stop.
func (t *terminal) follow(group int, by syscall.Signal, asked bool) {
	if t == nil {
		return
	}
	sid, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	switch inShell := os.Getpid() != 1 && int(sid) != t.own; {
	case t.give(group):
		// "fg" sends no SIGCONT to a group that goes on already
	case !asked && foreground() == group && (by == syscall.SIGTTIN || by == syscall.SIGTTOU):
		// it has got the terminal since
	case inShell:
		t.stop(by)
		return
	case asked, foreground() < 0:
		return
	default:
		setForeground(group)
	}
	_ = syscall.Kill(-group, syscall.SIGCONT)
}

// stop stops this process's group by the signal's default action, at once, as the kernel does after
// the same look at the foreground: an "fg" in between would find nothing stopped. The handler comes
// back with restoreHandler, for the signal may reach another thread only after this has returned.
func (t *terminal) stop(by syscall.Signal) {
	var standard, handler sigaction
	setAction(by, &standard, &handler)
	t.stopped, t.handler = by, handler
	_, _, _ = syscall.RawSyscall(syscall.SYS_KILL, 0, uintptr(by), 0)
}

// stopAgain stops this process again where the signal of the last stop has come to a handler that
// was installed in the meantime.
func (t *terminal) stopAgain(s syscall.Signal) bool {
	if t == nil || s != t.stopped {
		return false
	}
	t.stop(s)
	return true
}

// restoreHandler installs the handler again, after the SIGCONT that ends a stop.
func (t *terminal) restoreHandler() {
	if t == nil || t.stopped == 0 {
		return
	}
	if now := (sigaction{}); setAction(t.stopped, nil, &now) && now == (sigaction{}) {
		setAction(t.stopped, &t.handler, nil)
	}
	t.stopped = 0
}

func setAction(s syscall.Signal, to, old *sigaction) bool {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s),
		uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	return errno == 0
}
