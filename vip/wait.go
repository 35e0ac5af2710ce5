package vip

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Waiter is a request that waits for an address.
type Waiter struct {
	Owner    Owner     `json:"owner"`
	Pools    []string  `json:"pools"` // any of which will do
	Count    int       `json:"count"`
	Priority int       `json:"priority"`
	Since    time.Time `json:"since"`
	Position int       `json:"position"`          // 1 is next
	Estimate time.Time `json:"estimate,omitzero"` // when its turn comes if no lease is renewed or released early; zero when not known
}

type waiter struct {
	Waiter
	req   Request
	woken chan struct{} // of capacity 1: a wake-up that comes before the waiter sleeps is kept
}

// Waiting lists the requests that wait, the next one first.
func (a *Allocator) Waiting() []Waiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	type due struct {
		pool *pool
		at   time.Time
	}
	var dues []due
	a.x.coming(func(e *entry, at time.Time) { dues = append(dues, due{e.pool, at}) })
	slices.SortFunc(dues, func(a, b due) int { return a.at.Compare(b.at) })
	all := make([]Waiter, len(a.waiters))
	for i, w := range a.waiters {
		all[i] = w.Waiter
		all[i].Owner = w.Owner.clone()
		all[i].Position = i + 1
		for needed := w.Count; needed > 0; needed-- { // an address that is due serves one of those who wait
			next := slices.IndexFunc(dues, func(d due) bool { return w.wants(d.pool) })
			if next < 0 {
				all[i].Estimate = time.Time{}
				break
			}
			all[i].Estimate = dues[next].at.Round(0).UTC()
			dues = slices.Delete(dues, next, next+1)
		}
	}
	return all
}

// wants says whether w would take what it waits for from p as soon as that is free.
func (w *waiter) wants(p *pool) bool {
	return !p.gone && slices.Contains(w.Pools, p.Name) && p.holds(w.Count) && !p.overQuota(w.Owner.Team, w.Count)
}

// holds says whether p is large enough for n leases.
func (p *pool) holds(n int) bool { return p.size-uint64(len(p.Reserved)) >= uint64(n) }

// awaited says whether somebody who waits for p goes before w, or before a newcomer when w is nil.
func (a *Allocator) awaited(p *pool, w *waiter) bool {
	for _, ahead := range a.waiters {
		if ahead == w {
			return false
		}
		if ahead.wants(p) {
			return true
		}
	}
	return false
}

// queueUp puts the request into the queue, unless w says that it is there, and sleeps until it may
// be its turn.
func (a *Allocator) queueUp(ctx context.Context, w *waiter, req *Request, n int, full error) (*waiter, error) {
	if w == nil {
		w = &waiter{req: *req, woken: make(chan struct{}, 1)}
		w.Owner, w.Count, w.Priority, w.Since = req.Owner.clone(), n, req.Priority, a.cfg.Now()
		at, _ := slices.BinarySearchFunc(a.waiters, w, func(have, new *waiter) int {
			return cmp.Or(cmp.Compare(new.Priority, have.Priority), -1) // after those of the same priority
		})
		a.waiters = slices.Insert(a.waiters, at, w)
	}
	pools, err := a.aim(w)
	if err != nil {
		return w, err
	}
	if len(pools) > 0 && !slices.ContainsFunc(pools, func(p *pool) bool { return p.holds(n) }) {
		return w, full
	}
	timer := time.NewTimer(a.pause()) // what is due is seen even when nobody calls Run
	defer timer.Stop()
	a.unlocked(func() {
		select {
		case <-w.woken:
		case <-timer.C:
		case <-ctx.Done():
			err = fmt.Errorf("wait of task %q: %w: %w", req.Owner.Task, context.Cause(ctx), full)
		}
	})
	return w, err
}

// aim notes which pools may serve w.
func (a *Allocator) aim(w *waiter) ([]*pool, error) {
	pools, err := a.poolsFor(&w.req, nil)
	w.Pools = nil
	for _, p := range pools {
		w.Pools = append(w.Pools, p.Name)
	}
	return pools, err
}

// leave takes w out of the queue; nil is fine. Those behind it may be next.
func (a *Allocator) leave(w *waiter) {
	if w == nil {
		return
	}
	a.waiters = slices.DeleteFunc(a.waiters, func(other *waiter) bool { return other == w })
	a.wakeWaiters()
}

// wakeWaiters wakes those whose turn it may be: the first for each pool that has a free address.
func (a *Allocator) wakeWaiters() {
	if len(a.waiters) == 0 {
		return
	}
	for _, p := range a.x.pools {
		first := slices.IndexFunc(a.waiters, func(w *waiter) bool { return w.wants(p) })
		if first < 0 || p.ready() < uint64(a.waiters[first].Count) {
			continue
		}
		a.waiters[first].wake()
	}
}

// wake makes w look at the pools again.
func (w *waiter) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// poolsChanged wakes all waiters: each has to look at the new pools.
func (a *Allocator) poolsChanged() {
	for _, w := range a.waiters {
		_, _ = a.aim(w) // w gets the error itself
		w.wake()
	}
}

// ownerChanged wakes the waiters affected by e's gaining or losing a lease: those of the same task,
// and those that the pool's quotas now admit.
func (a *Allocator) ownerChanged(e *entry) {
	if len(a.waiters) == 0 {
		return
	}
	if e.state == Leased {
		for _, w := range a.waiters {
			if w.Owner.Task == e.last().Owner.Task {
				w.wake()
			}
		}
	}
	if len(e.pool.Quotas) > 0 {
		a.wakeWaiters()
	}
}
