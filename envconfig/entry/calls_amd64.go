package entry

// The numbers of system calls as /proc/PID/syscall shows them.
const (
	sigsuspend = "130"
	waitid     = "247"
	wait4      = "61"
)
