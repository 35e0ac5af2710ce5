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
	Owner Owner    `json:"owner"`
	Pools []string `json:"pools"` // any of which will do, of each family for a dual one
	Count int      `json:"count"`
	// it waits for an address of each family: AllocateDual
	DualStack bool      `json:"dualStack,omitempty"`
	Priority  int       `json:"priority"`
	Since     time.Time `json:"since"`
	// 1 is next
	Position int `json:"position"`
	// when its turn comes if no lease is renewed or released early; zero when not known
	Estimate time.Time `json:"estimate,omitzero"`
}

type waiter struct {
	Waiter
	req    Request
	each   int           // how many addresses it takes of one pool
	seq    uint64        // in the order of arrival
	queues []*pool       // in whose queue it is
	woken  chan struct{} // of capacity 1: a wake-up that comes before the waiter sleeps is kept
}

// before reports whether w goes before other: of a higher priority, or longer waiting.
func (w *waiter) before(other *waiter) bool { return compareWaiters(w, other) < 0 }

func compareWaiters(a, b *waiter) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.seq, b.seq))
}

// Waiting lists the requests that wait, the next one first.
func (a *Allocator) Waiting() []Waiter {
	a.mu.Lock()
	a.advance(a.cfg.Now())
	all := make([]Waiter, len(a.waiters))
	wanted := make([][][]*pool, len(a.waiters)) // by each of all, for each part of the request
	each := make([]int, len(a.waiters))
	needed := map[*pool]int{}
	for i, w := range a.waiters {
		all[i], each[i] = w.Waiter, w.each
		for _, f := range w.req.families() {
			part := slices.DeleteFunc(slices.Clone(w.queues), func(p *pool) bool {
				return f != anyFamily && p.family() != f || p.overQuota(w.Owner.Team, w.each)
			})
			if w.req.dual && slices.ContainsFunc(part, func(p *pool) bool { return p.ready() > 0 }) {
				continue
			}
			wanted[i] = append(wanted[i], part)
			for _, p := range part {
				needed[p] += w.each
			}
		}
	}
	dues := map[*pool][]time.Time{}
	for p, n := range needed {
		dues[p] = a.x.coming(p, n)
	}
	a.mu.Unlock()
	for i := range all {
		all[i].Owner = all[i].Owner.clone()
		all[i].Pools = slices.Clone(all[i].Pools)
		all[i].Position = i + 1
		for _, part := range wanted[i] {
			at := estimate(dues, part, each[i])
			if at.IsZero() || at.After(all[i].Estimate) {
				all[i].Estimate = at
			}
			if at.IsZero() {
				break
			}
		}
	}
	return all
}

// estimate takes the first n addresses that are due in one of the pools: each serves one waiter. It
// returns when the last is due, zero when there are not so many.
func estimate(dues map[*pool][]time.Time, pools []*pool, n int) (last time.Time) {
	for range n {
		var first *pool
		for _, p := range pools {
			if len(dues[p]) > 0 && (first == nil || dues[p][0].Before(dues[first][0])) {
				first = p
			}
		}
		if first == nil {
			return time.Time{}
		}
		last, dues[first] = dues[first][0].Round(0).UTC(), dues[first][1:]
	}
	return last
}

// wants reports whether w, which is in the queue of p, would take the addresses that it waits for
// as soon as they are free.
func (w *waiter) wants(p *pool) bool {
	if p.overQuota(w.Owner.Team, w.each) {
		return false
	}
	return !w.req.dual || slices.ContainsFunc(w.queues, func(other *pool) bool {
		return other.family() != p.family() && other.ready() > 0 &&
			!other.overQuota(w.Owner.Team, w.each)
	})
}

// holds reports whether p is large enough for n leases, or was before the SetPools in progress, or
// will be after it.
func (p *pool) holds(n int) bool { return p.capacity >= uint64(n) }

// waitQueue are the requests of one team that wait for a pool, in the order of waiter.before; those
// of all teams when the pool has no quotas.
type waitQueue struct {
	team    string
	waiters []*waiter
}

// queueOf finds the place of the queue of w in p.queues, len(p.queues) without one.
func (p *pool) queueOf(w *waiter) int {
	if len(p.Quotas) == 0 {
		return 0
	}
	for i, q := range p.queues {
		if q.team == w.Owner.Team {
			return i
		}
	}
	return len(p.queues)
}

// queueUp puts w into the queue of p.
func (p *pool) queueUp(w *waiter) {
	i := p.queueOf(w)
	if i == len(p.queues) {
		p.queues = append(p.queues, &waitQueue{team: w.Owner.Team})
	}
	p.queues[i].waiters = insertWaiter(p.queues[i].waiters, w)
	w.queues = append(w.queues, p)
}

// leave takes w out of the queue of p.
func (p *pool) leave(w *waiter) {
	i := p.queueOf(w)
	q := p.queues[i]
	if q.waiters = removeWaiter(q.waiters, w); len(q.waiters) == 0 {
		p.queues = slices.Delete(p.queues, i, i+1)
	}
}

func insertWaiter(all []*waiter, w *waiter) []*waiter {
	i, _ := slices.BinarySearchFunc(all, w, compareWaiters)
	return slices.Insert(all, i, w)
}

func removeWaiter(all []*waiter, w *waiter) []*waiter {
	i, _ := slices.BinarySearchFunc(all, w, compareWaiters)
	return slices.Delete(all, i, i+1)
}

// firstWaiter is the request that is next in p, nil without one. It passes over teams whose quota
// is used up.
func (p *pool) firstWaiter() (first *waiter) {
	for _, q := range p.queues {
		if p.overQuota(q.waiters[0].Owner.Team, 1) {
			continue
		}
		i := slices.IndexFunc(q.waiters, func(w *waiter) bool { return w.wants(p) })
		if i >= 0 && (first == nil || q.waiters[i].before(first)) {
			first = q.waiters[i]
		}
	}
	return first
}

// awaited reports whether a request that waits for p goes before w, or before a newcomer when w is
// nil.
func (p *pool) awaited(w *waiter) bool {
	first := p.firstWaiter()
	return first != nil && first != w && (w == nil || first.before(w))
}

// wakeFirst wakes the request that is next in p if p has the addresses that it waits for.
func (p *pool) wakeFirst() {
	if first := p.firstWaiter(); first != nil && p.ready() >= uint64(first.each) {
		first.wake()
	}
}

// queueUp puts the request into the queue, unless w says that it is there, and sleeps until it may
// be its turn.
func (a *Allocator) queueUp(ctx context.Context, w *waiter, req *Request, n int,
	full error) (*waiter, error) {
	if w == nil {
		a.waited++
		w = &waiter{req: *req, seq: a.waited, woken: make(chan struct{}, 1)}
		w.each, w.DualStack = req.each(n), req.dual
		w.Owner, w.Count, w.Priority, w.Since = req.Owner.clone(), n, req.Priority, a.cfg.Now()
		a.waiters = insertWaiter(a.waiters, w)
		a.waitersOf[w.Owner.Task] = append(a.waitersOf[w.Owner.Task], w)
		if err := a.aim(w); err != nil {
			return w, err
		}
	}
	if len(w.Pools) > 0 && len(w.queues) == 0 {
		return w, full
	}
	timer := time.NewTimer(a.pause()) // due addresses are seen even without Run
	defer timer.Stop()
	var err error
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

// aim puts w into the queues of the pools that may serve it and are large enough.
func (a *Allocator) aim(w *waiter) error {
	w.Pools, w.queues = nil, nil
	var all []*pool
	never := false
	for _, f := range w.req.families() {
		from, err := a.poolsFor(&w.req, f)
		if err != nil {
			return err
		}
		var part []*pool
		for number := range from.among(a.x.flags.every) {
			part = append(part, a.x.pools[number])
		}
		never = never || !slices.ContainsFunc(part, func(p *pool) bool { return p.holds(w.each) })
		all = append(all, part...)
	}
	for _, p := range all {
		w.Pools = append(w.Pools, p.Name)
		if p.holds(w.each) && !never {
			p.queueUp(w)
		}
	}
	return nil
}

// leave takes w out of the queue; nil is fine. Those behind it may be next.
func (a *Allocator) leave(w *waiter) {
	if w == nil {
		return
	}
	a.waiters = removeWaiter(a.waiters, w)
	task := w.Owner.Task
	others := slices.DeleteFunc(a.waitersOf[task], func(other *waiter) bool { return other == w })
	if a.waitersOf[task] = others; len(others) == 0 {
		delete(a.waitersOf, task)
	}
	for _, p := range w.queues {
		p.leave(w)
		p.wakeFirst()
	}
}

// wake makes w look at the pools again.
func (w *waiter) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// poolsChanged wakes all waiters, each of which has to look at the new pools, and all that watch
// the pools.
func (a *Allocator) poolsChanged() {
	a.poolsRevision++
	a.listed = nil
	if a.poolsAhead != nil {
		close(a.poolsAhead)
		a.poolsAhead = nil
	}
	for _, p := range a.x.pools {
		p.queues = nil
	}
	for _, w := range a.waiters {
		_ = a.aim(w) // w gets the error itself
		w.wake()
	}
}

// ownerChanged wakes the waiters affected by e's gaining or losing a lease: the ones of the same
// task, and the ones that the pool's quotas now admit.
func (a *Allocator) ownerChanged(e *entry) {
	if len(a.waiters) == 0 {
		return
	}
	if e.state == Leased {
		for _, w := range a.waitersOf[e.last().Owner.Task] {
			w.wake()
		}
	}
	if len(e.pool.Quotas) > 0 {
		e.pool.wakeFirst()
	}
}
