package promote

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
)

// maxText limits the texts of people and deployers in an entry, in bytes.
const maxText = 4096

// maxKey limits an idempotency key, in bytes.
const maxKey = 128

// The limits of Request.Facts, in number and bytes.
const (
	maxFacts   = 32
	maxFactKey = 64
	maxFact    = 1024
)

// state is the sum of a journal's entries. It has no clock, no lock and no I/O: apply is the
// only way to change it, and the decisions (decide.go) turn it and a request into the next entry.
type state struct {
	pipeline Pipeline
	at       uint64    // the place up to which the journal was read
	last     time.Time // of the newest entry
	clusters map[string]*cluster
}

type cluster struct {
	head        Head
	broken      error // why nothing more is read or written: see state.take
	entries     []Entry
	versions    []Binding
	targets     map[Target]*place
	runs        map[Digest][]Run
	reviews     map[reviewed][]Review // at most one of each actor, oldest first
	keys        map[string]Entry      // the Started entries by their idempotency key
	holds       map[Digest][]Entry    // the rollbacks that have replaced a digest, unless released
	quarantined map[Digest]Hold
	checkpoint  *Entry // the last one
	open        int    // changes in progress
}

// reviewed is the subject of a review.
type reviewed struct {
	Target
	Digest
}

// place is the state of a target: the current deployment, and the change in progress.
type place struct {
	current *Deployment
	open    *change
	doubt   string
	// broken is the Started or Adopted entry whose override has brought the current digest.
	broken *Entry
	// generation is the newest one.
	generation uint64
}

// change is a change in progress: its Started entry, with the newest generation and the failure
// that is being put back.
type change struct {
	Entry
	state   State
	abort   *AbortError // the last one
	waiting string      // why the deployer cannot be asked; empty when it can
}

func newState(p Pipeline) *state {
	return &state{pipeline: p, clusters: map[string]*cluster{}}
}

// take takes in an entry that the journal has returned, and reports whether it is new. The state of
// a cluster ends before the first entry that cannot be taken in; cluster.broken says why.
func (s *state) take(e Entry) bool {
	s.at = max(s.at, e.At)
	c := s.cluster(e.Cluster)
	if c.broken != nil {
		return false
	}
	known := e.Damage == "" && e.Seq <= c.head.Seq
	if known && c.has(e) {
		return false
	}
	err := error(nil)
	switch {
	case known:
		err = fmt.Errorf("it has another content than before: an older copy of the journal was "+
			"restored: start the program again: %w", ErrSetBack)
	case e.Damage != "":
		err = fmt.Errorf("%s: %w", e.Damage, ErrDamaged)
	default:
		err = s.apply(e)
	}
	if err != nil {
		c.broken = fmt.Errorf("cluster %s: entry %d at position %d of the journal: %w",
			names.Quote(e.Cluster), e.Seq, e.At, err)
	}
	return err == nil
}

// has reports whether the cluster has e, with the same content.
func (c *cluster) has(e Entry) bool {
	i, found := slices.BinarySearchFunc(c.entries, e.Seq, func(e Entry, seq uint64) int {
		return cmp.Compare(e.Seq, seq)
	})
	return found && c.entries[i].Chain == e.Chain && c.entries[i].Kind == e.Kind
}

// cluster returns the state of a cluster, which may be a new one.
func (s *state) cluster(name string) *cluster {
	c := s.clusters[name]
	if c == nil {
		c = &cluster{targets: map[Target]*place{}, runs: map[Digest][]Run{},
			reviews: map[reviewed][]Review{}, keys: map[string]Entry{},
			holds: map[Digest][]Entry{}, quarantined: map[Digest]Hold{}}
		s.clusters[name] = c
	}
	return c
}

// head returns the end of a cluster's entries.
func (s *state) head(name string) Head {
	if c := s.clusters[name]; c != nil {
		return c.head
	}
	return Head{}
}

// writable returns nil, or why nothing may be written for a cluster.
func (s *state) writable(name string) error {
	if c := s.clusters[name]; c != nil && c.broken != nil {
		return fmt.Errorf("the cluster is read-only: %w", c.broken)
	}
	return nil
}

// apply takes the next entry of a cluster in. An entry that does not fit is an error and changes
// nothing: then the journal is broken, or from a newer program.
func (s *state) apply(e Entry) error {
	c := s.cluster(e.Cluster)
	if e.Needs > EntryFormat {
		return fmt.Errorf("it needs format %d, and this program knows %d: start a newer one: %w",
			e.Needs, EntryFormat, ErrNewer)
	}
	head, err := e.After(c.head)
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("it does not come next after entry %d: %w", c.head.Seq, ErrDamaged)
		if c.head.Seq == 0 {
			err = fmt.Errorf("the entries before it are not in the journal: are they archived, "+
				"and is Config.Archive theirs? %w", err)
		}
	}
	if err == nil {
		err = c.apply(e)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", e.Kind, e.Target, err)
	}
	c.head = head
	c.entries = append(c.entries, e)
	if e.Time.After(s.last) {
		s.last = e.Time
	}
	return nil
}

func (c *cluster) apply(e Entry) error {
	switch e.Kind {
	case Bound:
		if _, ok := c.bound(e.Version); ok {
			return fmt.Errorf("version %s is bound twice: %w", e.Version, ErrDamaged)
		}
		c.versions = append(c.versions, Binding{Cluster: e.Cluster, Version: e.Version,
			Digest: e.Digest, Repository: e.Repository, Actor: e.Actor, Time: e.Time})
		return nil
	case Approved, Rejected:
		of := reviewed{e.Target, e.Digest}
		others := slices.DeleteFunc(c.reviews[of],
			func(r Review) bool { return SameActor(r.Actor, e.Actor) })
		c.reviews[of] = append(others, Review{Target: e.Target, Version: e.Version,
			Approve: e.Kind == Approved, Actor: e.Actor, Reason: e.Reason, Policy: e.Policy,
			Time: e.Time})
		return nil
	case Quarantined:
		c.quarantined[e.Digest] = Hold{Actor: e.Actor, Reason: e.Reason, Since: e.Time}
		return nil
	case Released:
		delete(c.quarantined, e.Digest)
		delete(c.holds, e.Digest)
		return nil
	case Noted:
		return nil
	case Checkpoint:
		if e.Through >= e.Seq || c.checkpoint != nil && e.Through <= c.checkpoint.Through {
			return fmt.Errorf("it archives entries up to %d: %w", e.Through, ErrDamaged)
		}
		c.checkpoint = &e
		return nil
	case Progressed:
		if p := c.targets[e.Target]; p == nil || p.open == nil || p.open.Change != e.Change {
			return fmt.Errorf("change %d is not under way: %w", e.Change, ErrDamaged)
		}
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
			return fmt.Errorf("change %d has not ended: %w", p.open.Change, ErrDamaged)
		}
		if e.Key != "" {
			c.keys[e.Key] = e
		}
		p.open, p.generation = &change{Entry: e, state: Deploying}, e.Generation
		c.open++
	case Adopted:
		if p.open != nil {
			return fmt.Errorf("change %d has not ended: %w", p.open.Change, ErrDamaged)
		}
		p.generation, p.doubt = e.Generation, ""
		c.succeed(p, e, e)
	case Resumed, Waiting, Aborting, Restoring, Succeeded, Failed:
		if p.open == nil || p.open.Change != e.Change {
			return fmt.Errorf("change %d is not under way: %w", e.Change, ErrDamaged)
		}
		if e.Kind != Succeeded && e.Kind != Failed {
			p.open.apply(e)
			p.generation = p.open.Generation
			break
		}
		if p.open.Generation != e.Generation {
			return fmt.Errorf("generation %d acts, generation %d has the right to: %w",
				e.Generation, p.open.Generation, ErrDamaged)
		}
		begun := p.open.Entry
		p.open, p.doubt = nil, e.Doubt
		c.open--
		switch {
		case e.Kind == Succeeded:
			c.succeed(p, e, begun)
		case p.current != nil && e.Doubt == "":
			restored := *p.current
			restored.Generation = e.Generation
			p.current = &restored
		}
	default:
		return fmt.Errorf("unknown kind of entry: %w", ErrNewer)
	}
	c.targets[e.Target] = p
	return nil
}

// apply takes an entry in that does not end the change.
func (c *change) apply(e Entry) {
	c.waiting = ""
	switch e.Kind {
	case Waiting:
		c.waiting = e.Error
	case Aborting:
		c.abort = &AbortError{Actor: e.Actor, Reason: e.Reason}
		if c.state == Deploying {
			c.state = Stopping
		} else {
			c.state = GivingUp
		}
	default:
		c.Generation, c.Error = e.Generation, e.Error
		if e.Kind == Resumed {
			c.Owner = e.Owner
		}
		if e.Error != "" && c.state != GivingUp {
			c.state = PuttingBack
		}
	}
}

// succeed makes the deployment of e current; begun is the first entry of its change. Deploying the
// same digest again does not interrupt its run, and pays no debt of an override.
func (c *cluster) succeed(p *place, e, begun Entry) {
	same := p.current != nil && e.Op != OpRetire && p.current.Digest == e.Digest
	if p.broken != nil && p.current != nil && !same { // what it was owed goes with it
		delete(c.reviews, reviewed{e.Target, p.current.Digest})
	}
	if begun.overridden() && e.Op != OpRetire {
		p.broken = &begun
	} else if !same {
		p.broken = nil
	}
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
	if e.Op == OpRollback && p.current != nil && !same {
		c.holds[p.current.Digest] = append(c.holds[p.current.Digest], e)
	}
	d := e.deployment()
	d.Since = e.Time
	p.current = &d
	if !same || p.broken == nil { // else they are the approvals that an override owes
		delete(c.reviews, reviewed{e.Target, e.Digest})
	}
	if !same {
		c.runs[e.Digest] = append(c.runs[e.Digest],
			Run{Target: e.Target, Version: e.Version, From: e.Time})
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
	return Deployment{Target: e.Target, Version: e.Version, Digest: e.Digest,
		Repository: e.Repository, Generation: e.Generation, Actor: e.Actor, Reason: e.Reason}
}

// place returns the state of target; the zero place for an unknown target.
func (s *state) place(t Target) place {
	if c := s.clusters[t.Cluster]; c != nil && c.targets[t] != nil {
		return *c.targets[t]
	}
	return place{}
}

// knows reports whether the journal has an entry of a change of t.
func (s *state) knows(t Target) bool {
	c := s.clusters[t.Cluster]
	return c != nil && c.targets[t] != nil
}

// change returns the facts about e that the gates get, apart from the time.
func (s *state) change(p Pipeline, e Entry) Change {
	change := Change{Time: s.last, Op: e.Op, Target: e.Target, Version: e.Version, Digest: e.Digest,
		Repository: e.Repository, Current: e.Previous,
		PreviousEnvironment: p.Previous(e.Environment), Actor: e.Actor, Reason: e.Reason,
		Facts: e.Facts}
	if c := s.clusters[e.Cluster]; c != nil {
		for _, b := range c.versions {
			if b.Digest == e.Digest {
				change.Builders = append(change.Builders, b.Actor)
			}
		}
		change.Runs = slices.Clone(c.runs[e.Digest])
		change.Reviews = slices.Clone(c.reviews[reviewed{e.Target, e.Digest}])
	}
	change.Quarantine = s.quarantine(e.Cluster, e.Digest)
	change.Hold = s.hold(e.Target, e.Digest)
	if e.Op == OpRollback {
		change.Back = slices.IndexFunc(s.lived(e.Target),
			func(was Entry) bool { return was.Digest == e.Digest })
		if c := s.clusters[e.Cluster]; c != nil {
			change.Left = c.left(e.Environment, e.Digest)
		}
	}
	return change
}

// current lists the current deployments, by cluster, place in the pipeline, and task.
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
	slices.SortFunc(list, func(a, b Deployment) int {
		return compareTargets(p, a.Target,
			b.Target)
	})
	return list
}

// open lists the changes that have not ended, as current does, each with its newest generation.
func (s *state) open(p Pipeline) []Entry {
	var list []Entry
	for _, c := range s.clusters {
		if c.open == 0 {
			continue
		}
		for _, at := range c.targets {
			if at.open != nil {
				list = append(list, at.open.Entry)
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
			if (t.Environment == "" || t.Environment == e.Environment) &&
				(t.Task == "" || t.Task == e.Task) {
				list = append(list, e)
			}
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.At, b.At) })
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
