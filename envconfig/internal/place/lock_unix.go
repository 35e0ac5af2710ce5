//go:build unix && !solaris && !aix

package place

import (
	"errors"
	"syscall"
)

// tryLock reports whether the lock is held now, or the file system has no locks, where processes
// must not share the tree.
func tryLock(f handle) bool {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR)
}
