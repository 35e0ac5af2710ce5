package vip

import (
	"maps"
	"slices"
	"time"
)

// set makes l, at revision rev, the tenure of e: the zero tenure at 0 when it never had one. record
// is l as it is stored, nil when that is not at hand.
func (x *index) set(e *entry, l *tenure, record []byte, rev uint64, now time.Time) effects {
	x.place(e, l, record, rev, now)
	return x.flush()
}

// place is a part of a transition: set without its end.
func (x *index) place(e *entry, l *tenure, record []byte, rev uint64, now time.Time) {
	was := e.prior()
	told := record
	if rev == 0 && e.rev != 0 && e.state != Free && e.state != Reserved {
		told = e.encoded() // the event of its end, or that it is free, will hold it
	}
	x.unlink(e)
	other := l != e.last() // not just looked at again
	if rev == 0 || e.owner() != l.Owner.Task || other && x.crowdOf(e) != nil {
		x.unchain(e)
	}
	if other {
		*e.lease = *l
		e.setRecord(record)
	}
	e.rev = rev
	x.link(e, now)
	x.chain(e)
	if held := e.state == Leased; held != (was.state == Leased) || held && e.lease.ID != was.id {
		x.out.owners = append(x.out.owners, e)
	}
	if other {
		if rev != 0 {
			told = e.record()
		}
		x.note(e, was, told, now)
	}
}

// relink is set with the tenure that e has: it computes the state and the deadline again.
func (x *index) relink(e *entry, now time.Time) effects {
	return x.set(e, e.last(), nil, e.rev, now)
}

// draining lists the entries that are Draining, by address.
func (x *index) draining() []*entry {
	return slices.SortedFunc(maps.Keys(x.drains), func(a, b *entry) int {
		return a.addr.Compare(b.addr)
	})
}

func (x *index) unlink(e *entry) {
	if e.pool.changed(); e.state != Free {
		e.pool.counts[e.state]--
	}
	e.pool.dequeue(e)
	if e.state == Draining {
		delete(x.drains, e)
	}
	if e.overdue {
		e.overdue = false
		e.pool.overdue--
	}
	if e.rev == 0 {
		return
	}
	if e.counted {
		e.pool.reserve(e.last().Owner.Team, -1)
		e.counted = false
	}
}

func (x *index) link(e *entry, now time.Time) {
	if e.lease == nil && e.recordText != nil {
		l, err := decodeTenure(e.record())
		if e.keepClock(&l); err == nil && !x.shorten(&l, e.pool, now) {
			x.linkAs(e, &l, now)
			return
		}
	}
	if e.rev != 0 && x.shorten(e.last(), e.pool, now) {
		e.setRecord(nil)
	}
	x.linkAs(e, e.last(), now)
}

// linkAs is link for an entry whose last tenure is l.
func (x *index) linkAs(e *entry, l *tenure, now time.Time) {
	x.mark(e)
	class := expires
	e.state, e.deadline, e.freed, e.rests = Free, time.Time{}, l.freed(), 0
	if e.rev != 0 {
		e.state = l.State
	}
	switch e.state {
	case Leased:
		if e.deadline = l.Expires; e.announcedExpiry != 0 &&
			e.announcedExpiry == l.Expires.UnixNano() {
			class, e.deadline = over, l.Expires.Add(x.grace)
		}
	case Draining:
		x.drains[e] = struct{}{}
	case Cooling, Quarantined:
		if class = cools; e.state == Quarantined {
			class = recovers
		}
		e.rests = x.measured(l)
		if e.deadline = l.CoolUntil; x.cooled(l, now) {
			e.state, e.deadline = Free, time.Time{}
		}
	}
	if _, reserved := e.pool.Reserved[e.addr]; reserved && e.state == Free {
		e.state = Reserved
	}
	e.pool.due.set(e, class)
	if !e.deadline.IsZero() {
		x.dueBy(e.pool, e.deadline)
	}
	e.pool.changed()
	if e.state != Free {
		if e.pool.counts[e.state]++; e.state == Cooling && e.pool.MaxCooling > 0 {
			x.flags.warm.add(e.pool.number)
		}
	} else if !e.pool.gone && !e.busy && !e.uncertain {
		x.release(e)
	}
	if e.rev == 0 {
		return
	}
	if e.state == Leased && e.pool.countsTeams {
		e.pool.reserve(l.Owner.Team, 1)
		e.counted = true
	}
}

// mark notes that the catalog has to take over e.
func (x *index) mark(e *entry) {
	if e.dirtyAt == 0 {
		x.dirty = append(x.dirty, e)
		e.dirtyAt = int32(len(x.dirty))
	}
}

// clean returns one of the entries that are marked, and takes the mark off.
func (x *index) clean() *entry {
	last := len(x.dirty) - 1
	e := x.dirty[last]
	x.dirty[last], x.dirty = nil, x.dirty[:last]
	e.dirtyAt, e.listed = 0, e.rev != 0
	return e
}

// shorten brings forward an expiry or a cool-down that ends later than one that begins now: a clock
// that was put back must not hold an address for hours. How long the cool-down of a former pool was
// is not known. A rest that Config.Uptime measures is left to settle.
func (x *index) shorten(l *tenure, p *pool, now time.Time) (shortened bool) {
	switch {
	case l.State == Leased && l.TTL > 0 && l.Expires.After(now.Add(l.TTL)):
		l.Expires = now.Add(l.TTL)
	case l.State == Cooling && !p.gone && (l.rest == nil || x.boot == "") &&
		l.CoolUntil.After(now.Add(p.coolDown())):
		l.CoolUntil = now.Add(p.coolDown())
	default:
		return false
	}
	return true
}
