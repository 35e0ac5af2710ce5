package vip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
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
// that is still gone after Config.LeakGrace has its lease ended, unless the grace is negative. One that is back in between,
// or has asked this allocator for its lease again, is no candidate any more. The leases are read before the first question,
// and a lease that has changed meanwhile is left alone, so an owner that has just come is never taken for one that has gone.
// Run calls it every Config.LeakInterval.
func (a *Allocator) CheckLeaks(ctx context.Context) ([]Leak, error) {
	if a.cfg.Alive == nil {
		return nil, fmt.Errorf("check for leaks: %w: Config.Alive is not set", ErrInvalid)
	}
	held, revs, err := a.held(ctx)
	if err != nil {
		return nil, fmt.Errorf("check for leaks: %w", err)
	}
	var leaks []Leak
	var errs []error
	for _, addr := range slices.SortedFunc(maps.Keys(held), netip.Addr.Compare) {
		l := held[addr].lease
		alive, err := a.cfg.Alive(ctx, l)
		if err != nil { // not seen alive, and not counted as seen gone
			errs = append(errs, fmt.Errorf("owner of lease %s: %w", l.ID, err))
			continue
		}
		leak, err := a.suspect(ctx, l, revs[addr], alive)
		if leak != nil {
			leaks = append(leaks, *leak)
		}
		errs = append(errs, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	live := map[string]bool{}
	for _, h := range held {
		live[h.lease.ID] = true
	}
	maps.DeleteFunc(a.suspects, func(id string, _ time.Time) bool { return !live[id] })
	return leaks, errors.Join(errs...)
}

// suspect notes whether the owner of l, which was read at revision rev, is alive, and ends l if it has been gone for long.
// It returns nil when there is no leak.
func (a *Allocator) suspect(ctx context.Context, l Lease, rev uint64, alive bool) (*Leak, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	since, known := a.suspects[l.ID]
	if alive {
		delete(a.suspects, l.ID)
		return nil, nil
	}
	now := a.cfg.Now()
	if !known {
		since = now
		a.suspects[l.ID] = now
	}
	leak := &Leak{Lease: l, Since: since.Round(0).UTC()}
	if !known || a.cfg.LeakGrace < 0 || now.Sub(since) < a.cfg.LeakGrace {
		return leak, nil
	}
	e, err := a.find(ctx, l.ID, l.Generation, false)
	switch {
	case errors.Is(err, ErrFenced) || errors.Is(err, ErrNotFound):
		return leak, nil
	case err != nil:
		return leak, fmt.Errorf("end leaked lease %s: %w", l.ID, err)
	}
	if _, still := a.suspects[l.ID]; !still || e.state != Leased || e.rev != rev {
		return leak, nil
	}
	if err := a.end(ctx, e, a.cfg.Now(), "leaked: its owner is gone"); err != nil {
		return leak, err
	}
	leak.Confirmed = e.last().ID == l.ID && e.state != Leased
	return leak, nil
}

// present says that the owner of held has just asked for it.
func (a *Allocator) present(held []*entry) {
	for _, e := range held {
		if len(a.suspects) > 0 {
			delete(a.suspects, e.last().ID)
		}
	}
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
