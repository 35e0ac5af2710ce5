package builds

import (
	"errors"
	"fmt"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/internal/names"
)

// Sentinels of this package, besides builder.ErrInvalid for wrong input and
// builder.ErrNotFound for an id that no build has.
var (
	// ErrConflict: the id belongs to another order, or the store has moved on.
	ErrConflict = errors.New("conflict")
	// ErrFenced: the attempt is not this owner's any more.
	ErrFenced = errors.New("fenced")
)

// The decisions: state and command in, the next entry or a refusal out. ok is false when there is
// nothing to record.

// submit decides on an order.
func (s *state) submit(o Order) (e Entry, ok bool, err error) {
	if r := s.builds[o.ID]; r != nil {
		if r.sum != o.sum() {
			return Entry{}, false, fmt.Errorf("submit build %s: %s submitted another order under "+
				"this id at %s: take another id: %w", o.ID, r.Actor,
				r.Submitted.UTC().Format("2006-01-02 15:04:05Z"), ErrConflict)
		}
		return Entry{}, false, nil
	}
	return Entry{Kind: Submitted, Build: o.ID, Order: &o}, true, nil
}

// find returns a build.
func (s *state) find(id string) (*record, error) {
	if r := s.builds[id]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("build %s: %w", names.Quote(id), builder.ErrNotFound)
}

// cancel decides on the end that an actor asks for. The end of a build that has ended, or is to end
// already, is nothing to record.
func (s *state) cancel(id, actor, reason string) (e Entry, ok bool, err error) {
	r, err := s.find(id)
	if err != nil {
		return Entry{}, false, err
	}
	e = Entry{Build: id, Actor: actor, Reason: reason, Attempt: r.Attempt}
	switch r.State {
	case StateQueued:
		e.Kind = Cancelled
		e.Log = r.log(LogState{Verdict: Complete})
	case StateRunning:
		e.Kind = Cancelling
	default:
		return Entry{}, false, nil
	}
	return e, true, nil
}

// next starts the oldest build that can start of a team with
// the fewest running.
func (s *state) next(owner string) (e Entry, ok bool) {
	running, busy := map[string]int{}, map[string]bool{}
	for _, r := range s.open {
		if r.State != StateQueued {
			running[r.Team]++
			busy[r.Group] = true
		}
	}
	var best *record
	for _, r := range s.open {
		if r.State != StateQueued {
			continue
		}
		held := r.Policy != Parallel && busy[r.Group]
		if r.Policy != Parallel {
			busy[r.Group] = true // it goes before the later ones of the group
		}
		if !held && (best == nil || running[r.Team] < running[best.Team]) {
			best = r
		}
	}
	if best == nil {
		return Entry{}, false
	}
	return Entry{Kind: Started, Build: best.ID, Owner: owner}, true
}

// orphaned decides on a build whose owner has died: it waits again, or ends if that was asked for.
func (s *state) orphaned(id string, attempt uint64) (e Entry, ok bool) {
	r := s.builds[id]
	if r == nil || r.State.Ended() || r.State == StateQueued || r.Attempt != attempt {
		return Entry{}, false
	}
	e = Entry{Kind: Requeued, Build: id, Attempt: attempt, Reason: "its owner " + r.Owner +
		" has ended without a word: the build begins again"}
	if r.State == StateCancelling {
		e.Kind, e.Log = Cancelled, &LogState{Verdict: Gap}
		e.Reason, e.Actor = r.Reason, r.By
	}
	return e, true
}

// owned returns the build of an attempt that has not ended.
func (s *state) owned(id string, attempt uint64) (*record, error) {
	r, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if r.Attempt != attempt || r.State.Ended() || r.State == StateQueued {
		return nil, fmt.Errorf("build %s: attempt %d has ended for the journal, which has it %s: "+
			"%w", id, attempt, r.State, ErrFenced)
	}
	return r, nil
}

// fetched decides on the identity that the source gave to an attempt. A build has one: that an
// attempt was given another one is an error of the fetcher, and not recorded.
func (s *state) fetched(id string, attempt uint64, identity source.Identity) (e Entry, ok bool,
	err error) {
	r, err := s.owned(id, attempt)
	switch {
	case err != nil:
		return Entry{}, false, err
	case r.Identity != nil && *r.Identity != identity:
		return Entry{}, false, fmt.Errorf("build %s: its source gave %s, and %s to an earlier "+
			"attempt: %w", id, identity, r.Identity, ErrConflict)
	case r.Identity != nil:
		return Entry{}, false, nil
	}
	return Entry{Kind: Fetched, Build: id, Attempt: attempt, Identity: &identity}, true, nil
}

// outcome is how an attempt ended.
type outcome struct {
	result  *builder.Result
	failure *builder.Failure
	// stopped says that the process that carries the attempt out is to end.
	stopped bool
	log     LogState
}

// end decides on the end of an attempt. An image that is in the registry is a success although the
// build was to be cancelled: deployments can find it.
func (s *state) end(id string, attempt uint64, o outcome) (Entry, error) {
	r, err := s.owned(id, attempt)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Build: id, Attempt: attempt, Log: r.log(o.log)}
	switch {
	case o.result != nil:
		e.Kind, e.Result = Succeeded, o.result
	case r.State == StateCancelling:
		e.Kind, e.Actor, e.Reason = Cancelled, r.By, r.Reason
	case o.stopped:
		e.Kind, e.Reason = Requeued, "its owner "+r.Owner+" was stopped"
	case o.failure.Retryable && r.counted+1 < max(1, r.Attempts):
		e.Kind, e.Failure, e.Counts = Requeued, o.failure, true
		e.Reason = "the failure is worth another try"
	default:
		e.Kind, e.Failure = Failed, o.failure
	}
	return e, nil
}

// log is the verdict on the log over all attempts.
func (r *record) log(l LogState) *LogState {
	if r.broken {
		l.Verdict = Gap
	}
	return &l
}
