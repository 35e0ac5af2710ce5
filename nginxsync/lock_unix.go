//go:build unix && !solaris && !aix

package nginxsync

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes the lock of a file, which ends with the file or the process.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
