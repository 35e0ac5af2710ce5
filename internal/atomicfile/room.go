package atomicfile

import (
	"errors"
	"fmt"
	"syscall"
)

// Room adds what to do to an error that says that a file system or a quota is full; it returns
// others, and nil, as they are.
func Room(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: make room in that file system, then ask again", err)
	}
	return err
}
