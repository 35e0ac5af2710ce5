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

// Allocate leases an address to req.Owner. The same owner asking for the same again gets the lease
// that it has, also when the earlier answer was lost. The error is one of ErrInvalid, ErrNotFound
// (no such pool or address), ErrConflict, ErrExhausted, ErrQuota, ErrTaken, ErrFenced (a late
// duplicate), ErrUncertain, ErrContended, or the store's. When a request that waits is given up,
// the error is both ctx's and an *ExhaustedError.
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

// AllocateN leases n addresses to req.Owner, all or none, and returns them in order of addresses.
// Like Allocate it gives the same again to the same owner; a group of which a part has ended is
// ErrConflict. Each lease lives on its own afterwards.
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

// attempt is the state of one call of allocate between its rounds. It does not hold the request,
// which would have to be on the heap then.
type attempt struct {
	waiter    *waiter // once the request has joined the queue
	full      error   // why it has
	fetched   bool    // the records of other allocators, since the last wait
	conflicts int     // with other allocators
	named     bool    // the names of the request are good for a new lease
}

// outcome says how a round of allocate ends.
type outcome int

const (
	again    outcome = iota // look again: mu was free, or something has changed
	answered                // the entries are the answer
	picked                  // the entries are out of the free queue, to be leased
)

// allocate appends to got the entries of the owner's lease, or of its group of n. Each round looks
// at the leases that the owner has, picks addresses, and commits; a round that cannot go on waits,
// or fetches, and another follows.
func (a *Allocator) allocate(
	ctx context.Context, req *Request, n int, got []*entry,
) ([]*entry, error) {
	req.Addr = req.Addr.Unmap()
	named, err := req.validate(n)
	if err != nil {
		return nil, err
	}
	try := attempt{named: named}
	defer func() { a.leave(try.waiter) }()
	for try.conflicts < maxRounds {
		if err := try.cancelled(ctx, req); err != nil {
			return nil, err
		}
		owned, err := a.claimFor(ctx, req)
		if err != nil {
			return nil, err
		}
		now := a.cfg.Now()
		a.advance(now)
		entries, next, err := a.heldOrPicked(ctx, &try, req, n, now, got[:0])
		if next == picked && err == nil {
			next, err = a.commitPicked(ctx, &try, req, n, owned, entries, now)
		}
		if err != nil {
			return nil, err
		}
		if next == answered {
			return entries, nil
		}
	}
	return nil, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, ErrContended)
}

// cancelled returns the error of a call whose context is done, else nil.
func (t *attempt) cancelled(ctx context.Context, req *Request) error {
	switch {
	case ctx.Err() == nil:
		return nil
	case t.full != nil:
		return fmt.Errorf("wait of task %q: %w: %w", req.Owner.Task, context.Cause(ctx), t.full)
	}
	return fmt.Errorf("allocate for task %q: %w", req.Owner.Task, context.Cause(ctx))
}

// claimFor fetches the owner's record when allocators share the store.
func (a *Allocator) claimFor(ctx context.Context, req *Request) (claim, error) {
	if !a.shared {
		return claim{}, nil
	}
	return a.fetchClaim(ctx, req.Owner.Task)
}

// heldOrPicked appends to got the leases that the owner has already (answered), or addresses for
// new ones (picked).
func (a *Allocator) heldOrPicked(
	ctx context.Context, try *attempt, req *Request, n int, now time.Time, got []*entry,
) ([]*entry, outcome, error) {
	held, changed, err := a.holding(ctx, req, n, now, got)
	switch {
	case err != nil || changed:
		return nil, again, err
	case len(held) > 0:
		for _, e := range held {
			e.asked++
			a.x.mark(e)
		}
		return held, answered, nil
	}
	if !try.named {
		return nil, again, req.refuse(req.badNames())
	}
	entries, changed, err := a.pick(ctx, req, n, try.waiter, got)
	switch {
	case err != nil:
		return nil, again, a.makeRoom(ctx, try, req, n, err)
	case changed:
		return nil, again, nil
	}
	return entries, picked, nil
}

// makeRoom is called when nothing could be picked, because of why: it waits for an address, or
// fetches, and returns nil when another round may find one, else the error of the call.
func (a *Allocator) makeRoom(
	ctx context.Context, try *attempt, req *Request, n int, why error,
) error {
	if e := a.freeButRefetching(why); e != nil && !req.Wait { // a waiter is woken when e is free
		if _, err := a.awaitIdle(ctx, e); err != nil {
			return fmt.Errorf("allocate for task %q: %w", req.Owner.Task, err)
		}
		return nil
	}
	full := errors.Is(why, ErrExhausted)
	// unless others have released an address
	if !try.fetched && (full || errors.Is(why, ErrQuota)) {
		var err error
		try.fetched, err = a.fetchAllIfOlder(ctx, min(a.cfg.Interval, a.cfg.Refresh))
		if err != nil {
			return fmt.Errorf("allocate for task %q: %w", req.Owner.Task, err)
		}
		if try.fetched {
			return nil
		}
	}
	if !full || !req.Wait {
		return why
	}
	try.full = why
	var err error
	try.waiter, err = a.queueUp(ctx, try.waiter, req, n, why)
	try.fetched = false
	return err
}

// commitPicked leases the picked entries to the owner. Another round follows a conflict.
func (a *Allocator) commitPicked(
	ctx context.Context, try *attempt, req *Request, n int,
	owned claim, entries []*entry, now time.Time,
) (outcome, error) {
	for _, e := range entries {
		if a.mayHaveMissed(e, now) {
			a.putBack(entries, now)
			if err := a.fetchAll(ctx); err != nil {
				return again, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, err)
			}
			return again, nil
		}
	}
	err := a.commitLeases(ctx, req, n, owned, entries, now)
	switch {
	case err == nil:
		a.skip = max(a.skip-1, 0)
		return answered, nil
	case errors.Is(err, errInUse): // others may not be
		return again, nil
	case !errors.Is(err, ErrRevision):
		return again, err
	}
	a.skip = min(2*a.skip+1, maxSkip)
	if try.conflicts++; try.conflicts%fetchAllAfter == 0 { // another allocator has taken many
		if err := a.fetchAll(ctx); err != nil {
			return again, fmt.Errorf("allocate for task %q: %w", req.Owner.Task, err)
		}
	}
	return again, nil
}

// commitLeases commits a lease for each of the picked entries.
func (a *Allocator) commitLeases(ctx context.Context, req *Request, n int, owned claim,
	picked []*entry, now time.Time) error {
	c := a.newCommit()
	for _, e := range picked {
		if err := a.grant(&c.add(e).next, e, req, n, now); err != nil {
			a.recycle(c)
			a.putBack(picked, now)
			return err
		}
	}
	if req.dual {
		c.pair()
	}
	task := req.Owner.Task
	if a.shared {
		c.steps[0].also = a.ownerChange(owned, task, picked)
		for _, e := range picked {
			if was := e.owner(); e.chained && was != task {
				a.forgotten = append(a.forgotten, was)
			}
		}
	}
	a.x.claims[task] = c
	c.reserve(1)
	if a.cfg.Probe != nil {
		if err := a.probe(ctx, &req.Owner, picked); err != nil {
			a.unclaim(task)
			a.recycle(c)
			a.putBack(picked, a.cfg.Now())
			wakePools(picked)
			return a.probed(ctx, task, err)
		}
	}
	err := a.commit(ctx, now, c)
	if errors.Is(err, ErrUncertain) { // it may have been made
		c.onResolved = func() { a.unclaim(task) }
	} else {
		a.unclaim(task)
	}
	if err != nil {
		wakePools(picked)
	}
	if err != nil && !errors.Is(err, ErrRevision) {
		return fmt.Errorf("allocate %s for task %q: %w", picked[0].addr, task, err)
	}
	return err
}

// wakePools wakes the waiters: the quota that was reserved for the picked entries is free for
// others.
func wakePools(picked []*entry) {
	for _, e := range picked {
		e.pool.wakeFirst()
	}
}

// unclaim says that the outcome of the allocation for the task is known.
func (a *Allocator) unclaim(task string) {
	a.x.claims[task].reserve(-1)
	delete(a.x.claims, task)
}

func (a *Allocator) putBack(picked []*entry, now time.Time) {
	for _, e := range picked {
		a.relink(e, now)
	}
}

// grant makes l the next lease of e.
func (a *Allocator) grant(l *tenure, e *entry, req *Request, n int, now time.Time) error {
	generation := e.last().Generation + 1
	if generation == 1 {
		generation = a.firstGeneration(e)
	}
	*l = tenure{history: e.last().history, Lease: Lease{
		Generation: generation, Addr: e.addr, Pool: e.pool.Name, Owner: req.Owner.clone(),
		RequestID: req.RequestID,
		State:     Leased, TTL: cmp.Or(req.TTL, a.cfg.DefaultTTL), Acquired: now,
	}}
	if n > 1 {
		l.Count = n
	}
	if e.state == Cooling && !e.last().wasOf(&req.Owner) {
		l.Reason = "the cool-down of the address was cut short: the pool had nothing else left"
	}
	l.ID = newLeaseID(e.text(), l.Generation)
	return l.extend(e.pool, now)
}

// extend sets the expiry to the TTL from now on, within the limit of the pool.
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

// holding appends to held the leases that the owner has for this request; none when it has to be
// given some.
func (a *Allocator) holding(ctx context.Context, req *Request, n int, now time.Time,
	held []*entry) (_ []*entry, again bool, err error) {
	if c := a.x.claims[req.Owner.Task]; c != nil {
		if again, err = a.awaitIdle(ctx, c.steps[0].e); again || err != nil {
			return nil, again, err
		}
	}
	for e := range a.x.relatives(&req.Owner) {
		if e.state != Leased || !related(e.last().Owner, req.Owner) {
			continue
		}
		if again, err = a.awaitIdle(ctx, e); again || err != nil {
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
		return nil, false, &ConflictError{held[0].shown(),
			[]Difference{{"live leases of the group", strconv.Itoa(len(held)), strconv.Itoa(n)}}}
	case len(held) > 0 || req.RequestID == "":
		return held, false, nil
	}
	for e := range a.x.relatives(&req.Owner) {
		if e.state != Leased && e.last().RequestID == req.RequestID &&
			related(e.last().Owner, req.Owner) {
			return nil, false, fmt.Errorf("task %q: request %q was answered with lease %s, which "+
				"ended at %s: %w",
				req.Owner.Task, req.RequestID, e.last().ID, e.last().Ended.Format(time.RFC3339),
				ErrFenced)
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

// differences lists the differences between the lease of e and req. The TTL is not compared: Renew
// changes it.
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
	if dual := have.Peer != ""; dual != req.dual {
		diff = append(diff, Difference{"dual stack", strconv.FormatBool(dual),
			strconv.FormatBool(req.dual)})
	} else if held := max(have.Count, 1); held != n {
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
