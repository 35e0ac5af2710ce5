package promote

import (
	"maps"
	"slices"
)

// Reads is a set of those facts of a Change that others can change while the gates are asked. A
// gate that has a method Reads() Reads is asked once more only when one of its facts has changed,
// and one without when any of them has. The request itself, the rules and the time belong to the
// question and are in no set.
type Reads uint8

// The facts.
const (
	// ReadsBuilders is Change.Builders.
	ReadsBuilders Reads = 1 << iota
	// ReadsReviews is Change.Reviews.
	ReadsReviews
	// ReadsRuns is Change.Runs.
	ReadsRuns
	// ReadsRunsBefore is those of Change.Runs that are in Change.PreviousEnvironment: the other
	// tasks of a first environment do not count.
	ReadsRunsBefore
	// ReadsHistory is Change.Back, Left and Fast.
	ReadsHistory

	readsAll = ReadsBuilders | ReadsReviews | ReadsRuns | ReadsHistory
)

// readsOf returns the facts that a gate reads.
func readsOf(gate Gate) Reads {
	if g, ok := gate.(interface{ Reads() Reads }); ok {
		return g.Reads()
	}
	return readsAll
}

// same reports whether a and b are the same question for a gate that reads the facts of r.
func (r Reads) same(a, b Change) bool {
	return a.sameRequest(b) &&
		(r&ReadsBuilders == 0 || slices.Equal(a.Builders, b.Builders)) &&
		(r&ReadsReviews == 0 || slices.EqualFunc(a.Reviews, b.Reviews, Review.equal)) &&
		(r&ReadsRuns == 0 || slices.EqualFunc(a.Runs, b.Runs, Run.equal)) &&
		(r&ReadsRunsBefore == 0 || slices.EqualFunc(a.runsBefore(), b.runsBefore(), Run.equal)) &&
		(r&ReadsHistory == 0 || a.Back == b.Back && a.Left.Equal(b.Left) && a.Fast == b.Fast)
}

// sameRequest reports whether a and b are the same request, at the same current deployment.
func (c Change) sameRequest(other Change) bool {
	return c.Op == other.Op && c.Target == other.Target && c.Version == other.Version &&
		c.Digest == other.Digest && c.Repository == other.Repository &&
		c.Current == other.Current && c.PreviousEnvironment == other.PreviousEnvironment &&
		c.Actor == other.Actor && c.Reason == other.Reason && maps.Equal(c.Facts, other.Facts)
}

// runsBefore are the runs in the environment before the target's.
func (c Change) runsBefore() []Run {
	if c.PreviousEnvironment == "" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Runs),
		func(r Run) bool { return r.Environment != c.PreviousEnvironment })
}

// Equal reports whether c and other hold the same facts, apart from the time of the question.
func (c Change) Equal(other Change) bool {
	return readsAll.same(c, other) && c.Policy == other.Policy &&
		c.Quarantine.equal(other.Quarantine) && c.Hold.equal(other.Hold)
}
