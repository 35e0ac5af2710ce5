package promote

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxText limits the texts of people and deployers in an entry, in bytes.
const maxText = 4096

// state is what a journal says, entry by entry. It has no clock, no lock and no I/O: apply is the only way to change it, and
// the decisions below turn it and a request into the next entry.
type state struct {
	seq      uint64
	clusters map[string]*cluster
}

type cluster struct {
	entries  []Entry
	versions []Binding
	targets  map[Target]*place
	runs     map[Digest][]Run
	reviews  map[reviewed][]Review // at most one of each actor, oldest first
}

// reviewed is what a review is of.
type reviewed struct {
	Target
	Digest
}

// place is what a target is like: what is current, and the change under way.
type place struct {
	current *Deployment
	open    *Entry
	doubt   string
}

func newState() *state { return &state{clusters: map[string]*cluster{}} }

// apply takes the next entry in. An entry that does not fit is an error and changes nothing: then the journal is broken, or
// from a newer program.
func (s *state) apply(e Entry) error {
	if e.Seq != s.seq+1 {
		return fmt.Errorf("journal entry %d follows entry %d", e.Seq, s.seq)
	}
	c := s.clusters[e.Cluster]
	if c == nil {
		c = &cluster{targets: map[Target]*place{}, runs: map[Digest][]Run{}, reviews: map[reviewed][]Review{}}
	}
	if err := c.apply(e); err != nil {
		return fmt.Errorf("journal entry %d: %s %s: %w", e.Seq, e.Kind, e.Target, err)
	}
	s.clusters[e.Cluster] = c
	c.entries = append(c.entries, e)
	s.seq = e.Seq
	return nil
}

func (c *cluster) apply(e Entry) error {
	switch e.Kind {
	case Bound:
		if _, ok := c.bound(e.Version); ok {
			return fmt.Errorf("version %s is bound twice", e.Version)
		}
		c.versions = append(c.versions, Binding{Cluster: e.Cluster, Version: e.Version, Digest: e.Digest, Repository: e.Repository, Actor: e.Actor, Time: e.Time})
		return nil
	case Approved, Rejected:
		of := reviewed{e.Target, e.Digest}
		others := slices.DeleteFunc(c.reviews[of], func(r Review) bool { return r.Actor == e.Actor })
		c.reviews[of] = append(others, Review{Target: e.Target, Version: e.Version, Approve: e.Kind == Approved, Actor: e.Actor, Reason: e.Reason, Time: e.Time})
		return nil
	default:
		return c.applyChange(e)
	}
}

func (c *cluster) applyChange(e Entry) error {
	p := c.targets[e.Target]
	if p == nil {
		p = &place{}
	}
	switch e.Kind {
	case Started:
		if p.open != nil {
			return fmt.Errorf("change %d has not ended", p.open.Change)
		}
		p.open = &e
	case Resumed, Restoring, Succeeded, Failed:
		if p.open == nil || p.open.Change != e.Change {
			return fmt.Errorf("change %d is not under way", e.Change)
		}
		if e.Kind == Resumed || e.Kind == Restoring {
			p.open.Generation, p.open.Error = e.Generation, e.Error
			break
		}
		if p.open.Generation != e.Generation {
			return fmt.Errorf("generation %d acts, generation %d has the right to", e.Generation, p.open.Generation)
		}
		p.open, p.doubt = nil, e.Doubt
		switch {
		case e.Kind == Succeeded:
			c.succeed(p, e)
		case p.current != nil && e.Doubt == "":
			restored := *p.current
			restored.Generation = e.Generation
			p.current = &restored
		}
	default:
		return errors.New("unknown kind of entry: was it written by a newer program?")
	}
	c.targets[e.Target] = p
	return nil
}

// succeed makes what e deployed current. Deploying the same digest again does not interrupt its run.
func (c *cluster) succeed(p *place, e Entry) {
	same := p.current != nil && e.Op != OpRetire && p.current.Digest == e.Digest
	if p.current != nil && !same {
		runs := c.runs[p.current.Digest]
		for i := range runs {
			if runs[i].Target == e.Target && runs[i].Until.IsZero() {
				runs[i].Until = e.Time
			}
		}
	}
	if e.Op == OpRetire {
		p.current = nil
		return
	}
	d := e.deployment()
	d.Since = e.Time
	p.current = &d
	delete(c.reviews, reviewed{e.Target, e.Digest})
	if !same {
		c.runs[e.Digest] = append(c.runs[e.Digest], Run{Target: e.Target, Version: e.Version, From: e.Time})
	}
}

func (c *cluster) bound(version string) (Binding, bool) {
	if c != nil {
		for _, b := range c.versions {
			if b.Version == version {
				return b, true
			}
		}
	}
	return Binding{}, false
}

func (e Entry) deployment() Deployment {
	return Deployment{Target: e.Target, Version: e.Version, Digest: e.Digest, Repository: e.Repository, Generation: e.Generation, Actor: e.Actor, Reason: e.Reason}
}

// place returns what target is like; the zero place when it was never heard of.
func (s *state) place(t Target) place {
	if c := s.clusters[t.Cluster]; c != nil && c.targets[t] != nil {
		return *c.targets[t]
	}
	return place{}
}

// bind decides on a binding; ok is false when there is nothing to do.
func (s *state) bind(b Binding) (e Entry, ok bool, err error) {
	if old, ok := s.clusters[b.Cluster].bound(b.Version); ok {
		if old.Digest == b.Digest {
			return Entry{}, false, nil
		}
		return Entry{}, false, &ReboundError{Cluster: b.Cluster, Version: b.Version, Bound: old.Digest, Asked: b.Digest, Actor: old.Actor, Since: old.Time}
	}
	return Entry{Kind: Bound, Target: Target{Cluster: b.Cluster}, Version: b.Version, Digest: b.Digest, Repository: b.Repository, Actor: b.Actor}, true, nil
}

// review decides on the word of a reviewer.
func (s *state) review(r Review) (Entry, error) {
	b, ok := s.clusters[r.Cluster].bound(r.Version)
	if !ok {
		return Entry{}, unbound(r.Target, r.Version)
	}
	e := Entry{Kind: Rejected, Target: r.Target, Version: b.Version, Digest: b.Digest, Actor: r.Actor, Reason: r.Reason}
	if r.Approve {
		e.Kind = Approved
	}
	return e, nil
}

func unbound(t Target, version string) error {
	return fmt.Errorf("%s %s: %w: bind it to the image that was built for it", t.Cluster, version, ErrUnbound)
}

// start decides whether op may start at t for a caller who expects expect there, but for the gates.
func (s *state) start(op Op, t Target, expect Digest, actor, reason string) (Entry, error) {
	p := s.place(t)
	if p.open != nil {
		return Entry{}, &ConflictError{Target: t, InProgress: true, Op: p.open.Op, Actor: p.open.Actor, Version: p.open.Version,
			Digest: p.open.Digest, Since: p.open.Time, Expect: expect}
	}
	var now Deployment
	if p.current != nil {
		now = *p.current
	}
	if expect != "" && expect != cmp.Or(now.Digest, None) {
		return Entry{}, &ConflictError{Target: t, Actor: now.Actor, Version: now.Version, Digest: now.Digest, Since: now.Since, Expect: expect}
	}
	return Entry{Kind: Started, Op: op, Target: t, Previous: now.Digest, Actor: actor, Reason: reason}, nil
}

func (s *state) promote(r Request) (Entry, error) {
	b, ok := s.clusters[r.Cluster].bound(r.Version)
	if !ok {
		return Entry{}, unbound(r.Target, r.Version)
	}
	e, err := s.start(OpPromote, r.Target, r.Expect, r.Actor, r.Reason)
	e.Version, e.Digest, e.Repository = b.Version, b.Digest, b.Repository
	return e, err
}

// rollback takes version and repository from the last time that the digest went live in the environment, for whichever task.
func (s *state) rollback(r RollbackRequest) (Entry, error) {
	e, err := s.start(OpRollback, r.Target, r.Expect, r.Actor, r.Reason)
	if err != nil {
		return Entry{}, err
	}
	var others []string
	for _, was := range s.lived(r.Target) {
		if was.Digest == r.Digest {
			e.Version, e.Digest, e.Repository = was.Version, was.Digest, was.Repository
			return e, nil
		}
		if len(others) < 10 {
			others = append(others, was.Version+" ("+was.Digest.Short()+")")
		}
	}
	change := Change{Op: OpRollback, Target: r.Target, Digest: r.Digest, Current: e.Previous, Actor: r.Actor, Reason: r.Reason}
	reason := fmt.Sprintf("%s was never live in %s: promote it, or roll back to one of: %s",
		r.Digest.Short(), r.Environment, cmp.Or(strings.Join(others, ", "), "none"))
	return Entry{}, &RefusedError{Change: change, Gates: []GateRefusal{{Gate: "history", Refusal: Refusal{Reasons: []string{reason}}}}}
}

// lived lists, for each digest that was live in the environment of t, the entry with which it last went live, newest first.
func (s *state) lived(t Target) []Entry {
	c := s.clusters[t.Cluster]
	if c == nil {
		return nil
	}
	var list []Entry
	seen := map[Digest]bool{}
	for _, e := range slices.Backward(c.entries) {
		if e.Kind == Succeeded && e.Op != OpRetire && e.Environment == t.Environment && !seen[e.Digest] {
			seen[e.Digest] = true
			list = append(list, e)
		}
	}
	return list
}

// retire decides on the end of a target; ok is false when there is nothing to end.
func (s *state) retire(r RetireRequest) (e Entry, ok bool, err error) {
	p := s.place(r.Target)
	if p.current == nil && p.open == nil && p.doubt == "" {
		return Entry{}, false, nil
	}
	e, err = s.start(OpRetire, r.Target, r.Expect, r.Actor, r.Reason)
	if p.current != nil {
		e.Version, e.Digest, e.Repository = p.current.Version, p.current.Digest, p.current.Repository
	}
	return e, true, err
}

// resume decides on the taking over of the open change of t; ok is false when it has ended meanwhile.
func (s *state) resume(t Target, change uint64) (e Entry, ok bool, err error) {
	p := s.place(t)
	if p.open == nil || p.open.Change != change {
		return Entry{}, false, nil
	}
	e = *p.open
	e.Kind = Resumed
	return e, true, nil
}

// holds returns nil while the generation of open has the right to act, and else an error that wraps ErrFenced.
func (s *state) holds(open Entry) error {
	if p := s.place(open.Target); p.open == nil || p.open.Generation != open.Generation {
		return fmt.Errorf("%s %s %s: change %d: %w", open.Op, open.Target, open.Version, open.Change, ErrFenced)
	}
	return nil
}

// restore decides on the putting back of what was current before open.
func (s *state) restore(open Entry, failure error) (Entry, error) {
	open.Kind, open.Error = Restoring, clip(failure.Error(), maxText)
	return open, s.holds(open)
}

// end decides on the last entry of a change.
func (s *state) end(open Entry, failure error, doubt string) (Entry, error) {
	if err := s.holds(open); err != nil {
		return Entry{}, err
	}
	open.Kind = Succeeded
	if failure != nil {
		open.Kind, open.Error, open.Doubt = Failed, clip(failure.Error(), maxText), clip(doubt, maxText)
	}
	return open, nil
}

// change is what the gates are told of e, but for the time.
func (s *state) change(p Pipeline, e Entry) Change {
	change := Change{Op: e.Op, Target: e.Target, Version: e.Version, Digest: e.Digest, Repository: e.Repository, Current: e.Previous,
		PreviousEnvironment: p.Previous(e.Environment), Actor: e.Actor, Reason: e.Reason}
	if c := s.clusters[e.Cluster]; c != nil {
		b, _ := c.bound(e.Version)
		change.Builder = b.Actor
		change.Runs = slices.Clone(c.runs[e.Digest])
		change.Reviews = slices.Clone(c.reviews[reviewed{e.Target, e.Digest}])
	}
	return change
}

// current lists what is deployed, by cluster, place in the pipeline, and task.
func (s *state) current(p Pipeline) []Deployment {
	var list []Deployment
	for _, c := range s.clusters {
		for _, at := range c.targets {
			if at.current != nil {
				d := *at.current
				d.Doubt = at.doubt
				list = append(list, d)
			}
		}
	}
	slices.SortFunc(list, func(a, b Deployment) int { return compareTargets(p, a.Target, b.Target) })
	return list
}

// open lists the changes that have not ended, as current does, each with its newest generation.
func (s *state) open(p Pipeline) []Entry {
	var list []Entry
	for _, c := range s.clusters {
		for _, at := range c.targets {
			if at.open != nil {
				list = append(list, *at.open)
			}
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return compareTargets(p, a.Target, b.Target) })
	return list
}

// compareTargets puts environments that are no longer in the pipeline last.
func compareTargets(p Pipeline, a, b Target) int {
	place := func(t Target) int {
		if i := p.Index(t.Environment); i >= 0 {
			return i
		}
		return len(p)
	}
	return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(place(a), place(b)),
		cmp.Compare(a.Environment, b.Environment), cmp.Compare(a.Task, b.Task))
}

// history lists the entries that match t, whose empty fields match everything.
func (s *state) history(t Target) []Entry {
	var list []Entry
	for name, c := range s.clusters {
		if t.Cluster != "" && t.Cluster != name {
			continue
		}
		for _, e := range c.entries {
			if (t.Environment == "" || t.Environment == e.Environment) && (t.Task == "" || t.Task == e.Task) {
				list = append(list, e)
			}
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	return list
}

// bindings lists the versions of a cluster, or of all, oldest first.
func (s *state) bindings(cluster string) []Binding {
	var list []Binding
	for name, c := range s.clusters {
		if cluster == "" || cluster == name {
			list = append(list, c.versions...)
		}
	}
	slices.SortStableFunc(list, func(a, b Binding) int {
		return cmp.Or(time.Time.Compare(a.Time, b.Time), cmp.Compare(a.Cluster, b.Cluster))
	})
	return list
}
