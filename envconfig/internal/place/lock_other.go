//go:build !unix || solaris || aix

package place

// tryLock reports true: this operating system has no flock, and processes must not share the tree.
func tryLock(handle) bool { return true }
