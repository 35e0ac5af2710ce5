package vip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Run sweeps until ctx is done: whenever something is due, and at least every Config.Interval. It
// returns ctx's cause. A sweep that failed is logged and made again after a second, or
// Config.Interval when that is less. Config.Drained is called beside the sweep, one call at a time:
// leases expire while it takes its time. Between two rounds of such calls is a second, or
// Config.Interval when that is less. Run returns after the last call of Config.Drained has.
func (a *Allocator) Run(ctx context.Context) error {
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() {
		a.repeat(ctx, "drain of addresses", min(a.cfg.Interval, defaultEvery), func() error {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.endDrained(ctx)
		})
	})
	if store, ok := a.store.(Watcher); ok && a.shared {
		others.Go(func() { a.follow(ctx, store) })
	}
	a.repeat(ctx, "sweep of leases", 0, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.sweep(ctx)
	})
	return context.Cause(ctx)
}

// repeat calls do at once, and then whenever something is due or Config.Interval has passed, though
// not before minPause has, until ctx is done.
func (a *Allocator) repeat(
	ctx context.Context, what string, minPause time.Duration, do func() error,
) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if ctx.Err() != nil { // both were
			return
		}
		shortest := minPause
		if err := do(); err != nil && ctx.Err() == nil {
			a.cfg.Logger.Warn(what, "err", err)
			shortest = min(a.cfg.Interval, defaultEvery)
		}
		a.mu.Lock()
		pause := a.pause()
		a.mu.Unlock()
		timer.Reset(max(pause, shortest))
	}
}

// pause is how long nothing is due, between a millisecond and Interval. It is called with mu held.
func (a *Allocator) pause() time.Duration {
	pause := a.cfg.Interval
	if !a.x.soonest.IsZero() {
		pause = min(pause, a.x.soonest.Sub(a.cfg.Now()))
	}
	return max(pause, time.Millisecond)
}

// Sweep does the work that is due now: it reads the changes of other allocators (Config.Refresh),
// settles commits whose outcome is not known, ends leases that have expired, and begins the
// cool-down of addresses that have drained. Run calls it; a caller with a scheduler of its own may
// call it instead.
func (a *Allocator) Sweep(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(a.sweep(ctx), a.endDrained(ctx))
}

// sweep is Sweep without the questions to the caller.
func (a *Allocator) sweep(ctx context.Context) error {
	a.noticeJump()
	var err error
	if !a.following {
		_, err = a.fetchAllIfOlder(ctx, a.cfg.Refresh)
	}
	return errors.Join(err, a.resolveAll(ctx), a.endOverdue(ctx), a.forgetIdle(ctx), a.forget(ctx))
}

func (a *Allocator) resolveAll(ctx context.Context) error {
	var errs []error
	for _, c := range append([]*commit(nil), a.uncertain...) {
		if e := c.steps[0].e; e.uncertain && a.uncertainOf(e) == c && !e.busy {
			errs = append(errs, a.resolveUncertain(ctx, c))
		}
	}
	return errors.Join(errs...)
}

func (a *Allocator) endOverdue(ctx context.Context) error {
	a.advance(a.cfg.Now())
	overdue := a.x.overdue
	a.x.overdue = nil
	for len(overdue) > 0 {
		n := min(len(overdue), a.atOnce)
		for _, e := range overdue[:n] {
			if _, _, err := a.settledPeer(ctx, e); err != nil {
				a.x.overdue = append(a.x.overdue, overdue...)
				return fmt.Errorf("end expired leases: %w", err)
			}
		}
		now := a.cfg.Now()
		c := a.newCommit()
		for _, e := range overdue[:n] {
			// the end of that makes it due again if it is still over
			if e.busy || e.uncertain {
				continue
			}
			if !a.x.expired(e, now) {
				if e.state == Leased { // it was renewed, or the clock was put back
					a.relink(e, now)
				}
				continue
			}
			if !a.endPeer(c, e, now, "expired") {
				a.x.overdue = append(a.x.overdue, e) // until the next sweep
				continue
			}
			s := c.add(e)
			s.next = *e.last()
			a.ending(e, &s.next, now, "expired")
			e.busy = true // if it is overdue twice, it is ended once
		}
		if len(c.steps) == 0 {
			a.recycle(c)
		} else if err := a.commit(ctx, now, c); err != nil {
			// leases that are over still are due again
			if errors.Is(err, ErrTooLarge) {
				a.atOnce = max(1, a.atOnce/2)
			}
			if !errors.Is(err, ErrRevision) {
				a.x.overdue = append(a.x.overdue, overdue[n:]...)
				return fmt.Errorf("end expired leases: %w", err)
			}
		}
		overdue = overdue[n:]
	}
	return nil
}

func (a *Allocator) endDrained(ctx context.Context) error {
	var errs []error
	for _, e := range a.x.draining() {
		if e.state != Draining || e.busy || e.uncertain {
			continue
		}
		l, rev := e.shown(), e.rev
		over := !l.Ended.Add(a.cfg.DrainLimit).After(a.cfg.Now())
		if !over && a.cfg.Drained != nil {
			var drained bool
			var err error
			a.unlocked(func() { drained, err = a.cfg.Drained(ctx, l) })
			if err != nil {
				errs = append(errs, fmt.Errorf("drain of %s: %w", l.Addr, err))
			}
			if !drained || err != nil || e.rev != rev || e.busy || e.uncertain {
				continue
			}
		}
		c, now := a.newCommit(), a.cfg.Now()
		s := c.add(e)
		s.next = *e.last()
		a.cool(e, &s.next, now)
		if err := a.commit(ctx, now, c); err != nil && !errors.Is(err, ErrRevision) {
			errs = append(errs, fmt.Errorf("cool down %s: %w", l.Addr, err))
		}
	}
	return errors.Join(errs...)
}
