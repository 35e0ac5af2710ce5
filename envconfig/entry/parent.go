//go:build linux

package entry

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// EndWithParent has the kernel send a signal to this process when the one that started it dies,
// also after [Exec]. It locks the calling goroutine to its thread for good, because the kernel
// keeps the wish with the thread.
func EndWithParent(s syscall.Signal) error {
	const setParentDeathSignal = 1 // PR_SET_PDEATHSIG of <linux/prctl.h>
	runtime.LockOSThread()
	before := os.Getppid()
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setParentDeathSignal, uintptr(s), 0)
	if errno != 0 {
		return fmt.Errorf("prctl, to end with the process that started this one: %w", errno)
	}
	if os.Getppid() != before { // it has died in between
		return syscall.Kill(os.Getpid(), s)
	}
	return nil
}
