package builds

import (
	"context"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
)

// Kind is the kind of event that an [Entry] records.
type Kind string

// The kinds of entries. docs/builds.md has the states and their transitions.
const (
	// an order was accepted; the build waits
	Submitted Kind = "submitted"
	// an owner begins an attempt
	Started Kind = "started"
	// the attempt ended without a verdict on the build, which waits again: its process was stopped
	// or has died, or its failure is worth another try
	Requeued Kind = "requeued"
	// the attempt has fetched the source: every later attempt gets the same
	Fetched Kind = "fetched"
	// an actor asked for the end of a build
	Cancelling Kind = "cancelling"
	// the image is in the registry
	Succeeded Kind = "succeeded"
	// the build failed
	Failed Kind = "failed"
	// the build ended because an actor asked for it
	Cancelled Kind = "cancelled"
	// a newer build of the group took its place. The journal has no entry of this kind of its own:
	// it is read out of the Submitted entry of the newer build.
	Superseded Kind = "superseded"
	// ended builds that are no longer kept: their ids are free again
	Forgotten Kind = "forgotten"
	// a record that cannot be read stands in this place
	Damaged Kind = "damaged"
)

// Entry is one record of the journal. Entries are never changed.
type Entry struct {
	// Seq numbers the entries of a journal from 1. Numbers are missing where Compact removed
	// entries, and nowhere else.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`
	// Build is the id; "" in a Forgotten entry, which has the ids in Builds.
	Build  string   `json:"build,omitempty"`
	Builds []string `json:"builds,omitempty"`
	// Before, of a Forgotten entry, is the Seq of the Forgotten entry before it, 0 for none: a
	// reader that has not seen that one reads the journal again from its beginning.
	Before uint64 `json:"before,omitempty"`
	// Order is set in a Submitted entry.
	Order *Order `json:"order,omitempty"`
	// LogName, of a Submitted entry, is the name of the build's log: an id that is used again has
	// another log. Empty is the id.
	LogName string `json:"logName,omitempty"`
	// Attempt, from Started on, is the Seq of the Started entry: the right to record the end of
	// the attempt.
	Attempt uint64 `json:"attempt,omitempty"`
	// Owner of a Started entry carries the attempt out.
	Owner string `json:"owner,omitempty"`
	// Identity, of a Fetched entry, names the files that the source gave.
	Identity *source.Identity `json:"identity,omitempty"`
	// Actor has cancelled the build, for Reason; a Requeued entry has its cause as Reason.
	Actor  string `json:"actor,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Counts says, of a Requeued entry, that the attempt counts against Order.Attempts.
	Counts bool `json:"counts,omitempty"`
	// Result is set in a Succeeded entry, Failure in a Failed one and in a Requeued one that
	// Counts. Log is set in every entry that ends an attempt whose process did not die.
	Result  *builder.Result  `json:"result,omitempty"`
	Failure *builder.Failure `json:"failure,omitempty"`
	Log     *LogState        `json:"log,omitempty"`
	// By, of a Superseded entry, is the id of the newer build.
	By string `json:"by,omitempty"`
}

// Verdict says how much of a log was kept.
type Verdict string

// The verdicts.
const (
	// all of it
	Complete Verdict = "complete"
	// its end is missing: it was larger than Config.MaxLog
	Truncated Verdict = "truncated"
	// a part is missing: an attempt's process died, or a write failed
	Gap Verdict = "gap"
)

// LogState is a log at the end of its build.
type LogState struct {
	// Bytes were stored, Lost were written by the build and not stored. Output that
	// a process had not stored when it was killed is not counted.
	Bytes   int64   `json:"bytes"`
	Lost    int64   `json:"lost,omitempty"`
	Verdict Verdict `json:"verdict"`
}

// Journal is an append-only list of entries with a compare-and-set on its end. buildstest.Journal
// holds an implementation to this contract. All methods are safe for concurrent use, and when ctx
// has ended they return an error that wraps its cause.
type Journal interface {
	// Append adds e, whose Seq is after+1, when the last entry's Seq is after, 0 for an empty
	// journal. Otherwise it adds nothing and returns an error that wraps ErrConflict. Nil means
	// that the entry is kept.
	Append(ctx context.Context, after uint64, e Entry) error
	// Read returns entries with a Seq above after, in order, none left out: at least one if there
	// is one. A record that cannot be read comes as an Entry of kind Damaged. The caller owns
	// the slice, and changes nothing that it points to.
	Read(ctx context.Context, after uint64) ([]Entry, error)
	// Wait blocks until there is an entry with a Seq above after, or until ctx ends.
	Wait(ctx context.Context, after uint64) error
}

// Compacter is a [Journal] that can remove entries. buildstest.Journal holds one to this contract.
type Compacter interface {
	// Compact removes the entries for which drop returns true, all or none of them, and never the
	// last entry. The others keep their numbers. Drop is not asked about a Damaged entry.
	Compact(ctx context.Context, drop func(Entry) bool) error
}

// Logs keeps logs, each a sequence of bytes under a name of its own. buildstest.Logs holds an
// implementation to this contract. The same holds for concurrency and ctx as for [Journal].
type Logs interface {
	// AppendLog adds data to a log when it has offset bytes; another number is an error that wraps
	// ErrConflict, and adds nothing. A log that was never written to has none.
	AppendLog(ctx context.Context, name string, offset int64, data []byte) error
	// ReadLog returns at most limit bytes from offset on, and how many there are in all.
	ReadLog(ctx context.Context, name string, offset int64, limit int) (data []byte, size int64,
		err error)
	// RemoveLog makes a log one that was never written to.
	RemoveLog(ctx context.Context, name string) error
}

// Owners knows which owners are alive. buildstest.Owners holds an implementation to this contract.
type Owners interface {
	// Join makes owner count as living until leave is called or its process ends. It is an error
	// that wraps ErrConflict while another one has the name. The context that it returns ends
	// before owner counts as dead for others.
	Join(ctx context.Context, owner string) (tenure context.Context, leave func(), err error)
	// Lives reports whether owner counts as living. An error means that this is not known: its
	// builds stay with it.
	Lives(ctx context.Context, owner string) (bool, error)
}
