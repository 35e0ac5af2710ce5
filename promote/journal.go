package promote

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Op is the kind of change to a target.
type Op string

// The operations.
const (
	OpPromote  Op = "promote"  // deploy a version that may not have been there before
	OpRollback Op = "rollback" // deploy a digest again that was there before
	OpRetire   Op = "retire"   // end the target: nothing runs there any more
)

// Kind is the kind of event that an entry of the journal records.
type Kind string

// The kinds of entries. A change is one Started, any number of Resumed, Waiting, Aborting and
// Restoring, and one Succeeded or Failed.
const (
	// a version was bound to a digest
	Bound Kind = "bound"
	// a digest was approved at a target
	Approved Kind = "approved"
	// a digest was rejected at a target
	Rejected Kind = "rejected"
	// a digest is kept from the targets of the cluster, or of all clusters when it has none
	Quarantined Kind = "quarantined"
	// a digest is kept back no more
	Released Kind = "released"
	// a change passed its gates; the deployer is asked next
	Started Kind = "started"
	// Recover took over a change that had not ended
	Resumed Kind = "resumed"
	// the deployer cannot be asked now; it is asked again until it can
	Waiting Kind = "waiting"
	// an actor asked for the end of a change; the deployer is cancelled
	Aborting Kind = "aborting"
	// the deployer failed; it is asked to restore the earlier deployment
	Restoring Kind = "restoring"
	// the deployer succeeded; the deployed digest is now current
	Succeeded Kind = "succeeded"
	// the deployer failed; the current digest stays as it was
	Failed Kind = "failed"
	// something was done that leaves the digest as it is: see Note
	Noted Kind = "noted"
)

// Entry is one record of the journal. Entries are never changed or removed.
type Entry struct {
	// Seq numbers the entries from 1, without a gap.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`
	// Op is empty where the entry is not of a change; of a note it is the act.
	Op Op `json:"op,omitempty"`
	// Change is the Seq of the Started entry of the change that this entry belongs to.
	Change uint64 `json:"change,omitempty"`
	// Generation is the fencing token, of the Started, Resumed or Restoring entry that gave the
	// right to act. It is that entry's Seq, or more: one more than the newest of the target.
	Generation uint64 `json:"generation,omitempty"`
	// Target of a binding has the cluster only.
	Target
	Version    string `json:"version,omitempty"`
	Digest     Digest `json:"digest,omitempty"`
	Repository string `json:"repository,omitempty"`
	// Previous is the deployment that was current when the change started; empty for none.
	Previous Digest `json:"previous,omitempty"`
	// Actor and Reason are those of the request; of an Aborting entry, those of the abort.
	Actor string `json:"actor,omitempty"`
	// Key, of a Started entry, is the request's idempotency key.
	Key    string `json:"key,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Facts, of a Started entry, are those of the request.
	Facts map[string]string `json:"facts,omitempty"`
	// Error is the deployer's, cut to 4096 bytes, from the Restoring entry on, or a note's. Of a
	// Waiting entry it says why the deployer cannot be asked.
	Error string `json:"error,omitempty"`
	// Owner, of a Started or Resumed entry, is the Promoter that carries the change out from then
	// on: its Config.Owner.
	Owner string `json:"owner,omitempty"`
	// Policy, of an Approved or Rejected entry, names the rules in force: see Promoter.Review.
	Policy string `json:"policy,omitempty"`
	// Note, of a Resumed entry, says why its generation is higher than the journal alone explains;
	// of a Started entry, which gates were overridden and why.
	Note string `json:"note,omitempty"`
	// Doubt, of a Failed entry, is the reason why the earlier deployment could not be restored. It
	// is empty after a successful restore.
	Doubt string `json:"doubt,omitempty"`
}

// Journal is an append-only list of entries with a compare-and-set on its end. journaltest.Run
// holds an implementation to this contract. All methods are safe for concurrent use, and when ctx
// has ended they return an error that wraps the context's cause.
type Journal interface {
	// Append adds e, whose Seq is after+1, when the last entry's Seq is after (0 for an empty
	// journal). Otherwise it adds nothing and returns an error that wraps ErrConflict. When it
	// returns nil the entry survives a crash, as far as the journal survives one at all.
	Append(ctx context.Context, after uint64, e Entry) error
	// Read returns entries with a Seq above after, in order and without a gap. It may return fewer
	// than there are, but at least one if there is one. The caller owns the slice.
	Read(ctx context.Context, after uint64) ([]Entry, error)
	// Wait blocks until there is an entry with a Seq above after, or until ctx ends.
	Wait(ctx context.Context, after uint64) error
}

// MemJournal is a Journal in memory: for tests, and the reference for other implementations.
type MemJournal struct {
	mu      sync.Mutex
	entries []Entry
	grown   chan struct{} // closed and replaced by each append
}

var _ Journal = (*MemJournal)(nil)

// NewMemJournal returns an empty journal.
func NewMemJournal() *MemJournal { return &MemJournal{grown: make(chan struct{})} }

// Append implements Journal.
func (j *MemJournal) Append(ctx context.Context, after uint64, e Entry) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if last := uint64(len(j.entries)); last != after {
		return fmt.Errorf("append after entry %d: the last entry is %d: %w", after, last,
			ErrConflict)
	}
	if e.Seq != after+1 {
		return fmt.Errorf("append after entry %d: entry has number %d: %w", after, e.Seq,
			ErrInvalid)
	}
	j.entries = append(j.entries, e)
	close(j.grown)
	j.grown = make(chan struct{})
	return nil
}

// Read implements Journal.
func (j *MemJournal) Read(ctx context.Context, after uint64) ([]Entry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if after >= uint64(len(j.entries)) {
		return nil, nil
	}
	return slices.Clone(j.entries[after:]), nil
}

// Wait implements Journal.
func (j *MemJournal) Wait(ctx context.Context, after uint64) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		j.mu.Lock()
		last, grown := uint64(len(j.entries)), j.grown
		j.mu.Unlock()
		if last > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
