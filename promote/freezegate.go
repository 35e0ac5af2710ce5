package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// FreezeGate holds changes up while a freeze is in force. A change that has started is not cut off.
type FreezeGate struct {
	Freezes []Freeze
}

// Freeze is a time during which environments are not changed: once, or every week. With Days it is
// in force on each of these days from Start on for Length, between From and Until; without Days it
// is in force from From to Until.
type Freeze struct {
	// Reason is shown to the actor of a refused change. It must not be empty.
	Reason string
	// Environments are the frozen environments. Empty means all.
	Environments []string
	// From (included) and Until (excluded) are the limits. Zero means that there is none; without
	// Days neither may be zero.
	From, Until time.Time
	// Days are the days of the week on which it begins.
	Days []time.Weekday
	// Start is the time of day at which it begins, and Length how long it lasts, at most a week:
	// both by the clock on the wall, so that Friday 16:00 with 64 hours ends on Monday 08:00 even
	// when the clocks change in between. Where the clock shows the beginning twice the first one
	// counts, where it shows the end twice the second one, and where it skips either, the moment
	// at which it does.
	Start, Length time.Duration
	// Location is where the wall is. The default is UTC.
	Location *time.Location
	// Rollbacks are held up too when it is true.
	Rollbacks bool
}

var _ PureGate = FreezeGate{}

// Name returns "freeze".
func (FreezeGate) Name() string { return "freeze" }

// Validate reports every freeze that says nothing clear.
func (g FreezeGate) Validate(p Pipeline) error {
	var all problems
	for i, f := range g.Freezes {
		var own problems
		problem := func(what string) { own.add("%s", what) }
		if f.Reason == "" {
			problem("no reason")
		}
		own.environments(p, f.Environments)
		if !f.From.IsZero() && !f.Until.IsZero() && !f.From.Before(f.Until) {
			problem("from is not before until")
		}
		switch {
		case len(f.Days) == 0 && (f.From.IsZero() || f.Until.IsZero()):
			problem("without days it needs from and until")
		case len(f.Days) == 0 && (f.Start != 0 || f.Length != 0):
			problem("start and length need days")
		case len(f.Days) > 0 && (f.Start < 0 || f.Start >= day || f.Length <= 0 ||
			f.Length > 7*day):
			problem("want a start within the day and a length of up to a week")
		}
		for _, weekday := range f.Days {
			if weekday < time.Sunday || weekday > time.Saturday {
				problem(fmt.Sprintf("there is no day %d", int(weekday)))
			}
		}
		all = append(all, own.prefix(fmt.Sprintf("Freezes[%d] (%s)", i, clip(f.Reason, 100)))...)
	}
	return errors.Join(all...)
}

const day = 24 * time.Hour

// Reads implements PureGate.
func (FreezeGate) Reads() Reads { return 0 }

// Check implements Gate.
func (g FreezeGate) Check(_ context.Context, c Change) error { return g.Judge(c).answer() }

// Judge implements PureGate. Until of the refusal is when no freeze is in force any more, as far as
// a year ahead.
func (g FreezeGate) Judge(c Change) *Refusal {
	refusal := &Refusal{}
	for _, f := range g.Freezes {
		if end, ok := f.inForce(c, c.Time); ok {
			refusal.Reasons = append(refusal.Reasons,
				fmt.Sprintf("%s is frozen until %s: %s", c.Environment, stamp(end), f.Reason))
		}
	}
	if len(refusal.Reasons) == 0 {
		return nil
	}
	if open := g.open(c, c.Time); open.Sub(c.Time) < 366*day {
		refusal.Until = open
	}
	return refusal
}

// open is the first time from t on at which nothing is in force, or a time more than a year ahead.
func (g FreezeGate) open(c Change, t time.Time) time.Time {
	for limit := t.Add(366 * day); t.Before(limit); {
		before := t
		for _, f := range g.Freezes {
			if end, ok := f.inForce(c, t); ok {
				t = end
			}
		}
		if t.Equal(before) {
			break
		}
	}
	return t
}

// inForce reports whether f holds c up at t, and until when.
func (f Freeze) inForce(c Change, t time.Time) (end time.Time, ok bool) {
	if c.Op == OpAdopt || c.Op == OpRollback && !f.Rollbacks || len(f.Environments) > 0 &&
		!slices.Contains(f.Environments, c.Environment) {
		return end, false
	}
	if t.Before(f.From) || !f.Until.IsZero() && !t.Before(f.Until) {
		return end, false
	}
	if len(f.Days) == 0 {
		return f.Until, true
	}
	location := f.Location
	if location == nil {
		location = time.UTC
	}
	year, month, today := t.In(location).Date()
	for back := range 9 { // a week long, and begun late in the day
		first := time.Date(year, month, today-back, 0, 0, 0, 0, time.UTC)
		if !slices.Contains(f.Days, first.Weekday()) {
			continue
		}
		begin, _ := onWall(first.Add(f.Start), location)
		_, stop := onWall(first.Add(f.Start+f.Length), location)
		if t.Before(begin) || !t.Before(stop) {
			continue
		}
		if !f.Until.IsZero() && stop.After(f.Until) {
			stop = f.Until
		}
		if stop.After(end) {
			end = stop
		}
	}
	return end, !end.IsZero()
}

// onWall returns the first and the last time at which the clock on the wall of a location shows the
// date and the time of day that wall has in UTC. They differ where clocks go back. A time that the
// clock skips is when it skips it.
func onWall(wall time.Time, location *time.Location) (first, last time.Time) {
	const around = 48 * time.Hour // more than any offset and any change of one
	for _, probe := range []time.Duration{-around, around} {
		_, offset := wall.Add(probe).In(location).Zone()
		at := wall.Add(-time.Duration(offset) * time.Second)
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	shows := func(t time.Time) bool {
		_, offset := t.In(location).Zone()
		return t.Add(time.Duration(offset) * time.Second).Equal(wall)
	}
	switch firstShows, lastShows := shows(first), shows(last); {
	case firstShows && !lastShows:
		last = first
	case lastShows && !firstShows:
		first = last
	case !firstShows: // between the two the clock goes forward
		_, skips := first.In(location).ZoneBounds()
		first, last = skips, skips
	}
	return first, last
}
