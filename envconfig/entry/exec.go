//go:build unix

package entry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Exec replaces the process by the command, which keeps the process id. It returns only when it
// could not; the error matches [ErrNotExecutable] or [ErrNotFound].
func Exec(c *Command, env []string) error {
	return startError(c, syscall.Exec(c.Path, c.Args, env))
}

func startError(c *Command, err error) error {
	_, gone := os.Stat(c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && gone != nil:
		return fmt.Errorf("%s: %w: %w", c.Path, err, ErrNotFound)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: the loader that it was linked for is not in the image, "+
			"as with another C library: %w: %w", c.Path, err, ErrNotExecutable)
	case errors.Is(err, syscall.ENOEXEC):
		return noFormat(c.Path)
	case errors.Is(err, fs.ErrPermission) && c.Interpreter != "" && isMountedNoExec(c.Interpreter):
		return noExec(c.Interpreter)
	}
	return fmt.Errorf("%s: %w: %w", c.Path, err, ErrNotExecutable)
}

func noExec(name string) error {
	return fmt.Errorf("%s: its file system is mounted noexec: remount it with exec, "+
		"or put the program elsewhere: %w", name, ErrNotExecutable)
}

func noFormat(name string) error {
	return fmt.Errorf("%s: neither a binary for this machine nor a script with a #! line: %w", name,
		ErrNotExecutable)
}
