package vip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// pick appends to picked n free addresses for req, out of their queue. They are all of one pool:
// the first that has them.
func (a *Allocator) pick(ctx context.Context, req *Request, n int, w *waiter,
	picked []*entry) (_ []*entry, again bool, err error) {
	switch {
	case req.Addr.IsValid():
		return a.pickNamed(ctx, req, picked)
	case req.dual:
		picked, err = a.pickDual(req, w, picked)
		return picked, false, err
	}
	var some [4]*pool // stays on the stack
	pools, err := a.poolsFor(req, some[:0])
	if err != nil {
		return nil, false, err
	}
	picked, err = a.pickFrom(req, pools, n, w, picked)
	return picked, false, err
}

// pickDual appends to picked a free address of each family.
func (a *Allocator) pickDual(req *Request, w *waiter, picked []*entry) ([]*entry, error) {
	pools, err := a.poolsFor(req, nil)
	if err != nil {
		return nil, err
	}
	for _, part := range req.families(pools) {
		with, err := a.pickFrom(req, part, 1, w, picked)
		if err != nil {
			a.putBack(picked, a.cfg.Now())
			return nil, err
		}
		picked = with
	}
	return picked, nil
}

// pickFrom appends to picked n free addresses of one of the pools.
func (a *Allocator) pickFrom(
	req *Request, pools []*pool, n int, w *waiter, picked []*entry,
) ([]*entry, error) {
	shut := func(p *pool) bool { return p.overQuota(req.Owner.Team, n) || p.awaited(w) }
	if e := a.lastOf(req, pools); e != nil && n == 1 && !e.pool.overQuota(req.Owner.Team, 1) &&
		(e.state != Free || !e.pool.awaited(w)) { // while it rests it is of no use to the waiters
		e.pool.dequeue(e)
		return append(picked, e), nil
	}
	over := 0 // pools whose quota is used up
	for _, p := range pools {
		if p.overQuota(req.Owner.Team, n) {
			over++
		}
		if shut(p) || p.ready() < uint64(n) {
			continue
		}
		return a.popFreeSpread(p, n, picked), nil
	}
	for _, p := range pools {
		if e := a.x.coolest(p); e != nil && n == 1 && !shut(p) {
			return append(picked, e), nil
		}
	}
	if over > 0 && over == len(pools) {
		p := pools[0]
		return nil, &QuotaError{p.Name, req.Owner.Team, p.quota(req.Owner.Team),
			p.teams[req.Owner.Team]}
	}
	full := a.exhausted(pools)
	full.Never = !slices.ContainsFunc(pools, func(p *pool) bool { return p.holds(n) })
	return nil, full
}

// popFreeSpread appends n free addresses of p to picked: those free for longest, or, after
// conflicts with other allocators that want the same ones, some that come a few places later.
func (a *Allocator) popFreeSpread(p *pool, n int, picked []*entry) []*entry {
	skip := 0
	if spare := p.ready() - uint64(n); a.skip > 0 && spare > 0 {
		skip = a.randN(int(min(uint64(a.skip), spare)) + 1)
	}
	var skipped [maxSkip]*entry
	for i := range skip {
		skipped[i] = a.x.popFree(p)
	}
	for range n {
		picked = append(picked, a.x.popFree(p))
	}
	for _, e := range slices.Backward(skipped[:skip]) {
		p.enqueueFirst(e)
	}
	return picked
}

// coolest is the address of p that has cooled longest, if more are cooling than Pool.MaxCooling
// allows; nil without one.
func (x *index) coolest(p *pool) *entry {
	if p.MaxCooling == 0 || p.counts[Cooling] <= p.share(p.MaxCooling) {
		return nil
	}
	return p.due[cools].firstThat(func(e *entry) bool { return !e.busy && !e.uncertain })
}

// lastOf is the address that the owner of req had last, if it may have it again.
func (a *Allocator) lastOf(req *Request, pools []*pool) *entry {
	var found *entry
	for e := a.x.of(req.Owner.Task); e != nil; e = e.next {
		if e.state != Leased && e.returnsTo(&req.Owner) && slices.Contains(pools, e.pool) &&
			(found == nil || e.last().Ended.After(found.last().Ended)) {
			found = e
		}
	}
	return found
}

// returnsTo reports whether e may be given to owner because it was the last to have it: at once,
// since the systems that still use the address, or remember it, are the owner's.
func (e *entry) returnsTo(owner *Owner) bool {
	switch {
	case e.busy || e.uncertain || e.rev == 0:
		return false
	case e.state == Free && !e.queued || e.state != Free && e.state != Cooling &&
		e.state != Draining:
		return false
	}
	if _, reserved := e.pool.Reserved[e.addr]; reserved {
		return false
	}
	return e.last().wasOf(owner)
}

// wasOf reports whether l is a tenure of owner, perhaps with other versions.
func (l *tenure) wasOf(owner *Owner) bool {
	return l.Owner.Task == owner.Task && sameClusters(l.Owner, *owner)
}

func sameClusters(a, b Owner) bool {
	if len(a.Overrides) != len(b.Overrides) {
		return false
	}
	for cluster := range a.Overrides {
		if _, ok := b.Overrides[cluster]; !ok {
			return false
		}
	}
	return true
}

func (a *Allocator) pickNamed(ctx context.Context, req *Request, picked []*entry) (_ []*entry,
	again bool, err error) {
	p := a.x.poolOf(req.Addr)
	switch {
	case p == nil || req.Pool != "" && p.Name != req.Pool:
		return nil, false, fmt.Errorf("address %s in pool %q: %w", req.Addr, req.Pool, ErrNotFound)
	case p.Disabled:
		return nil, false, &TakenError{Addr: req.Addr, Reason: fmt.Sprintf("pool %q is disabled",
			p.Name)}
	case p.overQuota(req.Owner.Team, 1):
		return nil, false, &QuotaError{p.Name, req.Owner.Team, p.quota(req.Owner.Team),
			p.teams[req.Owner.Team]}
	}
	if reason, ok := p.Reserved[req.Addr]; ok {
		return nil, false, &TakenError{Addr: req.Addr, State: Reserved, Reason: reason}
	}
	e := a.x.entries.get(req.Addr)
	if e == nil {
		return append(picked, a.x.entry(p, req.Addr)), false, nil
	}
	if again, err := a.awaitIdle(ctx, e); again || err != nil {
		return nil, again, err
	}
	if e.state == Free || e.returnsTo(&req.Owner) {
		p.dequeue(e)
		return append(picked, e), false, nil
	}
	taken := &TakenError{Addr: e.addr, State: e.state, Reason: e.last().Reason,
		Holder: e.last().Owner.clone(), Until: e.last().CoolUntil}
	if e.state == Leased {
		taken.Until = e.last().Expires
	}
	return nil, false, taken
}

// poolsFor appends to pools the pools that may serve req, best first.
func (a *Allocator) poolsFor(req *Request, pools []*pool) ([]*pool, error) {
	if p := a.x.byName[req.Pool]; p != nil {
		if !p.Disabled && p.has(req.Selector) {
			pools = append(pools, p)
		}
		return pools, nil
	}
	if req.Pool != "" {
		return nil, fmt.Errorf("pool %q: %w", req.Pool, ErrNotFound)
	}
	endless, bounded := cmp.Or(req.TTL, a.cfg.DefaultTTL) == Forever, ""
	for _, matching := range [...]bool{true, false} {
		if !matching && !req.Fallback {
			break
		}
		for _, p := range a.x.pools {
			switch {
			case p.gone || p.Disabled || p.has(req.Selector) != matching:
			case endless && p.MaxLease > 0:
				bounded = p.Name
			default:
				pools = append(pools, p)
			}
		}
	}
	if len(pools) == 0 && bounded != "" {
		return nil, fmt.Errorf("task %q: Request.TTL: without end, but pool %q and all others "+
			"have a MaxLease: %w",
			req.Owner.Task, bounded, ErrInvalid)
	}
	return pools, nil
}

// has says whether the pool has all of the labels.
func (p *Pool) has(labels map[string]string) bool {
	for k, v := range labels {
		if have, ok := p.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// quota is how many leases team may have in p; negative for any number.
func (p *pool) quota(team string) int {
	if n, ok := p.Quotas[team]; ok {
		return n
	}
	if n, ok := p.Quotas[AnyTeam]; ok {
		return n
	}
	return -1
}

func (p *pool) overQuota(team string, n int) bool {
	limit := p.quota(team)
	return limit >= 0 && p.teams[team]+n > limit
}

// reserve counts n leases of team, or gives them back when n is negative, if p counts them.
func (p *pool) reserve(team string, n int) {
	if !p.countsTeams {
		return
	}
	if p.teams[team] += n; p.teams[team] == 0 {
		delete(p.teams, team)
	}
}

// reserve counts the leases that c gives for the quotas of the pools that they are in, or gives
// them back when n is -1.
func (c *commit) reserve(n int) {
	for i := range c.steps {
		c.steps[i].e.pool.reserve(c.steps[i].next.Owner.Team, n)
	}
}

// reserveIn counts the leases that c gives in p, which counts none of them yet.
func (c *commit) reserveIn(p *pool) {
	for i := range c.steps {
		if c.steps[i].e.pool == p {
			p.reserve(c.steps[i].next.Owner.Team, 1)
		}
	}
}

// freeButRefetching returns a free address of the pools that err says are exhausted, which is being
// read again; nil when there is none.
func (a *Allocator) freeButRefetching(err error) *entry {
	if err == nil || len(a.refetching) == 0 {
		return nil
	}
	var full *ExhaustedError
	if !errors.As(err, &full) {
		return nil
	}
	for _, some := range a.refetching {
		for _, e := range some {
			if e.state == Free && slices.Contains(full.Pools, e.pool.Name) {
				return e
			}
		}
	}
	return nil
}

func (a *Allocator) exhausted(pools []*pool) *ExhaustedError {
	err := &ExhaustedError{}
	for _, p := range pools {
		err.Pools = append(err.Pools, p.Name)
		err.Free += p.free()
		err.Cooling += p.counts[Cooling]
		err.Quarantined += p.counts[Quarantined]
	}
	for _, p := range pools {
		if due := a.x.coming(p, 1); len(due) > 0 &&
			(err.Soonest.IsZero() || due[0].Before(err.Soonest)) {
			err.Soonest = due[0]
		}
	}
	return err
}
