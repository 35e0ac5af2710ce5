package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

const defaultTimeout = time.Second

// TCP asks by connections. It works through routers, and does not see a host that drops what comes
// to a closed port.
type TCP struct {
	// Ports to try, all at once; required.
	Ports []uint16
	// Timeout of the connection. The default is 1 s.
	Timeout time.Duration
}

// InUse reports whether a host answers at addr: accepting or refusing a connection to a port. Not
// to reach the address within Timeout means that it is not in use; that there is no route to its
// network is an error, as is context.Cause(ctx).
func (p TCP) InUse(ctx context.Context, addr netip.Addr) (bool, error) {
	if len(p.Ports) == 0 || p.Timeout < 0 {
		return false, fmt.Errorf("probe %s by TCP: TCP.Ports: %v, TCP.Timeout: %s: want at least "+
			"one port, and 0 (default %s) or more: %w", addr, p.Ports, p.Timeout, defaultTimeout,
			vip.ErrInvalid)
	}
	timeout := p.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	errs := make(chan error, len(p.Ports))
	for _, port := range p.Ports {
		go func() {
			conn, err := (&net.Dialer{}).DialContext(bounded, "tcp",
				netip.AddrPortFrom(addr, port).String())
			if err == nil {
				_ = conn.Close() // the host has answered
			}
			errs <- err
		}()
	}
	var problem error
	for range p.Ports {
		switch err := <-errs; {
		case err == nil, errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
			return true, nil
		case bounded.Err() != nil, isTimeout(err), errors.Is(err, syscall.EHOSTUNREACH):
		default:
			problem = err
		}
	}
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		<-ctx.Done() // the dialer has seen the deadline first
	}
	if ctx.Err() != nil {
		problem = context.Cause(ctx)
	}
	if problem != nil {
		return false, fmt.Errorf("probe %s by TCP: %w", addr, problem)
	}
	return false, nil
}

// isTimeout reports whether the dialer gave up: it may see a deadline before the context does.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
