package vip

import "time"

// rest is a cool-down or quarantine, measured by Config.Uptime.
type rest struct {
	boot   string        // the start of the machine during which it began
	since  time.Duration // after that
	length time.Duration
}

// until is when the rest ends, in time since the start of the machine.
func (r *rest) until() time.Duration { return r.since + r.length }

// valid reports whether the rest is one that could be written.
func (r *rest) valid() bool {
	return r.since >= 0 && r.length >= 0 && r.until() >= 0 && (r.boot != "" || r.until() == 0)
}

// uptime is a reading of Config.Uptime, and the knowledge of the records about other starts.
type uptime struct {
	boot string // "" without one: the clock counts then
	up   time.Duration
	// of each other start, how long it has lasted at least
	others map[string]time.Duration
	// the clock, and up, at the last call of offBy
	at   time.Time
	upAt time.Duration
}

// offBy is how much further the clock has gone than the time since the start, since the last call.
func (u *uptime) offBy(now time.Time) time.Duration {
	var off time.Duration
	if u.boot != "" && !u.at.IsZero() {
		off = now.Sub(u.at) - (u.up - u.upAt)
	}
	u.at, u.upAt = now, u.up
	return off
}

// restTolerance is by how much a rest may end before its time by one of two clocks: they are not
// read at the same moment.
const restTolerance = time.Millisecond

// measured is until when the address of l rests, in time since this start of the machine; 0 when
// that does not measure it.
func (u *uptime) measured(l *tenure) time.Duration {
	if l.rest == nil || l.rest.boot != u.boot {
		return 0
	}
	return l.rest.until()
}

// learn learns from a record how long another start of a machine has lasted.
func (u *uptime) learn(l *tenure) {
	if l.rest == nil || l.rest.boot == u.boot {
		return
	}
	if u.others == nil {
		u.others = map[string]time.Duration{}
	}
	u.others[l.rest.boot] = max(u.others[l.rest.boot], l.rest.since)
}

// settle brings the end of the rest of l, which has been read from the store, to the clock of now,
// and reports whether that has changed l. A rest that began during another start of the machine, or
// on another machine, begins again now, unless another record of that start was written after its
// end.
func (u *uptime) settle(l *tenure, p *pool, now time.Time) (changed bool) {
	if u.boot == "" || l.rest == nil || l.State != Cooling && l.State != Quarantined {
		return false
	}
	r := *l.rest
	switch {
	case r.boot == u.boot:
	case u.others[r.boot] >= r.until():
		if changed = l.CoolUntil.After(now); changed {
			l.CoolUntil = now
		}
		return changed
	default:
		r.boot, r.since, changed = u.boot, u.up, true
	}
	if longest := p.coolDown(); l.State == Cooling && !p.gone && r.until() > u.up+longest {
		r.since, r.length, changed = u.up, longest, true
	}
	if changed {
		l.rest = &r
	}
	end := now.Add(max(r.until()-u.up, 0))
	if off := end.Sub(l.CoolUntil); end.After(now) && off.Abs() > restTolerance ||
		!end.After(now) && l.CoolUntil.After(now) {
		l.CoolUntil, changed = end, true
	}
	return changed
}

// readUptime notes the present reading of Config.Uptime.
func (a *Allocator) readUptime() *uptime {
	if a.cfg.Uptime != nil {
		a.x.boot, a.x.up = a.cfg.Uptime()
	}
	return &a.x.uptime
}

// noticeJump lets nothing rest longer because the clock was put back, or because the machine slept.
func (a *Allocator) noticeJump() {
	now := a.cfg.Now()
	if a.readUptime().offBy(now).Abs() > time.Second {
		a.x.dueAgain(now)
		a.react(a.x.flush())
	}
}

// resting is a rest of the length from now on; nil without Config.Uptime.
func (a *Allocator) resting(length time.Duration) *rest {
	if u := a.readUptime(); u.boot != "" {
		return &rest{u.boot, u.up, length}
	}
	return nil
}
