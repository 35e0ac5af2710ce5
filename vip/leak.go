package vip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Leak is a live lease whose owner seems to be gone.
type Leak struct {
	Lease     Lease     `json:"lease"`
	Since     time.Time `json:"since"`     // when it was first seen to be gone
	Confirmed bool      `json:"confirmed"` // it stayed gone for Config.LeakGrace, and the lease has been ended
}

// CheckLeaks asks Config.Alive about the owner of every live lease. An owner that is gone makes its lease a candidate; one
// that is still gone after Config.LeakGrace has its lease ended, unless the grace is negative. One that is back in between
// is no candidate any more. The leases are read before the first question, and a lease that has changed meanwhile is left
// alone, so an owner that has just come is never taken for one that has gone. Run calls it every Config.LeakInterval.
func (a *Allocator) CheckLeaks(ctx context.Context) ([]Leak, error) {
	if a.cfg.Alive == nil {
		return nil, fmt.Errorf("check for leaks: %w: Config.Alive is not set", ErrInvalid)
	}
	leases := a.List(Query{States: []State{Leased}})
	var leaks []Leak
	var errs []error
	gone := map[string]time.Time{}
	for _, l := range leases {
		alive, err := a.cfg.Alive(ctx, l)
		a.mu.Lock()
		since, known := a.suspects[l.ID]
		a.mu.Unlock()
		if err != nil {
			errs = append(errs, fmt.Errorf("owner of lease %s: %w", l.ID, err))
			if known {
				gone[l.ID] = since // not seen alive, and not counted as seen gone
			}
			continue
		}
		if alive {
			continue
		}
		now := a.cfg.Now()
		if !known {
			since = now
		}
		gone[l.ID] = since
		leak := Leak{Lease: l, Since: since.Round(0).UTC()}
		if known && a.cfg.LeakGrace >= 0 && now.Sub(since) >= a.cfg.LeakGrace {
			leak.Confirmed, err = a.reclaim(ctx, l)
			errs = append(errs, err)
		}
		leaks = append(leaks, leak)
	}
	a.mu.Lock()
	a.suspects = gone
	a.mu.Unlock()
	return leaks, errors.Join(errs...)
}

// reclaim ends l if it is still as it was when it was read.
func (a *Allocator) reclaim(ctx context.Context, l Lease) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, err := a.find(ctx, l.ID, l.Generation, false)
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("end leaked lease %s: %w", l.ID, err)
	}
	if now := e.shown(); now.State != Leased || !now.Expires.Equal(l.Expires) || !now.Binding.Since.Equal(l.Binding.Since) {
		return false, nil
	}
	if err := a.end(ctx, e, a.cfg.Now(), "leaked: its owner is gone"); err != nil {
		return false, err
	}
	return e.last().ID == l.ID && e.state != Leased, nil
}

// Suspects lists the leases that are candidates for a leak, by address.
func (a *Allocator) Suspects() []Leak {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []Leak
	if len(a.suspects) == 0 {
		return nil
	}
	for _, e := range a.x.entries {
		if e.state == Leased {
			if since, ok := a.suspects[e.last().ID]; ok {
				all = append(all, Leak{Lease: e.shown(), Since: since.Round(0).UTC()})
			}
		}
	}
	slices.SortFunc(all, func(a, b Leak) int { return a.Lease.Addr.Compare(b.Lease.Addr) })
	return all
}
