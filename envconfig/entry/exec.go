package entry

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Exec replaces the process by the command, which keeps the process id. It returns only when it could not; the error
// matches [ErrNotExecutable] or [ErrNotFound].
func Exec(c *Command, env []string) error {
	return startError(c, syscall.Exec(c.Path, c.Args, env))
}

func startError(c *Command, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w: %w", c.Path, ErrNotFound, err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%s: %w: neither a binary for this machine nor a script with a #! line", c.Path, ErrNotExecutable)
	}
	return fmt.Errorf("%s: %w: %w", c.Path, ErrNotExecutable, err)
}
