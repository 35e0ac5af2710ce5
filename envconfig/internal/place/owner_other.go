//go:build !unix

package place

import "io/fs"

// uid returns -1: files of this operating system have no numeric owner.
func uid(fs.FileInfo) int { return -1 }

func owner(fs.FileInfo) string { return "" }
