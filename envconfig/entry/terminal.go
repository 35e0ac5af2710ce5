//go:build linux

package entry

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// terminal is the controlling terminal on standard input, or nil where there is none.
type terminal struct{ own int }

func openTerminal() *terminal {
	if foreground() < 0 {
		return nil
	}
	return &terminal{own: syscall.Getpgrp()}
}

// foreground is the process group that may read from the terminal, or -1.
func foreground() int {
	var group int32
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group))); errno != 0 {
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
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, block, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&before)), 8, 0, 0)
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCSPGRP, uintptr(unsafe.Pointer(&to)))
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, set, uintptr(unsafe.Pointer(&before)), 0, 8, 0, 0)
}

// give puts the service's group into the foreground in place of this process's, so that it may read and gets what the keys
// send. It reports whether this process was there: a shell that runs it in the background keeps the terminal.
func (t *terminal) give(group int) bool {
	if t == nil || foreground() != t.own {
		return false
	}
	setForeground(group)
	return true
}

// takeBack is for the shell script that goes on when this process ends.
func (t *terminal) takeBack(group int) {
	if t != nil && foreground() == group {
		setForeground(t.own)
	}
}

// stopped follows a service that a key has stopped, or that wanted to read in the background: where a shell runs this process,
// it stops as well, so that the shell knows and takes the terminal, until "fg" or "bg" sends SIGCONT. In a container nobody could
// ever continue it, so the service gets the terminal and goes on, unless it was a signal passed on that had asked it to stop.
func (t *terminal) stopped(group int, asked bool) {
	if t == nil {
		return
	}
	sid, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	pid := os.Getpid()
	switch inShell := pid != 1 && int(sid) != pid; {
	case t.give(group): // "fg" sends no SIGCONT to what goes on already
	case inShell:
		_ = syscall.Kill(0, syscall.SIGSTOP)
		return
	case asked:
		return
	default:
		setForeground(group)
	}
	_ = syscall.Kill(-group, syscall.SIGCONT)
}
