//go:build !amd64

package entry

// The numbers of system calls as /proc/PID/syscall shows them, which are these for all machines
// whose Linux came after 2010: arm64, riscv64, loong64. On other machines none matches, and the
// children decide.
const (
	sigsuspend = "133"
	waitid     = "95"
	wait4      = "260"
)
