package place

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// The errors of this package that a caller branches on; any other error is a plain I/O error.
// Package envconfig exports the same values under the same names.
var (
	// ErrInvalid: a journal cannot be read, or something other than a file is where a file is read.
	ErrInvalid = errors.New("invalid")
	// ErrTarget: a target cannot be a file, or cannot be replaced as a whole.
	ErrTarget = errors.New("unusable target")
	// ErrPermission: this user may not write a target.
	ErrPermission = errors.New("not permitted")
)

// invalid returns an error that matches [ErrInvalid] and names the place and the problem.
func invalid(where, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %w", where, fmt.Errorf(format, args...), ErrInvalid)
}

// TargetError returns err with the name of the target that it is about and, where one fits, with
// [ErrTarget] or [ErrPermission] in its chain.
func TargetError(name string, err error) error {
	kind := error(nil)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		kind = ErrPermission
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s: it is a mount of its own and cannot be replaced; "+
			"mount the directory instead, take it out of envs/, or use --in-place: %w: %w", name,
			err,
			ErrTarget)
	case IsNotDir(err):
		return fmt.Errorf("%s: a file is where a directory has to be: %w: %w", name, err, ErrTarget)
	case errors.Is(err, syscall.EISDIR), errors.Is(err, fs.ErrExist),
		errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EXDEV),
		errors.Is(err, syscall.ELOOP),
		errors.Is(err, syscall.ENAMETOOLONG), isEscape(err):
		kind = ErrTarget
	default:
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s: %w: %w", name, err, kind)
}

// IsNotDir reports whether err means that something other than a directory is where a directory has
// to be.
func IsNotDir(err error) bool {
	return errors.Is(err, syscall.ENOTDIR) || refuses(err, syscall.ENOTDIR.Error())
}

// isEscape reports whether os.Root refused a path because a link in it leads out of the root.
func isEscape(err error) bool { return refuses(err, "path escapes from parent") }

// refuses reports whether os.Root refused a path with that text; the text is all that it exports.
func refuses(err error, text string) bool {
	var p *fs.PathError
	return errors.As(err, &p) && p.Err.Error() == text
}

// Cause returns the innermost error of a chain, without the path that the caller names anyway.
func Cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
