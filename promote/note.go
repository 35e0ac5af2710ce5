package promote

import (
	"context"
	"regexp"
	"slices"
)

// Note is something that was done at a target and left the digest there as it was: a restart, or
// another number of instances. Only the journal knows of it; the Promoter does nothing about it.
type Note struct {
	Target
	// Op names the act, such as "restart" or "scale": lower-case letters and "-", up to 32
	// bytes, and none of OpPromote, OpRollback, OpRetire and OpAdopt.
	Op Op
	// Actor is the requester. It must not be empty.
	Actor string
	// Reason may be empty.
	Reason string
	// Error is why it did not succeed, cut to 4096 bytes. Empty stands for an act that succeeded,
	// or that is about to begin: which of them, the embedder decides.
	Error string
}

// changeOps are the operations that a Note may not have.
var changeOps = []Op{OpPromote, OpRollback, OpRetire, OpAdopt}

var noteOp = regexp.MustCompile(`^[a-z]([a-z-]{0,30}[a-z])?$`)

// Note writes a note down, with the version and the digest that are current at the target. It may
// be written while a change of the target is under way.
func (p *Promoter) Note(ctx context.Context, n Note) (err error) {
	defer p.watched("note", &err)()
	err = p.checkTarget(ctx, "note", n.Target, nil, func(list *problems) {
		list.op(n.Op)
		list.texts(n.Actor, n.Reason)
	})
	if err != nil {
		return err
	}
	_, err = p.commit(ctx, func(s *state) (Entry, bool, error) { return s.note(n), true, nil })
	return err
}

// note is the entry for n.
func (s *state) note(n Note) Entry {
	e := Entry{Kind: Noted, Op: n.Op, Target: n.Target, Actor: n.Actor, Reason: n.Reason,
		Error: clip(n.Error, maxText)}
	if now := s.place(n.Target).current; now != nil {
		e.Version, e.Digest, e.Repository = now.Version, now.Digest, now.Repository
	}
	return e
}

// op checks the name of an act.
func (l *problems) op(op Op) {
	if !noteOp.MatchString(string(op)) || slices.Contains(changeOps, op) {
		l.add("op %q: want what was done, in up to 32 lower-case letters and \"-\", and none of %v",
			clip(string(op), 64), changeOps)
	}
}
