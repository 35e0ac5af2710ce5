package vip

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

const historyPrefix = "past/"

// remember returns the record that keeps the past when next ends it, and the slot that it goes to:
// a tenure that ends, or a binding that is replaced. The oldest record of the address makes room.
// value is how next is stored: a tenure that has ended is kept as it is.
func (a *Allocator) remember(e *entry, next *tenure, value []byte) (past []byte, slot int) {
	if next.State == Leased {
		was := *e.last()
		was.Ended, was.Reason = next.Binding.Since, "bound anew"
		value = encodeTenure(&was)
	}
	return value, int((next.history - 1) % uint64(a.cfg.History))
}

// pastKey is the key of a slot of the past of e.
func pastKey(e *entry, slot int) string {
	return historyPrefix + e.text() + "/" + strconv.Itoa(slot)
}

// passes says whether next leaves something behind that is to be remembered.
func (a *Allocator) passes(e *entry, next *tenure) bool {
	was := e.last()
	if a.cfg.History < 0 || e.rev == 0 || was.State != Leased {
		return false
	}
	return next.State != Leased || len(was.Binding.Instances) > 0 &&
		!next.Binding.Since.Equal(was.Binding.Since)
}

// History returns the holders of addr, oldest first: one record for each binding of each tenure
// that has ended, and the live lease as the last. In a record Ended is when the tenure, or the
// binding, was over; Config.History says how many are kept.
func (a *Allocator) History(ctx context.Context, addr netip.Addr) ([]Lease, error) {
	addr = addr.Unmap()
	records, err := a.store.List(ctx, historyPrefix+addr.String()+"/")
	if err != nil {
		return nil, fmt.Errorf("history of %s: %w", addr, err)
	}
	tenures := make([]tenure, len(records))
	for i, r := range records {
		if tenures[i], err = decodeTenure(r.Value); err != nil {
			return nil, fmt.Errorf("history of %s: %s: %w", addr, r.Key, err)
		}
	}
	slices.SortFunc(tenures, func(a, b tenure) int {
		return cmp.Or(a.Ended.Compare(b.Ended), cmp.Compare(a.Generation, b.Generation),
			cmp.Compare(a.history, b.history))
	})
	var past []Lease
	for _, l := range tenures {
		past = append(past, l.Lease)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.x.entries.get(addr); e != nil && e.state == Leased {
		past = append(past, e.shown())
	} else if e == nil && len(past) == 0 && a.x.poolOf(addr) == nil {
		return nil, fmt.Errorf("history of %s: the address is in no pool: %w", addr, ErrNotFound)
	}
	return past, nil
}

// At returns the lease that held addr at the time at. Its Binding is empty when nothing was bound
// at that time yet. ErrNotFound when no lease had it, or so long ago that it is not kept.
func (a *Allocator) At(ctx context.Context, addr netip.Addr, at time.Time) (Lease, error) {
	past, err := a.History(ctx, addr)
	if err != nil {
		return Lease{}, err
	}
	for _, l := range past {
		if !l.Ended.IsZero() && !l.Ended.After(at) {
			continue
		}
		if l.Acquired.After(at) {
			break
		}
		if l.Binding.Since.After(at) {
			l.Binding = Binding{}
		}
		return l, nil
	}
	return Lease{}, fmt.Errorf("holder of %s at %s: %w", addr, at.Format(time.RFC3339), ErrNotFound)
}
