package vip

import (
	"slices"
	"time"
)

// isDue reports whether advance has something to do, for which uptime has to be read before.
func (x *index) isDue(now time.Time) bool {
	return !x.soonest.IsZero() && !x.soonest.After(now) || x.putBack(now)
}

// putBack reports whether the clock was put back since the last advance.
func (x *index) putBack(now time.Time) bool { return now.Before(x.latest.Add(-time.Second)) }

// advance makes the addresses free that have cooled down by now, and moves leases that are over to
// overdue.
func (x *index) advance(now time.Time) effects {
	if !x.isDue(now) {
		x.latest = now
		return effects{} // the usual case
	}
	if x.putBack(now) {
		x.dueAgain(now)
	}
	x.latest = now
	for len(x.dues) > 0 && !x.soonest.After(now) {
		p := x.dues[0]
		e := p.due.next()
		for ; e != nil && !e.deadline.After(now); e = p.due.next() {
			x.pass(e, now)
		}
		x.dueNext(p, e)
	}
	return x.flush()
}

// dueAgain computes all deadlines again, after the clock has jumped: link shortens the times that
// would be too long now.
func (x *index) dueAgain(now time.Time) {
	for _, p := range x.pools {
		for _, e := range p.due.all() {
			x.settleEntry(e, p, now)
			x.place(e, e.last(), nil, e.rev, now)
		}
	}
}

// pass moves e to its next state at its deadline, which is not after now.
func (x *index) pass(e *entry, now time.Time) {
	e.pool.changed()
	if left := e.rests - x.up; left > restTolerance && e.state != Leased {
		e.last().CoolUntil = now.Add(left) // the clock was put forward
		e.setRecord(nil)
		e.deadline, e.freed = e.last().CoolUntil, e.last().freed()
		e.pool.due.set(e, e.dueClass)
		x.mark(e)
		return
	}
	if e.state == Cooling && x.rested(e) {
		x.note(e, prior{state: Cooling}, nil, now)
		return
	}
	was := e.prior()
	switch end := x.over(e); {
	case e.state != Leased:
		x.place(e, e.last(), nil, e.rev, now)
		x.note(e, was, nil, now)
	case e.deadline.Before(end):
		e.deadline, e.announcedExpiry = end, e.last().Expires.UnixNano()
		e.pool.due.set(e, over)
		x.note(e, was, nil, now)
	default:
		e.deadline = time.Time{}
		e.pool.due.set(e, over)
		e.overdue = true
		e.pool.overdue++
		x.overdue = append(x.overdue, e)
	}
}

// rested makes e free, which has cooled down, and reports whether it has: the usual case, in which
// place would put everything but the state back where it was. It has no need of the last tenure.
func (x *index) rested(e *entry) bool {
	_, reserved := e.pool.Reserved[e.addr]
	if reserved || e.busy || e.uncertain || e.pool.gone {
		return false
	}
	e.pool.counts[Cooling]--
	e.state, e.deadline = Free, time.Time{}
	e.pool.due.set(e, cools)
	x.mark(e)
	x.release(e)
	return true
}

// release puts e, which is free, into the free queue.
func (x *index) release(e *entry) {
	e.pool.enqueue(e)
	e.pool.idle(e)
	if !slices.Contains(x.out.freed, e.pool) {
		x.out.freed = append(x.out.freed, e.pool)
	}
}

// over is when a lease that expires is over, grace included.
func (x *index) over(e *entry) time.Time { return e.last().Expires.Add(x.grace) }

func (x *index) expired(e *entry, now time.Time) bool {
	return e.state == Leased && !e.last().Expires.IsZero() && !x.over(e).After(now)
}

// untilFree is how long after a deadline of that class an address of p is free.
func (x *index) untilFree(p *pool, class dueClass) time.Duration {
	switch class {
	case expires:
		return x.grace + p.coolDown()
	case over:
		return p.coolDown()
	}
	return 0
}

// coming returns when the first n addresses of p will be free if they stay untouched, at the
// soonest, in order; fewer when not so many are due.
func (x *index) coming(p *pool, n int) (all []time.Time) {
	later := func(times []time.Time, by time.Duration) {
		for _, at := range times {
			all = append(all, at.Add(by))
		}
	}
	for class := range dueClasses {
		later(p.due[class].soonest(n), x.untilFree(p, class))
	}
	// a lease that is over ends in the next sweep; whether an address has drained is asked time and
	// again
	for range min(uint64(n), p.overdue+p.counts[Draining]) {
		all = append(all, x.latest.Add(p.coolDown()))
	}
	slices.SortFunc(all, time.Time.Compare)
	return all[:min(n, len(all))]
}
