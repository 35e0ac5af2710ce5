package envconfig

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
	"github.com/sluice-deploy/sluice/internal/names"
)

// The errors that a caller branches on. The binary's exit code for each is given; every other
// failure to read or write is a plain I/O error (74).
var (
	// ErrUnknownEnvironment (78): the name of the environment is missing, malformed or not one that
	// the image has, or a witness of the environment disagrees. Nothing was changed.
	ErrUnknownEnvironment = errors.New("unknown environment")
	// ErrInvalid (65): the source directory, envconfig.json or manifest.json is not as it must be.
	ErrInvalid = place.ErrInvalid
	// ErrIncomplete (66): the environment is known but its files, or some of the required ones, are
	// not there.
	ErrIncomplete = errors.New("incomplete")
	// ErrTarget (73): a target cannot be a file, or cannot be replaced as a whole.
	ErrTarget = place.ErrTarget
	// ErrPermission (77): this user may not write a target, or not read a source.
	ErrPermission = place.ErrPermission
)

// UnknownEnvironmentError says which name was refused. It matches [ErrUnknownEnvironment].
type UnknownEnvironmentError struct {
	// Name is the requested name; it may be empty.
	Name string
	// Reason is the problem with Name.
	Reason string
	// Known are the environments of the image, sorted.
	Known []string
	// Nearest is the known environment whose name is nearest to Name, or empty.
	Nearest string
}

// Error names the refused environment and the environments of the image.
func (e *UnknownEnvironmentError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "environment %s: %s", names.Quote(e.Name), e.Reason)
	if e.Nearest != "" {
		fmt.Fprintf(&b, "; did you mean %q", e.Nearest)
	}
	fmt.Fprintf(&b, "; the image has %s", list(e.Known))
	return b.String()
}

// Is reports whether target is [ErrUnknownEnvironment].
func (e *UnknownEnvironmentError) Is(target error) bool { return target == ErrUnknownEnvironment }

// list returns the names for a message.
func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// invalid returns an error that matches [ErrInvalid] and names the place and the problem.
func invalid(where, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %w", where, fmt.Errorf(format, args...), ErrInvalid)
}
