package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Snapshot holds the live leases at one moment, and distinguishes two moments of one address. It is
// not changed after Allocator.Snapshot has returned it, and may be read by several goroutines.
type Snapshot struct {
	// At is when the snapshot was taken, in UTC, by Config.Now.
	At time.Time
	// Leases are the live leases, by address. The caller owns the slice.
	Leases []Lease

	marks   map[netip.Addr]mark
	records int // addresses with a record
}

// mark is a snapshot's record of an address.
type mark struct {
	id       string // of the live lease; "" when there is none
	revision uint64
	asked    uint32
	gone     bool
}

// Revision returns the store's revision of the address's record, which grows with every change of
// it; 0 when the address has no record.
func (s *Snapshot) Revision(addr netip.Addr) uint64 { return s.marks[addr.Unmap()].revision }

// Empty reports whether no address had a record: the store is new, was emptied, or is not the one
// that the leases were made in.
func (s *Snapshot) Empty() bool { return s.records == 0 }

// OutOfPool reports whether the address has a record although no configured pool contains it any
// more.
func (s *Snapshot) OutOfPool(addr netip.Addr) bool { return s.marks[addr.Unmap()].gone }

// Asked counts how often Allocate of this allocator has answered the owner with the lease that it
// already held at addr. Only a difference between two snapshots of one allocator has a meaning: the
// owner has asked in between.
func (s *Snapshot) Asked(addr netip.Addr) uint32 { return s.marks[addr.Unmap()].asked }

// Snapshot returns the live leases as they are now. With a shared store it reads all addresses from
// the store first, so that it includes the changes of other allocators. The error is ErrUncertain
// or the store's.
func (a *Allocator) Snapshot(ctx context.Context) (*Snapshot, error) {
	a.mu.Lock()
	_, err := a.fetchAllIfOlder(ctx, 0)
	a.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	now := a.syncCatalog(0)
	views := make([]*view, 0, a.catalog.byAddr.len)
	for v := range a.catalog.byAddr.after(netip.Addr{}) {
		views = append(views, v)
	}
	a.catalog.mu.RUnlock()
	s := &Snapshot{At: now.Round(0).UTC(), marks: make(map[netip.Addr]mark, len(views))}
	for _, v := range views {
		m := mark{revision: v.rev, asked: v.asked, gone: v.pool.gone}
		if v.rev != 0 {
			s.records++
		}
		if v.state == Leased {
			l := v.last()
			m.id = l.ID
			l.show(v.addr, v.state, v.pool)
			s.Leases = append(s.Leases, l.Lease)
		}
		s.marks[v.addr] = m
	}
	return s, nil
}

// Holder returns the live lease of addr as it is now; ErrNotFound when the address has no holder.
// It waits until a commit in flight is made, and settles one that is uncertain. With a shared store
// it reads the address from the store first. Other errors are ErrUncertain, context.Cause(ctx) and
// the store's.
func (a *Allocator) Holder(ctx context.Context, addr netip.Addr) (Lease, error) {
	addr = addr.Unmap()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shared {
		if err := a.fetchAddr(ctx, addr); err != nil {
			return Lease{}, fmt.Errorf("holder of %s: %w", addr, err)
		}
	}
	for {
		a.advance(a.cfg.Now())
		e := a.x.entries.get(addr)
		if e == nil {
			return Lease{}, fmt.Errorf("holder of %s: %w", addr, ErrNotFound)
		}
		switch again, err := a.awaitIdle(ctx, e); {
		case err != nil:
			return Lease{}, fmt.Errorf("holder of %s: %w", addr, err)
		case again:
		case e.state != Leased:
			return Lease{}, fmt.Errorf("holder of %s: %w", addr, ErrNotFound)
		default:
			return e.shown(), nil
		}
	}
}

// ReleaseUnchanged ends the lease that addr had in the snapshot, like Release, provided that
// nothing has happened to it since: the record of the address is the same, and the owner has not
// asked this allocator for the lease again. Otherwise it changes nothing and returns ErrConflict.
// An address without a live lease in the snapshot is ErrNotFound. The snapshot must be of this
// allocator.
func (a *Allocator) ReleaseUnchanged(
	ctx context.Context, since *Snapshot, addr netip.Addr, reason string,
) (_ Lease, err error) {
	if a.cfg.Observe != nil {
		defer a.observe("release", a.cfg.Now(), &err)
	}
	addr = addr.Unmap()
	seen := since.marks[addr]
	if seen.id == "" {
		return Lease{}, fmt.Errorf("release %s: no live lease in the snapshot: %w", addr,
			ErrNotFound)
	}
	if ctx.Err() != nil {
		return Lease{}, fmt.Errorf("release lease %s: %w", seen.id, context.Cause(ctx))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var e *entry
	named, err := parseLeaseID(seen.id)
	if err == nil {
		e, err = a.find(ctx, named, false)
	}
	changed := fmt.Errorf("release lease %s: changed since the snapshot: %w", seen.id, ErrConflict)
	switch {
	case errors.Is(err, ErrFenced) || errors.Is(err, ErrNotFound):
		return Lease{}, changed
	case err != nil:
		return Lease{}, fmt.Errorf("release lease %s: %w", seen.id, err)
	case e.state != Leased || e.rev != seen.revision || e.asked != seen.asked:
		return Lease{}, changed
	}
	if err := a.end(ctx, e, a.cfg.Now(), reason); err != nil {
		return Lease{}, err
	}
	if e.state == Leased || e.last().ID != seen.id {
		return Lease{}, changed
	}
	return e.shown(), nil
}
