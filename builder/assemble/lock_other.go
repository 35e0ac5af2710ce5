//go:build !unix || solaris || aix

package assemble

import "os"

// tryLock reports false: this operating system has no flock, so the directory of a build that was
// killed stays.
func tryLock(*os.File) (bool, error) { return false, nil }
