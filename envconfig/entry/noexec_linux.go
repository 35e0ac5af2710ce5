package entry

import "syscall"

// isMountedNoExec reports whether no file may be executed where name is.
func isMountedNoExec(name string) bool {
	const noExec = 8 // ST_NOEXEC of statvfs(3)
	var st syscall.Statfs_t
	return syscall.Statfs(name, &st) == nil && st.Flags&noExec != 0
}
