package nginxsync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Drainer is a Driver that counts requests in flight. drivertest.Run holds an implementation to the
// contract.
type Drainer interface {
	// InFlight reports how many requests Nginx has given to each of the addresses and has not ended
	// yet, over all workers, also the workers that a reload has retired. A request counts from the
	// moment its instance is chosen until it has ended, so a request that is sent again moves. A
	// context that ends is an error with the context's cause in its chain.
	InFlight(ctx context.Context, addrs []netip.AddrPort) (InFlight, error)
}

// InFlight is how many requests are in flight to each address that was asked about.
type InFlight struct {
	Requests map[netip.AddrPort]int // by address; 0 where there is none
	// Silent are the workers that did not answer in time: their requests in flight are not known,
	// and not in Requests.
	Silent []Worker
}

// Drained reports whether it is known that no request is in flight.
func (f InFlight) Drained() bool {
	for _, n := range f.Requests {
		if n > 0 {
			return false
		}
	}
	return len(f.Silent) == 0
}

// String names the addresses with requests and the workers that are silent.
func (f InFlight) String() string {
	var parts []string
	for _, addr := range slices.SortedFunc(maps.Keys(f.Requests), netip.AddrPort.Compare) {
		if n := f.Requests[addr]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s has %d in flight", addr, n))
		}
	}
	for _, w := range f.Silent {
		parts = append(parts, fmt.Sprintf("worker %d (process %d) does not answer", w.Slot, w.PID))
	}
	if parts == nil {
		return "none in flight"
	}
	return strings.Join(parts, ", ")
}

// WaitDrained blocks until every worker of Nginx answers with the routes of that revision of the
// source or of a newer one, and no request is in flight to the addresses. A program that replaces
// instances takes the old ones out of the source, waits here, and only then ends them: no request
// is cut. The addresses should not be in the routes any more: one that is never comes to rest under
// load.
//
// The error names the requests still in flight and has the context's cause in its chain; a deadline
// for the drain is a context with one. errors.ErrUnsupported: the driver is no Drainer. WaitDrained
// does not change the routes, and a caller that gives up changes nothing.
func (a *Agent) WaitDrained(ctx context.Context, revision uint64, addrs []netip.AddrPort) error {
	drainer, ok := a.cfg.Driver.(Drainer)
	if !ok {
		return fmt.Errorf("wait for a drain: %T: %w", a.cfg.Driver, errors.ErrUnsupported)
	}
	if err := a.WaitVerified(ctx, revision); err != nil {
		return err
	}
	last := "not asked yet"
	tries := retry.Backoff{}
	for {
		start := a.cfg.Now()
		flight, err := drainer.InFlight(ctx, addrs)
		a.cfg.Observe("inflight", a.cfg.Now().Sub(start), err)
		switch {
		case err == nil && flight.Drained():
			return nil
		case err == nil:
			last = flight.String()
		case ctx.Err() == nil:
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for a drain: %s: %w", last, context.Cause(ctx))
		case <-time.After(tries.Next(5*time.Millisecond, 200*time.Millisecond)):
		}
	}
}
