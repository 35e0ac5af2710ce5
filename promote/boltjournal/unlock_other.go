//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package boltjournal

import "os"

// unlock does nothing: closing the file ends its lock on these systems.
func unlock(*os.File) error { return nil }
