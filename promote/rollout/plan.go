package rollout

import (
	"cmp"
	"slices"
	"time"
)

// The decisions: the record, the instances and the policy in, the next step out. No clock, no
// goroutine, no I/O. A Rollout observes, asks Next, carries the step out and observes again: a
// rollout that was killed at any place goes on from the state that it left.

// StepKind is the kind of a Step.
type StepKind string

// The kinds of steps.
const (
	// StepStart starts New instances and waits until these and Instances are ready.
	StepStart StepKind = "start"
	// StepRoute writes down Serving and Kept, applies the routes and waits until they are verified.
	StepRoute StepKind = "route"
	// StepEnd drains and stops Instances.
	StepEnd StepKind = "end"
	// StepFail: Instances were ready once, and are not any more before they served.
	StepFail StepKind = "fail"
	// StepDone: the target is as asked.
	StepDone StepKind = "done"
)

// Step is the next thing to do at a target.
type Step struct {
	Kind      StepKind
	Instances []Instance
	// New is how many instances StepStart starts.
	New int
	// Serving are the sorted ids of the instances that take the requests after StepRoute; Kept are
	// the ids of replaced instances that stay for a restore.
	Serving, Kept []string
}

// Situation is all that the next step depends on.
type Situation struct {
	Record Record
	// Instances are all instances of the target.
	Instances []Instance
	Policy    Policy
	Now       time.Time
	// Started are the ids of the instances that this call has started and seen ready.
	Started map[string]bool
	// Kept is true when this call has kept instances.
	Kept bool
	// Applied is true when this call has verified the routes of Record.Serving.
	Applied bool
}

// Next returns the next step. The rules, in this order:
//
//  1. An instance that this call has started fails the rollout when it is not ready any more before
//     it takes requests.
//  2. Instances that nothing needs end, once the routes without them are verified.
//  3. Instances of the image start until there are Count, as many at a time as Policy.Surge allows.
//  4. The routes move: ready instances of the image serve; instances of another image go, as
//     many as Policy.Unavailable allows.
//
// An instance of the image that runs already is used, of any generation: to
// restore the earlier image while its instances are kept is rule 4 alone.
func Next(s Situation) Step {
	if lost := s.lost(); len(lost) > 0 {
		return Step{Kind: StepFail, Instances: lost}
	}
	g := s.groups()
	if len(g.surplus) > 0 {
		if s.Applied {
			return Step{Kind: StepEnd, Instances: g.surplus}
		}
		if g.served || s.count() == 0 {
			return Step{Kind: StepRoute, Serving: s.Record.Serving, Kept: s.Record.Kept}
		}
	}
	if n := g.room(s); n > 0 || len(g.waiting) > 0 {
		return Step{Kind: StepStart, Instances: g.waiting, New: n}
	}
	route := g.route(s)
	if !s.Applied || !slices.Equal(route.Serving, s.Record.Serving) {
		return route
	}
	if len(g.fresh) < s.count() {
		// nothing may start and nothing may go: Policy.validate refuses such a policy
		return Step{Kind: StepFail}
	}
	return Step{Kind: StepDone}
}

// Surplus returns the instances that nothing needs at a target where nothing is under way:
// leftovers of a crash, and instances that were kept long enough.
func Surplus(s Situation) []Instance { return s.groups().surplus }

// count is how many instances of the image are to serve.
func (s Situation) count() int {
	if s.Record.Image == (Image{}) {
		return 0
	}
	return cmp.Or(s.Record.Count, s.Policy.Count, 1)
}

// lost returns the instances that this call has started and that broke before they took requests.
func (s Situation) lost() (lost []Instance) {
	for id := range s.Started {
		if slices.Contains(s.Record.Serving, id) {
			continue
		}
		at := slices.IndexFunc(s.Instances, func(i Instance) bool { return i.ID == id })
		if at < 0 {
			lost = append(lost, Instance{Spec: Spec{ID: id, Target: s.Record.Target}, State: Down})
		} else if s.Instances[at].State != Ready {
			lost = append(lost, s.Instances[at])
		}
	}
	slices.SortFunc(lost, byID)
	return lost
}

// groups are the instances of a target, each in one of the lists or in none.
type groups struct {
	fresh   []Instance // of the image, ready, at most count
	waiting []Instance // of the image, to become ready, with fresh at most count
	old     []Instance // other instances that serve, the ready ones first
	surplus []Instance // neither serve nor are needed
	served  bool       // a listed instance serves
}

func (s Situation) groups() groups {
	var g groups
	r := s.Record
	list := slices.Clone(s.Instances)
	slices.SortFunc(list, func(a, b Instance) int {
		return cmp.Or(compareBool(slices.Contains(r.Serving, b.ID),
			slices.Contains(r.Serving, a.ID)), byID(a, b))
	})
	var others []Instance
	for _, i := range list {
		wanted := i.Image.same(r.Image) && !slices.Contains(r.Ending, i.ID) &&
			!slices.Contains(r.Replace, i.ID)
		g.served = g.served || slices.Contains(r.Serving, i.ID)
		switch {
		case wanted && i.State == Ready && len(g.fresh) < s.count():
			g.fresh = append(g.fresh, i)
		case wanted && i.State == Starting:
			g.waiting = append(g.waiting, i)
		default:
			others = append(others, i)
		}
	}
	needed := min(len(g.waiting), s.count()-len(g.fresh))
	others = append(others, g.waiting[needed:]...)
	g.waiting = g.waiting[:needed]
	kept := r.keeps(s.Now)
	for _, i := range others {
		switch {
		case slices.Contains(r.Serving, i.ID):
			g.old = append(g.old, i)
		case !slices.Contains(kept, i.ID) || slices.Contains(r.Ending, i.ID):
			g.surplus = append(g.surplus, i)
		}
	}
	slices.SortFunc(g.old, func(a, b Instance) int {
		return cmp.Or(compareBool(b.State == Ready, a.State == Ready), byID(a, b))
	})
	return g
}

// room is how many instances may start now.
func (g groups) room(s Situation) int {
	surge, _ := s.Policy.limits(s.count())
	running := len(g.fresh) + len(g.waiting)
	for _, i := range g.old {
		if i.State != Down {
			running++
		}
	}
	return max(0, min(s.count()-len(g.fresh)-len(g.waiting), s.count()+surge-running))
}

// route returns the step that moves the requests as far as the policy allows.
func (g groups) route(s Situation) Step {
	_, unavailable := s.Policy.limits(s.count())
	stay := 0
	if len(g.fresh) < s.count() {
		stay = min(len(g.old), max(0, s.count()-unavailable-len(g.fresh)))
	}
	step := Step{Kind: StepRoute}
	for _, i := range slices.Concat(g.fresh, g.old[:stay]) {
		step.Serving = append(step.Serving, i.ID)
	}
	slices.Sort(step.Serving)
	kept := s.Record.keeps(s.Now)
	if s.Policy.Retain > 0 && s.count() > 0 {
		var moved []string
		for _, i := range g.old[stay:] {
			if i.State == Ready && !i.Image.same(s.Record.Image) {
				moved = append(moved, i.ID)
			}
		}
		if len(moved) > 0 && !s.Kept {
			kept = nil // of the image before the one that goes now
		}
		kept = union(kept, moved)
	}
	step.Kept = without(kept, step.Serving)
	return step
}

func byID(a, b Instance) int {
	return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Number, b.Number),
		cmp.Compare(a.ID, b.ID))
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
