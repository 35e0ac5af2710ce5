package entry

import (
	"errors"
	"fmt"
)

// The errors that a caller branches on, with the exit code that shells use for them.
var (
	// ErrNotFound (127): there is no such command.
	ErrNotFound = errors.New("not found")
	// ErrNotExecutable (126): there is such a command, and it cannot be run.
	ErrNotExecutable = errors.New("not executable")
	// ErrInvalid: a field of [Init], [Command] or [Environ] has a value that it cannot have.
	ErrInvalid = errors.New("invalid")
)

// bad returns the error for a field with a bad value.
func bad(field, want string) error {
	return fmt.Errorf("entry: %s: want %s: %w", field, want, ErrInvalid)
}
