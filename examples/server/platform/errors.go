package platform

import (
	"errors"
	"fmt"
)

// ErrNotFound is returned for a build, task, instance or VIP that is not there.
var ErrNotFound = errors.New("not found")

// ErrInvalid is returned for a request that cannot be right whatever the state.
var ErrInvalid = errors.New("invalid request")

// invalidError keeps its message free of the sentinel's words.
type invalidError struct{ message string }

func (e invalidError) Error() string        { return e.message }
func (e invalidError) Is(target error) bool { return target == ErrInvalid }

func invalid(format string, args ...any) error { return invalidError{fmt.Sprintf(format, args...)} }
