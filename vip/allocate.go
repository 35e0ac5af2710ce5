package vip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Allocate leases an address to req.Owner. The same owner asking for the same again gets the lease that it has, whatever
// became of the earlier answer. The error is one of ErrInvalid, ErrNotFound (no such pool or address), ErrConflict,
// ErrExhausted, ErrTaken, ErrFenced (a late duplicate), ErrUncertain, ErrContended, or the store's.
func (a *Allocator) Allocate(ctx context.Context, req Request) (Lease, error) {
	if err := req.validate(); err != nil {
		return Lease{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for range maxRounds {
		if err := ctx.Err(); err != nil {
			return Lease{}, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, err)
		}
		now := a.cfg.Now()
		a.x.advance(now)
		held, again, err := a.holding(ctx, &req, now)
		if again && err == nil {
			continue
		}
		if err != nil {
			return Lease{}, err
		}
		if held != nil {
			return held.shown(), nil
		}
		e, again, err := a.pick(ctx, &req)
		if again && err == nil {
			continue
		}
		if err != nil {
			return Lease{}, err
		}
		next, err := a.tenure(e, &req, now)
		if err != nil {
			a.x.relink(e, now)
			return Lease{}, err
		}
		a.claims[req.Owner.Task] = e
		err = a.commit(ctx, step{e, next})
		if !errors.Is(err, ErrUncertain) {
			delete(a.claims, req.Owner.Task)
		}
		if errors.Is(err, ErrRevision) {
			continue
		}
		if err != nil {
			return Lease{}, fmt.Errorf("allocate %s for task %q: %w", e.addr, req.Owner.Task, err)
		}
		return e.shown(), nil
	}
	return Lease{}, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, ErrContended)
}

func (r *Request) validate() error {
	switch {
	case r.Owner.Task == "":
		return fmt.Errorf("%w: the owner has no task", ErrInvalid)
	case r.TTL < 0 && r.TTL != Forever:
		return fmt.Errorf("task %q: %w: ttl %s: want more than 0, or Forever", r.Owner.Task, ErrInvalid, r.TTL)
	}
	for cluster, version := range r.Owner.Overrides {
		if cluster == "" || version == "" {
			return fmt.Errorf("task %q: %w: override %q: %q: cluster and version are required", r.Owner.Task, ErrInvalid, cluster, version)
		}
	}
	return nil
}

// holding finds the lease that the owner has for this request.
func (a *Allocator) holding(ctx context.Context, req *Request, now time.Time) (held *entry, again bool, err error) {
	if e := a.claims[req.Owner.Task]; e != nil {
		if again, err = a.settle(ctx, e); again || err != nil {
			return nil, again, err
		}
		delete(a.claims, req.Owner.Task)
	}
	for e := a.x.live[req.Owner.Task]; e != nil; e = e.next {
		if !related(e.lease.Owner, req.Owner) {
			continue
		}
		if again, err = a.settle(ctx, e); again || err != nil {
			return nil, again, err
		}
		if a.x.expired(e, now) {
			return nil, true, a.end(ctx, e, now, "expired")
		}
		if diff := a.differences(e, req); len(diff) > 0 {
			return nil, false, &ConflictError{e.shown(), diff}
		}
		return e, false, nil
	}
	if req.RequestID == "" {
		return nil, false, nil
	}
	for e := a.x.ended[req.Owner.Task]; e != nil; e = e.next {
		if e.lease.RequestID == req.RequestID {
			return nil, false, fmt.Errorf("task %q: request %q was answered with lease %s, which ended at %s: %w",
				req.Owner.Task, req.RequestID, e.lease.ID, e.lease.Ended.Format(time.RFC3339), ErrFenced)
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

func (a *Allocator) differences(e *entry, req *Request) []Difference {
	var diff []Difference
	have := e.lease
	if req.Pool != "" && req.Pool != e.pool.Name {
		diff = append(diff, Difference{"pool", e.pool.Name, req.Pool})
	}
	if req.Addr.IsValid() && req.Addr != have.Addr {
		diff = append(diff, Difference{"addr", have.Addr.String(), req.Addr.String()})
	}
	if req.Owner.Team != have.Owner.Team {
		diff = append(diff, Difference{"team", have.Owner.Team, req.Owner.Team})
	}
	if maps.Equal(have.Owner.Overrides, req.Owner.Overrides) {
		return diff
	}
	clusters := maps.Clone(have.Owner.Overrides)
	maps.Copy(clusters, req.Owner.Overrides)
	for _, c := range slices.Sorted(maps.Keys(clusters)) {
		if x, y := have.Owner.Overrides[c], req.Owner.Overrides[c]; x != y {
			diff = append(diff, Difference{"overrides." + c, x, y})
		}
	}
	return diff
}

// pick takes a free address for req out of its queue.
func (a *Allocator) pick(ctx context.Context, req *Request) (e *entry, again bool, err error) {
	if req.Addr.IsValid() {
		return a.pickNamed(ctx, req)
	}
	pools, err := a.poolsFor(req)
	if err != nil {
		return nil, false, err
	}
	for e := a.x.ended[req.Owner.Task]; e != nil; e = e.next { // sticky
		if e.queued && slices.Contains(pools, e.pool) && sameClusters(e.lease.Owner, req.Owner) {
			e.pool.dequeue(e)
			return e, false, nil
		}
	}
	for _, p := range pools {
		if e := a.x.takeFree(p); e != nil {
			return e, false, nil
		}
	}
	return nil, false, a.exhausted(pools)
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

func (a *Allocator) pickNamed(ctx context.Context, req *Request) (e *entry, again bool, err error) {
	p := a.x.poolOf(req.Addr)
	switch {
	case p == nil || req.Pool != "" && p.Name != req.Pool:
		return nil, false, fmt.Errorf("address %s in pool %q: %w", req.Addr, req.Pool, ErrNotFound)
	case p.Disabled:
		return nil, false, &TakenError{Addr: req.Addr, Reason: fmt.Sprintf("pool %q is disabled", p.Name)}
	}
	if reason, ok := p.Reserved[req.Addr]; ok {
		return nil, false, &TakenError{Addr: req.Addr, State: Reserved, Reason: reason}
	}
	e = a.x.entries[req.Addr]
	if e == nil {
		return a.x.entry(p, req.Addr), false, nil
	}
	if again, err := a.settle(ctx, e); again || err != nil {
		return nil, again, err
	}
	if e.state == Free {
		p.dequeue(e)
		return e, false, nil
	}
	taken := &TakenError{Addr: e.addr, State: e.state, Reason: e.lease.Reason, Holder: e.lease.Owner.clone(), Until: e.lease.CoolUntil}
	if e.state == Leased {
		taken.Until = e.lease.Expires
	}
	return nil, false, taken
}

// poolsFor lists the pools that may serve req, best first.
func (a *Allocator) poolsFor(req *Request) ([]*pool, error) {
	if req.Pool == "" {
		return slices.DeleteFunc(slices.Clone(a.x.pools), func(p *pool) bool { return p.gone || p.Disabled }), nil
	}
	p := a.x.byName[req.Pool]
	switch {
	case p == nil || p.gone:
		return nil, fmt.Errorf("pool %q: %w", req.Pool, ErrNotFound)
	case p.Disabled:
		return nil, nil
	}
	return []*pool{p}, nil
}

func (a *Allocator) exhausted(pools []*pool) error {
	err := &ExhaustedError{}
	for _, p := range pools {
		err.Pools = append(err.Pools, p.Name)
		err.Free += p.free()
		err.Cooling += p.counts[Cooling]
		err.Quarantined += p.counts[Quarantined]
	}
	for _, e := range a.x.due {
		if !slices.Contains(pools, e.pool) {
			continue
		}
		at := e.deadline
		if e.state == Leased {
			at = at.Add(e.pool.coolDown())
		}
		if err.Soonest.IsZero() || at.Before(err.Soonest) {
			err.Soonest = at
		}
	}
	return err
}

// tenure is the next lease of e.
func (a *Allocator) tenure(e *entry, req *Request, now time.Time) (*Lease, error) {
	l := &Lease{Generation: 1, Addr: e.addr, Pool: e.pool.Name, Owner: req.Owner.clone(), RequestID: req.RequestID, State: Leased, TTL: req.TTL, Acquired: now}
	if e.lease != nil {
		l.Generation += e.lease.Generation
	}
	l.ID = leaseID(e.addr, l.Generation)
	if l.TTL == 0 {
		l.TTL = a.cfg.DefaultTTL
	}
	return l, extend(l, e.pool, now)
}

// extend sets the expiry of l to its TTL from now on, within what the pool allows.
func extend(l *Lease, p *pool, now time.Time) error {
	if p.MaxLease > 0 && l.TTL == Forever {
		return fmt.Errorf("task %q: pool %q: %w: a lease without end, the longest is %s", l.Owner.Task, p.Name, ErrInvalid, p.MaxLease)
	}
	if l.TTL == Forever {
		l.Expires = time.Time{}
		return nil
	}
	l.Expires = now.Add(l.TTL)
	if last := l.Acquired.Add(p.MaxLease); p.MaxLease > 0 && last.Before(l.Expires) {
		l.Expires = last
	}
	return nil
}
