package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// The errors that a caller branches on with errors.Is. Where there is data, errors.As gives the
// struct named beside it.
var (
	// ErrExhausted: no address is free in any pool that the request may use. See *ExhaustedError.
	ErrExhausted = errors.New("exhausted")
	// ErrConflict: the owner already holds a lease with another specification (see *ConflictError),
	// or the address has changed since the snapshot.
	ErrConflict = errors.New("conflict")
	// ErrFenced: the lease of the call has ended, or its generation is stale. Nothing was changed.
	ErrFenced = errors.New("fenced")
	// ErrNotFound: no such lease, pool or address.
	ErrNotFound = errors.New("not found")
	// ErrTaken: the address that was asked for by name cannot be had. See *TakenError.
	ErrTaken = errors.New("taken")
	// ErrQuota: the team has as many leases as it may. See *QuotaError.
	ErrQuota = errors.New("quota used up")
	// ErrInvalid: the request contradicts itself or the pool's limits.
	ErrInvalid = errors.New("invalid")
	// ErrUncertain: the store did not say whether the change was made. The allocator finds out
	// before it touches the address again; asking again with the same owner or lease gives the
	// answer.
	ErrUncertain = errors.New("uncertain")
	// ErrContended: other allocators of the same store won every round. Try again later.
	ErrContended = errors.New("contended")
)

// ExhaustedError says how full the pools are that a request could have used.
type ExhaustedError struct {
	// pools that were tried, in order; empty when no pool matched
	Pools []string
	// addresses that are free now: not zero only when more than one was asked for
	Free uint64
	// addresses that become free when their cool-down ends
	Cooling uint64
	// addresses set aside as bad
	Quarantined uint64
	// when the next address may become free if no lease is renewed or released; zero when nothing
	// is due
	Soonest time.Time
	// none of the pools holds so many addresses: to wait is of no use
	Never bool
}

func (e *ExhaustedError) Error() string {
	if len(e.Pools) == 0 {
		return fmt.Sprintf("no enabled pool matches the request: %s", ErrExhausted)
	}
	if e.Never {
		return fmt.Sprintf("pool %s: has fewer addresses that may be leased than the request "+
			"wants: %s",
			strings.Join(e.Pools, ", "), ErrExhausted)
	}
	soonest := "nothing is due to become free: release a lease or grow the pool"
	if !e.Soonest.IsZero() {
		soonest = "the next address is due at " + e.Soonest.Format(time.RFC3339)
	}
	return fmt.Sprintf("pool %s: %d free, %d cooling, %d quarantined; %s: %s",
		strings.Join(e.Pools, ", "), e.Free, e.Cooling, e.Quarantined, soonest, ErrExhausted)
}

// Is makes errors.Is(err, ErrExhausted) true.
func (e *ExhaustedError) Is(target error) bool { return target == ErrExhausted }

// Difference is one field in which a request and the lease that its owner holds are not the same.
type Difference struct {
	Field      string // such as "pool", "addr", "overrides.hello_web"
	Have, Want string // of the lease, of the request; "" when absent
}

// ConflictError names the lease that the owner holds and every difference.
type ConflictError struct {
	Lease Lease
	Diff  []Difference
}

func (e *ConflictError) Error() string {
	parts := make([]string, len(e.Diff))
	for i, d := range e.Diff {
		parts[i] = fmt.Sprintf("%s is %q, asked for %q", d.Field, d.Have, d.Want)
	}
	return fmt.Sprintf("task %q: holds lease %s: %s; release it first or ask for the same: %s",
		e.Lease.Owner.Task, e.Lease.ID, strings.Join(parts, ", "), ErrConflict)
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// TakenError says why an address that was asked for by name cannot be had. It does not say who has
// it: that is another owner's affair, and List has it for an operator.
type TakenError struct {
	Addr   netip.Addr
	State  State
	Reason string    // why it is reserved or quarantined, or the pool disabled
	Until  time.Time // when the state ends by itself; zero when it does not
}

func (e *TakenError) Error() string {
	msg := fmt.Sprintf("address %s: %s", e.Addr, e.State)
	if e.Reason != "" {
		msg += fmt.Sprintf(" (%s)", e.Reason)
	}
	if !e.Until.IsZero() {
		msg += ", until " + e.Until.Format(time.RFC3339)
	}
	return msg + ": " + ErrTaken.Error()
}

// Is makes errors.Is(err, ErrTaken) true.
func (e *TakenError) Is(target error) bool { return target == ErrTaken }

// QuotaError says which quota stands in the way.
type QuotaError struct {
	Pool, Team string
	Limit      int // leases that the team may have at once
	Held       int // that it has, or is about to get
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("pool %q: team %q: %d of %d leases; release one or raise Pool.Quotas: %s",
		e.Pool, e.Team, e.Held, e.Limit, ErrQuota)
}

// Is makes errors.Is(err, ErrQuota) true.
func (e *QuotaError) Is(target error) bool { return target == ErrQuota }
