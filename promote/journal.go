package promote

import (
	"context"
	"time"
)

// Op is the kind of change to a target.
type Op string

// The operations.
const (
	OpPromote  Op = "promote"  // deploy a version that may not have been there before
	OpRollback Op = "rollback" // deploy a digest again that was there before
	OpRetire   Op = "retire"   // end the target: nothing runs there any more
	OpAdopt    Op = "adopt"    // write down what runs already: see Promoter.Adopt
)

// Kind is the kind of event that an entry of the journal records.
type Kind string

// The kinds of entries. A change is one Started, any number of Resumed, Waiting, Progressed, Aborting
// and Restoring, and one Succeeded or Failed.
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
	// something happened while a change was carried out: see Progress
	Progressed Kind = "progressed"
	// a digest that ran already is current from now on: see Promoter.Adopt
	Adopted Kind = "adopted"
	// something was done that leaves the digest as it is: see Note
	Noted Kind = "noted"
	// older entries of the cluster are in a segment of the archive: see Promoter.Archive
	Checkpoint Kind = "checkpoint"
)

// Entry is one record of the journal. Entries are never changed, and move to an Archive at most.
type Entry struct {
	// At is the place of the entry in the whole journal, above that of every entry that was there
	// before. The journal gives it; it is neither kept in the record nor part of the chain.
	At uint64 `json:"at,omitempty"`
	// Seq numbers the entries of a cluster from 1, without a gap. Entries without a Chain are from
	// before there was one: their Seqs grow, and leave out those of other clusters.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`
	// Op is empty where the entry is not of a change; of a note it is the act, of a Progressed entry
	// what happened.
	Op Op `json:"op,omitempty"`
	// Change is the Seq of the Started entry of the change that this entry belongs to.
	Change uint64 `json:"change,omitempty"`
	// Generation is the fencing token, of the Started, Resumed or Restoring entry that gave the
	// right to act. It is that entry's Seq, or more: one more than the newest of the target. An
	// Adopted entry has one, too, which no deployer has seen.
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
	// of a Started or Adopted entry, which gates were overridden and why; of a Checkpoint, the name
	// of the segment, whose digest is Digest.
	Note string `json:"note,omitempty"`
	// Through and ThroughAt, of a Checkpoint, are Seq and At of the last entry in the segment.
	Through   uint64 `json:"through,omitempty"`
	ThroughAt uint64 `json:"throughAt,omitempty"`
	// Doubt, of a Failed entry, is the reason why the earlier deployment could not be restored. It
	// is empty after a successful restore.
	Doubt string `json:"doubt,omitempty"`
	// Needs is the lowest EntryFormat of a program that understands the entry; 0 stands for 1. A
	// program that is older writes nothing more for the cluster (ErrNewer).
	Needs int `json:"needs,omitempty"`
	// Damage is why the journal cannot read the entry: then only At, Seq and the cluster are set,
	// as far as they are known. No record has it.
	Damage string `json:"damage,omitempty"`
	// Chain is SHA-256 over the Chain of the entry before it in the cluster and the record of this
	// one: see Record. It is the last member of the record.
	Chain string `json:"chain,omitempty"`
}

// Journal is an append-only list of entries for each cluster, with a compare-and-set on its end;
// the empty name is that of the entries for all clusters. journaltest.Run holds an implementation
// to this contract. All methods are safe for concurrent use, and when ctx has ended they return an
// error that wraps the context's cause. An error that another try may mend, as of servers that do
// not answer, wraps ErrUnavailable.
type Journal interface {
	// Append adds e, and returns its place in the whole journal, when the last entry of e's cluster
	// has the Seq before e.Seq (0 for a cluster without entries). Otherwise it adds nothing and
	// returns an error that wraps ErrConflict. When it returns nil the entry survives a crash, as
	// far as the journal survives one at all. An entry that is too large for the journal is
	// ErrTooLarge. After any other error it is uncertain whether e was added.
	Append(ctx context.Context, e Entry) (at uint64, err error)
	// Read returns entries of all clusters with an At above after, in the order of At, so that none
	// with a lower At appears later. It returns every entry whose Append has returned before, or
	// fewer, but at least one if there is one. An entry that it cannot read has a Damage, and does
	// not keep the others from being read. The caller owns the slice.
	Read(ctx context.Context, after uint64) ([]Entry, error)
	// Wait blocks until there is an entry with an At above after, or until ctx ends.
	Wait(ctx context.Context, after uint64) error
}
