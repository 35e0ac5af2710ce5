package vip

import (
	"encoding/hex"
	"hash/fnv"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	clockBoottime = 7 // CLOCK_BOOTTIME in time.h of Linux
	// of the time namespace that every process is in unless unshare(CLONE_NEWTIME) was called:
	// PROC_TIME_INIT_INO in proc_ns.h of Linux
	firstTimeNamespace = "time:[4026531834]"
)

// machineUptime returns the Config.Uptime of this machine; nil when the kernel does not name its
// start. In a time namespace, which may have set CLOCK_BOOTTIME off, the name is another.
func machineUptime() func() (string, time.Duration) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil
	}
	id, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(id) == 0 {
		return nil
	}
	// kernels before 5.6 have no such namespaces, and none of the files
	if space, err := os.Readlink("/proc/self/ns/time"); err == nil && space != firstTimeNamespace {
		offsets, err := os.ReadFile("/proc/self/timens_offsets")
		if err != nil {
			return nil
		}
		sum := fnv.New128a()
		for _, part := range [][]byte{id, []byte(space), offsets} {
			_, _ = sum.Write(part) // never fails
		}
		id = sum.Sum(nil)
	}
	boot := string(id)
	return func() (string, time.Duration) {
		var ts syscall.Timespec
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime,
			uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
			return "", 0
		}
		return boot, time.Duration(ts.Nano())
	}
}
