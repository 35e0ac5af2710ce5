//go:build !linux

package cutoff

import (
	"errors"
	"fmt"
	"net/netip"
)

// socket is a connection.
type socket struct{}

func connections([]int, map[netip.AddrPort]bool) ([]socket, error) {
	return nil, errors.ErrUnsupported
}

func destroy([]socket) error { return errors.ErrUnsupported }

func able() error {
	return fmt.Errorf("to end connections takes Linux: %w", errors.ErrUnsupported)
}
