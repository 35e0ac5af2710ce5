package promote

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
)

// The decisions: state and request in, the next entry or a refusal out.

// bind decides on a binding; ok is false when there is nothing to do.
func (s *state) bind(b Binding) (e Entry, ok bool, err error) {
	if old, ok := s.clusters[b.Cluster].bound(b.Version); ok {
		if old.Digest == b.Digest {
			return Entry{}, false, nil
		}
		return Entry{}, false, &ReboundError{Cluster: b.Cluster, Version: b.Version,
			Bound: old.Digest, Asked: b.Digest, Actor: old.Actor, Since: old.Time}
	}
	return Entry{Kind: Bound, Target: Target{Cluster: b.Cluster}, Version: b.Version,
		Digest: b.Digest, Repository: b.Repository, Actor: b.Actor}, true, nil
}

// review decides on the word of a reviewer.
func (s *state) review(r Review) (Entry, error) {
	b, ok := s.clusters[r.Cluster].bound(r.Version)
	if !ok {
		return Entry{}, unbound(r.Target, r.Version)
	}
	e := Entry{Kind: Rejected, Policy: r.Policy, Target: r.Target, Version: b.Version,
		Digest: b.Digest,
		Actor:  r.Actor, Reason: r.Reason}
	if r.Approve {
		e.Kind = Approved
	}
	return e, nil
}

func unbound(t Target, version string) error {
	return fmt.Errorf("%s %s: bind the version to the image that was built for it: %w", t.Cluster,
		version, ErrUnbound)
}

// start decides whether op may start at t for a caller that expects expect there; it leaves the
// gates to its caller.
func (s *state) start(op Op, t Target, expect Digest, actor, reason string) (Entry, error) {
	p := s.place(t)
	if p.open != nil {
		return Entry{}, &ConflictError{Target: t, InProgress: true, Op: p.open.Op,
			Actor: p.open.Actor, Version: p.open.Version,
			Digest: p.open.Digest, Since: p.open.Time, Expect: expect}
	}
	var now Deployment
	if p.current != nil {
		now = *p.current
	}
	if expect != Any && expect != cmp.Or(now.Digest, None) {
		return Entry{}, &ConflictError{Target: t, Actor: now.Actor, Version: now.Version,
			Digest: now.Digest, Since: now.Since, Expect: expect}
	}
	return Entry{Kind: Started, Op: op, Target: t, Previous: now.Digest, Actor: actor,
		Reason: reason}, nil
}

func (s *state) promote(r Request) (Entry, error) {
	b, ok := s.clusters[r.Cluster].bound(r.Version)
	if !ok {
		return Entry{}, unbound(r.Target, r.Version)
	}
	e, err := s.start(OpPromote, r.Target, r.Expect, r.Actor, r.Reason)
	e.Version, e.Digest, e.Repository = b.Version, b.Digest, b.Repository
	e.Facts = maps.Clone(r.Facts)
	return e, err
}

// rollback takes version and repository from the last time that the digest went live in the
// environment, for whichever task.
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
	change := Change{Op: OpRollback, Target: r.Target, Digest: r.Digest, Current: e.Previous,
		Actor: r.Actor, Reason: r.Reason}
	reason := fmt.Sprintf("%s was never live in %s: promote it, or roll back to one of: %s",
		r.Digest.Short(), r.Environment, cmp.Or(strings.Join(others, ", "), "none"))
	return Entry{}, &RefusedError{Change: change,
		Gates: []GateRefusal{{Gate: "history", Refusal: Refusal{Reasons: []string{reason}}}}}
}

// lived lists, for each digest that was live in the environment of t, the entry with which it last
// went live, newest first.
func (s *state) lived(t Target) []Entry {
	c := s.clusters[t.Cluster]
	if c == nil {
		return nil
	}
	var list []Entry
	seen := map[Digest]bool{}
	for _, e := range slices.Backward(c.entries) {
		if e.live() && e.Environment == t.Environment &&
			!seen[e.Digest] {
			seen[e.Digest] = true
			list = append(list, e)
		}
	}
	return list
}

// live reports whether the digest of e became current with it.
func (e Entry) live() bool { return e.Kind == Succeeded && e.Op != OpRetire || e.Kind == Adopted }

// begins reports whether e is still to be appended, and is the first entry of its change.
func (e Entry) begins() bool { return (e.Kind == Started || e.Kind == Adopted) && e.Seq == 0 }

// asking is a request for a change, in as far as its repetition has to be the same.
type asking struct {
	Target
	Op      Op
	Version string // empty for a rollback and a retirement
	Digest  Digest // of a rollback
	Key     string
	Expect  Digest
	// Actor breaks the glass when Override is not empty.
	Actor, Override string
	Reason          string
	Facts           map[string]string
}

// differs returns how the earlier change e is another one than q asks for, to be put behind
// "which"; empty where it is the same. Expect and Override say when q may start, not what it is.
func (q asking) differs(e Entry) string {
	switch {
	case e.Op != q.Op || e.Target != q.Target || q.Version != "" && q.Version != e.Version ||
		q.Digest != "" && q.Digest != e.Digest:
		return fmt.Sprintf("is %s %s of %s", e.Op, e.Target, e.Version)
	case !SameActor(q.Actor, e.Actor):
		return "is one by " + e.Actor
	case q.Reason != e.Reason:
		return "has the reason " + names.Quote(e.Reason)
	case !maps.Equal(q.Facts, e.Facts):
		return "has other facts"
	}
	return ""
}

// repeated returns the Started entry of the earlier change that has the key of q; ok is false when
// there is none. It is a conflict when that change is another one than q asks for.
func (s *state) repeated(q asking) (e Entry, ok bool, err error) {
	c := s.clusters[q.Cluster]
	if q.Key == "" || c == nil {
		return Entry{}, false, nil
	}
	if e, ok = c.keys[q.Key]; !ok {
		return Entry{}, false, nil
	}
	if how := q.differs(e); how != "" {
		return Entry{}, false, fmt.Errorf("%s %s: key %s: change %s, which %s, has it: send the "+
			"same request, or take another key: %w", q.Op, q.Target, names.Quote(q.Key), e.ID(),
			how, ErrConflict)
	}
	return e, true, nil
}

// retire decides on the end of a target; it returns the zero Entry when there is nothing to end.
func (s *state) retire(r RetireRequest) (Entry, error) {
	p := s.place(r.Target)
	if p.current == nil && p.open == nil && p.doubt == "" {
		return Entry{}, nil
	}
	e, err := s.start(OpRetire, r.Target, r.Expect, r.Actor, r.Reason)
	if p.current != nil {
		e.Version, e.Digest, e.Repository = p.current.Version, p.current.Digest,
			p.current.Repository
	}
	return e, err
}

// resume decides on the taking over of the open change of t; ok is false when it has ended
// meanwhile.
func (s *state) resume(t Target, change uint64) (e Entry, ok bool, err error) {
	p := s.place(t)
	if p.open == nil || p.open.Change != change {
		return Entry{}, false, nil
	}
	e = p.open.Entry
	e.Kind = Resumed
	if p.open.state == Stopping { // the deployer was to be cancelled, and is not asked again
		e.Error = clip(p.open.abort.Error(), maxText)
	}
	return e, true, nil
}

// number gives an entry that is to be appended with its Seq set the number of its change and its
// generation. A generation that it has already, from an Observer, is kept when it is higher.
func (s *state) number(e *Entry) {
	switch e.Kind {
	case Started:
		e.Change, e.Generation = e.Seq, 0
	case Resumed, Restoring, Adopted:
	default:
		return
	}
	e.Generation = max(e.Generation, e.Seq, s.place(e.Target).generation+1)
}

// holds returns nil while the generation of open has the right to act, and else an error that wraps
// ErrFenced.
func (s *state) holds(open Entry) error {
	if p := s.place(open.Target); p.open == nil || p.open.Generation != open.Generation {
		return fmt.Errorf("%s %s %s: change %d: a newer generation has taken over: %w",
			open.Op, open.Target, open.Version, open.Change, ErrFenced)
	}
	return nil
}

// restore returns the entry that restores the deployment that was current before open.
func (s *state) restore(open Entry, failure error) (Entry, error) {
	open.Kind, open.Error = Restoring, clip(failure.Error(), maxText)
	return open, s.holds(open)
}

// wait decides on the entry which says that the deployer cannot be asked; ok is false where the
// journal says so already.
func (s *state) wait(open Entry, why error) (e Entry, ok bool, err error) {
	if err := s.holds(open); err != nil {
		return Entry{}, false, err
	}
	open.Kind, open.Error = Waiting, clip(why.Error(), maxText)
	return open, s.place(open.Target).open.waiting == "", nil
}

// abort decides on the end of a change that an actor asks for; ok is false when another abort has
// said so already, or this one has and comes again.
func (s *state) abort(t Target, change uint64, actor, reason string) (e Entry, ok bool, err error) {
	open := s.place(t).open
	if open == nil || open.Change != change {
		return Entry{}, false, nil
	}
	if by := open.abort; by != nil && SameActor(by.Actor, actor) && by.Reason == reason {
		return Entry{}, false, nil
	}
	e = open.Entry
	e.Kind, e.Actor, e.Reason, e.Error = Aborting, actor, reason, ""
	return e, open.state == Deploying || open.state == PuttingBack, nil
}

// end decides on the last entry of a change. A deployer that succeeded although the change was to
// be aborted is a failure with the abort as its reason.
func (s *state) end(open Entry, failure error, doubt string) (Entry, error) {
	if err := s.holds(open); err != nil {
		return Entry{}, err
	}
	if at := s.place(open.Target).open; failure == nil && at.state != Deploying {
		return Entry{}, at.abort
	}
	open.Kind = Succeeded
	if failure != nil {
		open.Kind, open.Error, open.Doubt = Failed, clip(failure.Error(), maxText), clip(doubt,
			maxText)
	}
	return open, nil
}
