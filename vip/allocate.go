package vip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Allocate leases an address to req.Owner. The same owner asking for the same again gets the lease that it has, whatever
// became of the earlier answer. The error is one of ErrInvalid, ErrNotFound (no such pool or address), ErrConflict,
// ErrExhausted, ErrQuota, ErrTaken, ErrFenced (a late duplicate), ErrUncertain, ErrContended, or the store's. When a
// request that waits is given up, the error is both ctx's and an *ExhaustedError.
func (a *Allocator) Allocate(ctx context.Context, req Request) (_ Lease, err error) {
	if a.cfg.Observe != nil {
		defer a.observe("allocate", a.cfg.Now(), &err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var one [1]*entry
	got, err := a.allocate(ctx, &req, 1, one[:0])
	if err != nil {
		return Lease{}, err
	}
	return got[0].shown(), nil
}

// MaxTogether is how many addresses AllocateN gives at once: as many as a Consul transaction holds.
const MaxTogether = 32

// AllocateN leases n addresses to req.Owner, all or none, and returns them in order of addresses. Like Allocate it gives the
// same again to the same owner; a group of which a part has ended is ErrConflict. Each lease lives on its own afterwards.
func (a *Allocator) AllocateN(ctx context.Context, req Request, n int) (_ []Lease, err error) {
	if a.cfg.Observe != nil {
		defer a.observe("allocate", a.cfg.Now(), &err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	got, err := a.allocate(ctx, &req, n, nil)
	if err != nil {
		return nil, err
	}
	leases := make([]Lease, n)
	for i, e := range got {
		leases[i] = e.shown()
	}
	slices.SortFunc(leases, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return leases, nil
}

// allocate appends to got the entries of the owner's lease, or of its group of n.
func (a *Allocator) allocate(ctx context.Context, req *Request, n int, got []*entry) ([]*entry, error) {
	if err := req.validate(n); err != nil {
		return nil, err
	}
	var w *waiter   // once the request has joined the queue
	var full error  // why it has
	looked := false // at what other allocators did, since the last wait
	defer func() { a.leave(w) }()
	for conflicts := 0; conflicts < maxRounds; {
		if ctx.Err() != nil {
			if full != nil {
				return nil, fmt.Errorf("wait of task %q: %w: %w", req.Owner.Task, context.Cause(ctx), full)
			}
			return nil, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, context.Cause(ctx))
		}
		var owned claim
		if a.cfg.Shared {
			var err error
			if owned, err = a.claimOf(ctx, req.Owner.Task); err != nil {
				return nil, err
			}
		}
		now := a.cfg.Now()
		a.advance(now)
		held, again, err := a.holding(ctx, req, n, now, got[:0])
		if err != nil {
			return nil, err
		}
		if again {
			continue
		}
		if len(held) > 0 {
			for _, e := range held {
				e.asked++
			}
			return held, nil
		}
		picked, again, err := a.pick(ctx, req, n, w, got[:0])
		if again && err == nil {
			continue
		}
		if e := a.freeButRefetching(err); e != nil && !req.Wait { // who waits is woken when it is free
			if _, err := a.settle(ctx, e); err != nil {
				return nil, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, err)
			}
			continue
		}
		if !looked && (errors.Is(err, ErrExhausted) || errors.Is(err, ErrQuota)) { // unless others have released something
			var lookErr error
			if looked, lookErr = a.refresh(ctx, min(a.cfg.Interval, a.cfg.Refresh)); lookErr != nil {
				return nil, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, lookErr)
			} else if looked {
				continue
			}
		}
		if req.Wait && errors.Is(err, ErrExhausted) {
			full = err
			if w, err = a.queueUp(ctx, w, req, n, err); err != nil {
				return nil, err
			}
			looked = false
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := a.take(ctx, req, n, owned, picked, now); errors.Is(err, ErrRevision) {
			a.skip = min(2*a.skip+1, maxSkip)
			if conflicts++; conflicts%catchUpAfter == 0 {
				if err := a.catchUp(ctx); err != nil {
					return nil, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, err)
				}
			}
			continue
		} else if err != nil {
			return nil, err
		}
		a.skip = max(a.skip-1, 0)
		return picked, nil
	}
	return nil, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, ErrContended)
}

// take commits a lease for each of the picked entries.
func (a *Allocator) take(ctx context.Context, req *Request, n int, owned claim, picked []*entry, now time.Time) error {
	c := a.plan()
	for _, e := range picked {
		if err := a.grant(&c.add(e).next, e, req, n, now); err != nil {
			a.done(c)
			a.putBack(picked, now)
			return err
		}
	}
	t := a.x.task(req.Owner.Task)
	if a.cfg.Shared {
		c.steps[0].also = a.with(owned, t.name, picked)
		for _, e := range picked {
			if e.task != nil && e.task != t {
				a.forgotten = append(a.forgotten, e.task.name)
			}
		}
	}
	t.claim = c
	c.reserve(1)
	err := a.commit(ctx, now, c)
	if errors.Is(err, ErrUncertain) { // it may have been made
		c.resolved = func() { a.unclaim(t) }
	} else {
		a.unclaim(t)
	}
	if err != nil {
		a.wakeWaiters() // the quota allows others what it reserved
	}
	if err != nil && !errors.Is(err, ErrRevision) {
		return fmt.Errorf("allocate %s for task %q: %w", picked[0].addr, t.name, err)
	}
	return err
}

// unclaim says that the outcome of the allocation for t is known.
func (a *Allocator) unclaim(t *task) {
	t.claim.reserve(-1)
	t.claim = nil
	a.x.drop(t)
}

func (a *Allocator) putBack(picked []*entry, now time.Time) {
	for _, e := range picked {
		a.relink(e, now)
	}
}

// grant makes l the next lease of e.
func (a *Allocator) grant(l *tenure, e *entry, req *Request, n int, now time.Time) error {
	*l = tenure{history: e.last().history, Lease: Lease{
		Generation: e.last().Generation + 1, Addr: e.addr, Pool: e.pool.Name, Owner: req.Owner.clone(), RequestID: req.RequestID,
		State: Leased, TTL: cmp.Or(req.TTL, a.cfg.DefaultTTL), Acquired: now,
	}}
	if n > 1 {
		l.Count = n
	}
	if e.state == Cooling {
		l.Reason = "the cool-down of the address was cut short: the pool had nothing else left"
	}
	l.ID = newLeaseID(e.text(), l.Generation)
	return l.extend(e.pool, now)
}

// extend sets the expiry to the TTL from now on, within what the pool allows.
func (l *tenure) extend(p *pool, now time.Time) error {
	switch {
	case l.TTL != Forever:
		l.Expires = now.Add(l.TTL)
	case p.MaxLease > 0:
		return fmt.Errorf("task %q: pool %q: a lease without end, Pool.MaxLease is %s: %w",
			l.Owner.Task, p.Name, p.MaxLease, ErrInvalid)
	default:
		l.Expires = time.Time{}
	}
	if last := l.Acquired.Add(p.MaxLease); p.MaxLease > 0 && last.Before(l.Expires) {
		l.Expires = last
	}
	return nil
}

// holding appends to held the leases that the owner has for this request; none when it has to be given some.
func (a *Allocator) holding(ctx context.Context, req *Request, n int, now time.Time, held []*entry) (_ []*entry, again bool, err error) {
	t := a.x.tasks[req.Owner.Task]
	if t == nil {
		return held, false, nil
	}
	if t.claim != nil {
		if again, err = a.settle(ctx, t.claim.steps[0].e); again || err != nil {
			return nil, again, err
		}
	}
	for e := t.live; e != nil; e = e.next {
		if !related(e.last().Owner, req.Owner) {
			continue
		}
		if again, err = a.settle(ctx, e); again || err != nil {
			return nil, again, err
		}
		if a.x.expired(e, now) {
			return nil, true, a.end(ctx, e, now, "expired")
		}
		if diff := differences(e, req, n); len(diff) > 0 {
			return nil, false, &ConflictError{e.shown(), diff}
		}
		held = append(held, e)
	}
	switch {
	case len(held) > 0 && len(held) != n:
		return nil, false, &ConflictError{held[0].shown(), []Difference{{"live leases of the group", strconv.Itoa(len(held)), strconv.Itoa(n)}}}
	case len(held) > 0 || req.RequestID == "":
		return held, false, nil
	}
	for e := t.ended; e != nil; e = e.next {
		if e.last().RequestID == req.RequestID && related(e.last().Owner, req.Owner) {
			return nil, false, fmt.Errorf("task %q: request %q was answered with lease %s, which ended at %s: %w",
				req.Owner.Task, req.RequestID, e.last().ID, e.last().Ended.Format(time.RFC3339), ErrFenced)
		}
	}
	return nil, false, nil
}

// related says whether two owners of one task are the same one, or would override a cluster twice.
func related(a, b Owner) bool {
	if len(a.Overrides) == 0 || len(b.Overrides) == 0 {
		return len(a.Overrides) == len(b.Overrides)
	}
	for cluster := range a.Overrides {
		if _, both := b.Overrides[cluster]; both {
			return true
		}
	}
	return false
}

// differences lists how the lease of e is not what req asks for. The TTL is not compared: Renew changes it.
func differences(e *entry, req *Request, n int) []Difference {
	var diff []Difference
	have := e.last()
	if req.Pool != "" && req.Pool != e.pool.Name {
		diff = append(diff, Difference{"pool", e.pool.Name, req.Pool})
	}
	if req.Addr.IsValid() && req.Addr != have.Addr {
		diff = append(diff, Difference{"addr", have.Addr.String(), req.Addr.String()})
	}
	if req.Owner.Team != have.Owner.Team {
		diff = append(diff, Difference{"team", have.Owner.Team, req.Owner.Team})
	}
	if held := max(have.Count, 1); held != n {
		diff = append(diff, Difference{"count", strconv.Itoa(held), strconv.Itoa(n)})
	}
	if maps.Equal(have.Owner.Overrides, req.Owner.Overrides) {
		return diff
	}
	clusters := map[string]string{}
	maps.Copy(clusters, have.Owner.Overrides)
	maps.Copy(clusters, req.Owner.Overrides)
	for _, c := range slices.Sorted(maps.Keys(clusters)) {
		if x, y := have.Owner.Overrides[c], req.Owner.Overrides[c]; x != y {
			diff = append(diff, Difference{"overrides." + c, x, y})
		}
	}
	return diff
}
