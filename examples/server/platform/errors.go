package platform

import (
	"errors"
	"fmt"
)

// ErrNotFound is returned for a build, task, instance or VIP that is not there.
var ErrNotFound = errors.New("not found")

// ErrConflict is returned for a change that does not fit the current state.
var ErrConflict = errors.New("conflict")

// ErrUnverified is returned when not every worker of Nginx has answered with the routes within
// Config.Patience. They may well come into force later.
var ErrUnverified = errors.New("not verified")

// ErrInvalid is returned for a request or a Config that is invalid in every state.
var ErrInvalid = errors.New("invalid")

// ErrClosed is returned for a change that is asked for when Run has ended or is about to.
var ErrClosed = errors.New("the server is ending")

// invalidError keeps its message free of the sentinel's words.
type invalidError struct{ message string }

func (e invalidError) Error() string        { return e.message }
func (e invalidError) Is(target error) bool { return target == ErrInvalid }

func invalid(format string, args ...any) error { return invalidError{fmt.Sprintf(format, args...)} }
