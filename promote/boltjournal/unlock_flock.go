//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package boltjournal

import (
	"os"
	"syscall"
)

// unlock ends bbolt's lock of a file that stays mapped: flock(2) keeps it as long as the map.
func unlock(file *os.File) error { return syscall.Flock(int(file.Fd()), syscall.LOCK_UN) }
