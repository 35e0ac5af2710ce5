//go:build !unix

package tool

import "os/exec"

// endWithChildren does nothing: without process groups, only cmd itself ends with its context.
func endWithChildren(*exec.Cmd) {}
