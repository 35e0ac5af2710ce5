//go:build unix

package supervisor

import (
	"os/exec"
	"syscall"
)

// detach keeps the signals of the program's terminal away from Nginx.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
