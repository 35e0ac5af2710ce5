package vip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
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
	from, err := a.poolsFor(req, anyFamily)
	if err != nil {
		return nil, false, err
	}
	picked, err = a.pickFrom(req, from, n, w, picked)
	return picked, false, err
}

// pickDual appends to picked a free address of each family.
func (a *Allocator) pickDual(req *Request, w *waiter, picked []*entry) ([]*entry, error) {
	for _, f := range req.families() {
		from, err := a.poolsFor(req, f)
		if err == nil {
			with := picked
			if with, err = a.pickFrom(req, from, 1, w, picked); err == nil {
				picked = with
				continue
			}
		}
		a.putBack(picked, a.cfg.Now())
		return nil, err
	}
	return picked, nil
}

// pickFrom appends to picked n free addresses of one of the pools. It looks at the ones that have
// any.
func (a *Allocator) pickFrom(
	req *Request, from *choice, n int, w *waiter, picked []*entry,
) ([]*entry, error) {
	x := a.x
	shut := func(p *pool) bool { return p.overQuota(req.Owner.Team, n) || p.awaited(w) }
	if e := a.lastOf(req, from); e != nil && n == 1 && !e.pool.overQuota(req.Owner.Team, 1) &&
		(e.state != Free || !e.pool.awaited(w)) { // while it rests it is of no use to the waiters
		e.pool.dequeue(e)
		return append(picked, e), nil
	}
	for number := range from.among(x.flags.ready) {
		p := x.pools[number]
		if p.ready() == 0 {
			x.flags.ready.remove(p.number)
		}
		if p.ready() >= uint64(n) && !shut(p) {
			return a.popFreeSpread(p, n, picked), nil
		}
	}
	for number := range from.among(x.flags.warm) {
		p := x.pools[number]
		if !p.tooManyCool() {
			x.flags.warm.remove(p.number)
		}
		if e := x.coolest(p); e != nil && n == 1 && !shut(p) {
			return append(picked, e), nil
		}
	}
	if p := a.allOverQuota(from, req.Owner.Team, n); p != nil {
		return nil, &QuotaError{p.Name, req.Owner.Team, p.quota(req.Owner.Team),
			p.teams[req.Owner.Team]}
	}
	return nil, a.exhausted(from, n)
}

// allOverQuota is the first pool when the team has used up the quotas of all, else nil.
func (a *Allocator) allOverQuota(from *choice, team string, n int) (first *pool) {
	for number := range from.among(a.x.flags.every) {
		p := a.x.pools[number]
		if !p.overQuota(team, n) {
			return nil
		}
		first = cmp.Or(first, p)
	}
	return first
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

// tooManyCool reports whether more addresses are cooling than Pool.MaxCooling allows.
func (p *pool) tooManyCool() bool {
	return p.MaxCooling != 0 && p.counts[Cooling] > p.share(p.MaxCooling)
}

// coolest is the address of p that has cooled longest, if too many are cooling; nil without one.
func (x *index) coolest(p *pool) *entry {
	if !p.tooManyCool() {
		return nil
	}
	return p.due[cools].firstThat(func(e *entry) bool { return !e.busy && !e.uncertain })
}

// lastOf is the address that the owner of req had last, if it may have it again.
func (a *Allocator) lastOf(req *Request, from *choice) *entry {
	var found *entry
	for e := range a.x.relatives(&req.Owner) {
		if e.state != Leased && e.returnsTo(&req.Owner) && from.has(e.pool) &&
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
	taken := &TakenError{Addr: e.addr, State: e.state, Until: e.last().CoolUntil}
	switch e.state {
	case Leased:
		taken.Until = e.last().Expires
	case Quarantined:
		taken.Reason = e.last().Reason
	}
	return nil, false, taken
}

// poolsFor is the choice of pools that may serve req with an address of the family.
func (a *Allocator) poolsFor(req *Request, f family) (*choice, error) {
	if req.Pool != "" {
		switch p := a.x.byName[req.Pool]; {
		case p == nil:
			return nil, fmt.Errorf("pool %q: %w", req.Pool, ErrNotFound)
		case p.Disabled || !p.has(req.Selector):
			return &noPools, nil
		default:
			return &p.alone, nil
		}
	}
	from := a.x.choose(req.Selector, choiceKey{fallback: req.Fallback, family: f,
		endless: cmp.Or(req.TTL, a.cfg.DefaultTTL) == Forever})
	if from.empty() && from.bounded != "" {
		return nil, fmt.Errorf("task %q: Request.TTL: without end, but pool %q and all others "+
			"have a MaxLease: %w",
			req.Owner.Task, from.bounded, ErrInvalid)
	}
	return from, nil
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

// tally is how full a pool is, as far as an ExhaustedError says it. The tallies of all pools are
// beside each other: a refusal that names thousands of pools then takes microseconds.
type tally struct {
	pool                       string
	free, cooling, quarantined uint64
	due                        time.Time     // when the next address becomes free; zero for none
	always                     bool          // one may become free at any time, after its cool-down:
	coolDown                   time.Duration // this long
}

func (x *index) tally(p *pool) tally {
	t := tally{pool: p.Name, free: p.free(), cooling: p.counts[Cooling],
		quarantined: p.counts[Quarantined], coolDown: p.coolDown(),
		always: p.overdue+p.counts[Draining] > 0}
	for class, d := range &p.due {
		for _, e := range [...]*entry{d.first, d.heap.top()} {
			if e == nil {
				continue
			}
			if at := e.deadline.Add(x.untilFree(p, dueClass(class))); t.due.IsZero() ||
				at.Before(t.due) {
				t.due = at
			}
		}
	}
	return t
}

// exhausted says how full the pools are for a request for n addresses of one of them.
func (a *Allocator) exhausted(from *choice, n int) *ExhaustedError {
	x := a.x
	x.tallies = slices.Grow(x.tallies, len(x.pools))[:len(x.pools)]
	for p := range x.flags.untallied.in(x.pools) {
		x.tallies[p.number] = x.tally(p)
		x.flags.untallied.remove(p.number)
	}
	err := &ExhaustedError{Never: true, Pools: slices.Grow([]string(nil), from.len())}
	for number := range from.among(x.flags.every) {
		t := &x.tallies[number]
		err.Pools = append(err.Pools, t.pool)
		err.Free += t.free
		err.Cooling += t.cooling
		err.Quarantined += t.quarantined
		err.Never = err.Never && !x.pools[number].holds(n)
		soonest := t.due
		if later := x.latest.Add(t.coolDown); t.always && (soonest.IsZero() || later.Before(soonest)) {
			soonest = later
		}
		if !soonest.IsZero() && (err.Soonest.IsZero() || soonest.Before(err.Soonest)) {
			err.Soonest = soonest
		}
	}
	return err
}
