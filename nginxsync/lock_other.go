//go:build !unix || solaris || aix

package nginxsync

import "os"

// tryLock reports true: this operating system has no flock, and agents must not share a state file.
func tryLock(*os.File) (bool, error) { return true, nil }
