//go:build linux

package entry

import (
	"os"
	"syscall"
	"unsafe"
)

// terminal is the controlling terminal on standard input, or nil where there is none or others are in its foreground.
type terminal struct{ own int }

func openTerminal() *terminal {
	foreground, err := ioctl(syscall.TIOCGPGRP, 0)
	own := syscall.Getpgrp()
	if err != nil || foreground != own {
		return nil
	}
	return &terminal{own: own}
}

func ioctl(request uintptr, value int) (int, error) {
	v := int32(value)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, request, uintptr(unsafe.Pointer(&v))); errno != 0 {
		return 0, errno
	}
	return int(v), nil
}

// give puts the service's group into the foreground, so that it may read and gets what the keys send. A service that was
// faster, and was stopped for reading too soon, is continued.
func (t *terminal) give(group int) {
	if t == nil {
		return
	}
	_, _ = ioctl(syscall.TIOCSPGRP, group)
	_ = syscall.Kill(-group, syscall.SIGCONT)
}

// stopped follows a service that a key has stopped: where a shell runs this process, it stops as well, so that the shell
// gets the terminal, until "fg" continues it. In a container nobody could ever continue it, so the service goes on.
func (t *terminal) stopped(group int, by syscall.Signal, passed bool) {
	if t == nil || by == syscall.SIGSTOP || passed {
		return
	}
	sid, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	if pid := os.Getpid(); pid != 1 && int(sid) != pid {
		_ = syscall.Kill(0, syscall.SIGSTOP)
	}
	t.give(group)
}
