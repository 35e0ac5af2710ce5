//go:build unix

package program

import (
	"os/exec"
	"syscall"
)

// group makes the end of the command's context kill its children with it.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
