package consulsource

import (
	"maps"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// The damping of instances that come and go: after flapAt changes within flapWindow an instance is
// left out until it has stayed as it is for calmAfter. Were fewer than half of the instances left
// then, the instances that are there stay in.
const (
	flapAt     = 4
	flapWindow = time.Minute
	calmAfter  = 30 * time.Second
)

// damper remembers the changes of one service's instances. The zero value is ready to use.
type damper struct{ seen map[string]*sighting }

type sighting struct {
	here    bool
	changes []time.Time // within flapWindow, the oldest first, at most flapAt
	last    time.Time   // when it was seen or went
}

// apply returns the instances that serve, the ids of the instances left out for flapping, and when
// to look again: the zero time when nothing has to be looked at. A clock that is set back forgets
// the changes.
func (d *damper) apply(now time.Time, have []nginxsync.Instance) (serve []nginxsync.Instance,
	flapping []string, again time.Time) {
	first := d.seen == nil
	if first {
		d.seen = map[string]*sighting{}
	}
	here := map[string]bool{}
	for _, in := range have {
		here[in.ID] = true
		s := d.seen[in.ID]
		if s == nil {
			s = &sighting{}
			d.seen[in.ID] = s
			if first { // what was there before the first answer did not come just now
				s.here = true
			}
		}
		s.note(now, true)
	}
	for id, s := range d.seen {
		if !here[id] {
			s.note(now, false)
		}
		if !s.here && now.Sub(s.last) > flapWindow {
			delete(d.seen, id)
		}
	}
	quorum := (len(d.seen) + 1) / 2
	var held []nginxsync.Instance
	for _, in := range have {
		if until := d.seen[in.ID].calm(); until.After(now) {
			held = append(held, in)
			if again.IsZero() || until.Before(again) {
				again = until
			}
			continue
		}
		serve = append(serve, in)
	}
	for len(serve) < quorum && len(held) > 0 {
		serve, held = append(serve, held[0]), held[1:]
	}
	left := map[string]bool{}
	for _, in := range held {
		left[in.ID] = true
	}
	return serve, slices.Sorted(maps.Keys(left)), again
}

// forget drops changes that are later than now, as they are once the clock was set back.
func (s *sighting) forget(now time.Time) {
	if n := len(s.changes); n > 0 && s.changes[n-1].After(now) {
		s.changes = nil
	}
	if s.last.After(now) {
		s.last = now
	}
}

// note takes down whether the instance is there.
func (s *sighting) note(now time.Time, here bool) {
	s.forget(now)
	if here {
		s.last = now
	}
	if s.here == here {
		return
	}
	s.here, s.last = here, now
	s.changes = append(s.changes, now)
	if len(s.changes) > flapAt {
		s.changes = slices.Delete(s.changes, 0, len(s.changes)-flapAt)
	}
}

// calm is when an instance that flaps may serve again; the zero time for one that does not flap.
func (s *sighting) calm() time.Time {
	n := len(s.changes)
	if n < flapAt || s.changes[n-1].Sub(s.changes[0]) > flapWindow {
		return time.Time{}
	}
	return s.changes[n-1].Add(calmAfter)
}
