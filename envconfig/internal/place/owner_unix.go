//go:build unix

package place

import (
	"fmt"
	"io/fs"
	"syscall"
)

// uid returns the user that owns the file, or -1 if that is not known.
func uid(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// owner returns the owner as it is shown in an error.
func owner(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf(", uid %d, gid %d", st.Uid, st.Gid)
	}
	return ""
}
