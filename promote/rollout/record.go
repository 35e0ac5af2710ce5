package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// Record holds the facts that a Rollout keeps about one target: the fence, and the ids of the
// instances that serve. Everything else is observed.
type Record struct {
	Target promote.Target `json:"target"`
	// Revision grows with every change of the record.
	Revision uint64 `json:"revision"`
	// Seen is the highest generation that was asked for, and Image the image that it asked for; the
	// zero Image means that nothing is to run.
	Seen  uint64 `json:"seen"`
	Image Image  `json:"image,omitzero"`
	// Count is how many instances Scale asked for; 0 leaves that to Policy.Count.
	Count int `json:"count,omitempty"`
	// Done is true when nothing is left to do for Seen, also because it failed.
	Done bool `json:"done,omitempty"`
	// Paused holds the rollout before its next batch: see Rollout.Pause.
	Paused bool `json:"paused,omitempty"`
	// Serving are the ids of the instances that take the requests, sorted.
	Serving []string `json:"serving,omitempty"`
	// Kept are the ids of the instances that served before and may serve again, until KeptUntil.
	Kept      []string  `json:"kept,omitempty"`
	KeptUntil time.Time `json:"keptUntil,omitzero"`
	// Replace are the ids of the instances that Restart is to replace.
	Replace []string `json:"replace,omitempty"`
	// Ending are the ids of the instances whose end has begun: none of them ever serves again.
	Ending []string `json:"ending,omitempty"`
	// Started is the number of the instance that Seen started last.
	Started uint64 `json:"started,omitempty"`
}

// Records keeps one Record for each target. rollouttest.Run holds an implementation to this
// contract. All methods are safe for concurrent use; a call whose ctx has ended returns an error
// that wraps the context's cause, and changes nothing.
type Records interface {
	// Get returns the target's record. For a target without one it is empty but for the target.
	Get(ctx context.Context, target promote.Target) (Record, error)
	// Update replaces the target's record by the result of change, in one step: no other change
	// comes between its argument and its result. An error of change is returned, and nothing is
	// changed. change may be called several times and must not block. When Update returns nil the
	// record survives a crash, as far as the store survives one at all. Records are never removed:
	// the fence of a target outlives its instances.
	Update(ctx context.Context, target promote.Target, change func(Record) (Record, error)) (
		Record, error)
	// List returns all records, in any order. The caller owns them. Those that cannot be read are
	// named in an *UnreadableError, which comes with all the others.
	List(ctx context.Context) ([]Record, error)
}

// Serving returns the instances that are to take requests, of all targets. Routes that are made
// from it as a whole need no memory of their own, except for a target whose record cannot be read:
// its instances are missing, and it is named in an *UnreadableError, which comes with the instances
// of all other targets.
func Serving(ctx context.Context, records Records, instances Instances) ([]Instance, error) {
	all, err := records.List(ctx)
	unreadable, err := Unreadable(err)
	if err != nil {
		return nil, fmt.Errorf("list records: %w", withCause(ctx, err))
	}
	serving := map[string]bool{}
	for _, rec := range all {
		for _, id := range rec.Serving {
			serving[id] = true
		}
	}
	// the instances last: an instance that serves is listed until others are routed
	list, err := instances.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", withCause(ctx, err))
	}
	list = slices.DeleteFunc(list, func(i Instance) bool { return !serving[i.ID] })
	slices.SortFunc(list, byID)
	if unreadable != nil {
		return list, fmt.Errorf("list records: %w", unreadable)
	}
	return list, nil
}

// clone returns a record that shares no memory with r.
func (r Record) clone() Record {
	r.Serving, r.Kept = slices.Clone(r.Serving), slices.Clone(r.Kept)
	r.Replace, r.Ending = slices.Clone(r.Replace), slices.Clone(r.Ending)
	return r
}

// see returns the record after a call for an image under a generation.
func (r Record) see(generation uint64, image Image) (Record, error) {
	switch {
	case generation < r.Seen:
		return r, fmt.Errorf("generation %d: generation %d was seen: %w", generation, r.Seen,
			promote.ErrFenced)
	case generation == r.Seen && generation > 0 && !r.Image.same(image):
		return r, fmt.Errorf("generation %d asked for version %q (%s), now for %q (%s): %w",
			generation, r.Image.Version, r.Image.Digest.Short(), image.Version,
			image.Digest.Short(), promote.ErrConflict)
	case generation > r.Seen:
		r.Seen, r.Started, r.Paused, r.Replace = generation, 0, false, nil
	}
	r.Image, r.Done = image, false
	if image == (Image{}) {
		r.Count, r.Kept, r.KeptUntil = 0, nil, time.Time{}
	}
	return r, nil
}

// keeps returns the ids of the instances that are kept at this time.
func (r Record) keeps(now time.Time) []string {
	if !now.Before(r.KeptUntil) {
		return nil
	}
	return r.Kept
}

// without returns the ids that are not in the other list.
func without(ids, others []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return slices.Contains(others, id)
	})
}

// union returns the ids of both lists, sorted, each once.
func union(ids, others []string) []string {
	all := slices.Concat(ids, others)
	slices.Sort(all)
	return slices.Compact(all)
}
