package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// ErrQuarantineFull is returned by Quarantine when Pool.MaxQuarantined addresses are set aside
// already: a fault that makes every address look bad must not empty the pool.
var ErrQuarantineFull = errors.New("quarantine full")

// Quarantine sets an address aside as bad: it is not handed out until rest has passed, 0 for until
// Restore is called. A lease that lives on it ends. An address that is not free rests for its
// cool-down at least, however short rest is; with Config.Drained for Config.DrainLimit more, as
// Drained is not called. Reserved addresses are ErrTaken, those of no pool ErrNotFound.
func (a *Allocator) Quarantine(ctx context.Context, addr netip.Addr, reason string,
	rest time.Duration) (Lease, error) {
	if rest < 0 || rest > longestTTL {
		return Lease{}, fmt.Errorf("quarantine %s: rest %s: want 0 (no end) to 100 years: %w", addr,
			rest, ErrInvalid)
	}
	return a.force(ctx, "quarantine", addr, func(e *entry, next *tenure, now time.Time) error {
		return a.setAside(e, next, now, reason, rest)
	})
}

// setAside makes next, which is the last tenure of e, that of an address in quarantine.
func (a *Allocator) setAside(e *entry, next *tenure, now time.Time, reason string,
	rest time.Duration) error {
	if limit := e.pool.maxQuarantined(); e.state != Quarantined &&
		e.pool.counts[Quarantined] >= limit {
		return fmt.Errorf("pool %q: %d of %d addresses, at most %d; look for a common cause, or "+
			"raise Pool.MaxQuarantined: %w",
			e.pool.Name, e.pool.counts[Quarantined], e.pool.size, limit, ErrQuarantineFull)
	}
	if next.State == Leased {
		next.Ended, next.Expires = now, time.Time{}
	}
	next.State, next.Reason, next.CoolUntil = Quarantined, reason, time.Time{}
	next.rest = nil
	if rest > 0 {
		rest = max(rest, a.leastRest(e))
		next.CoolUntil, next.rest = now.Add(rest), a.resting(rest)
	}
	return nil
}

// leastRest returns the least time before an address may be given again.
func (a *Allocator) leastRest(e *entry) time.Duration {
	rest := e.pool.coolDown()
	switch {
	case e.state == Free || e.last().Generation == 0: // it has rested, or was never used
		return 0
	case e.state != Cooling && a.cfg.Drained != nil:
		rest += a.cfg.DrainLimit
	}
	return rest
}

// Restore takes an address out of quarantine: it drains and cools down like one that was released,
// and is free then. An address that is not in quarantine is left as it is.
func (a *Allocator) Restore(ctx context.Context, addr netip.Addr, reason string) (Lease, error) {
	return a.force(ctx, "restore", addr, func(e *entry, next *tenure, now time.Time) error {
		if e.state != Quarantined {
			return errUnchanged
		}
		next.Reason, next.State, next.CoolUntil = reason, Draining, time.Time{}
		next.rest = nil
		if a.cfg.Drained == nil || next.ID == "" { // there is no lease to ask about
			a.cool(e, next, now)
		}
		return nil
	})
}

var errUnchanged = errors.New("nothing to change")

// force changes an address of any holder.
func (a *Allocator) force(ctx context.Context, op string, addr netip.Addr,
	edit func(e *entry, next *tenure, now time.Time) error) (_ Lease, err error) {
	if a.cfg.Observe != nil {
		defer a.observe(op, a.cfg.Now(), &err)
	}
	addr = addr.Unmap()
	a.mu.Lock()
	defer a.mu.Unlock()
	for conflicts := 0; conflicts < maxRounds; {
		if err := context.Cause(ctx); err != nil {
			return Lease{}, fmt.Errorf("%s %s: %w", op, addr, err)
		}
		now := a.cfg.Now()
		a.advance(now)
		e, err := a.named(addr)
		if err != nil {
			return Lease{}, fmt.Errorf("%s: %w", op, err)
		}
		if again, err := a.awaitIdle(ctx, e); err != nil {
			return Lease{}, fmt.Errorf("%s %s: %w", op, addr, err)
		} else if again {
			continue
		}
		if _, again, err := a.settledPeer(ctx, e); err != nil {
			return Lease{}, fmt.Errorf("%s %s: %w", op, addr, err)
		} else if again {
			continue
		}
		c := a.newCommit()
		next := &c.add(e).next
		if *next = *e.last(); e.rev == 0 {
			*next = tenure{Lease: Lease{Addr: addr, Pool: e.pool.Name}}
		}
		held := next.State == Leased
		if err := edit(e, next, now); errors.Is(err, errUnchanged) {
			a.recycle(c)
			return e.shown(), nil
		} else if err != nil {
			a.recycle(c)
			return Lease{}, fmt.Errorf("%s %s: %w", op, addr, err)
		}
		e.pool.dequeue(e)
		if held {
			a.endPeer(c, e, now, fmt.Sprintf("%s of %s, its other address: %s", op, addr,
				next.Reason))
		}
		if err := a.commit(ctx, now, c); errors.Is(err, ErrRevision) {
			conflicts++
			continue
		} else if err != nil {
			return Lease{}, fmt.Errorf("%s %s: %w", op, addr, err)
		}
		return e.shown(), nil
	}
	return Lease{}, fmt.Errorf("%s %s: %w", op, addr, ErrContended)
}

// named finds the entry of an address that is not reserved, and makes it when it was never used.
func (a *Allocator) named(addr netip.Addr) (*entry, error) {
	e, p := a.x.entries.get(addr), a.x.poolOf(addr)
	switch {
	case e == nil && p == nil:
		return nil, fmt.Errorf("address %s: in no pool: %w", addr, ErrNotFound)
	case e == nil:
		if reason, ok := p.Reserved[addr]; ok {
			return nil, &TakenError{Addr: addr, State: Reserved, Reason: reason}
		}
		e = a.x.entry(p, addr)
		a.relink(e, a.cfg.Now())
	case e.state == Reserved:
		return nil, &TakenError{Addr: addr, State: Reserved, Reason: p.Reserved[addr]}
	}
	return e, nil
}

// maxQuarantined is how many addresses of p may be set aside.
func (p *pool) maxQuarantined() uint64 {
	share := p.MaxQuarantined
	if share == 0 {
		share = DefaultMaxQuarantined
	}
	return max(1, p.share(share))
}
