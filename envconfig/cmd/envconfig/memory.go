//go:build linux

package main

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// giveBack returns the memory that only the start has needed: the heap, and the pages of the binary
// itself, which the kernel reads again from its cache where they are needed once more. It ignores
// failures.
func giveBack() {
	debug.FreeOSMemory()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), " "+self) {
			continue
		}
		if from, to, ok := parseReadOnly(line); ok { // nothing is lost
			_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED)
		}
	}
}

// parseReadOnly returns the addresses of a line of /proc/PID/maps, "5000-6000 r-xp …"; ok is false
// unless the memory can be read and not written. It does without fmt.Sscanf, which is 1 % of the
// binary.
func parseReadOnly(line string) (from, to uintptr, ok bool) {
	addresses, rest, _ := strings.Cut(line, " ")
	low, high, _ := strings.Cut(addresses, "-")
	a, err1 := strconv.ParseUint(low, 16, strconv.IntSize)
	b, err2 := strconv.ParseUint(high, 16, strconv.IntSize)
	return uintptr(a), uintptr(b), err1 == nil && err2 == nil && a < b &&
		strings.HasPrefix(rest, "r-")
}
