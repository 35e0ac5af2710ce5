package promote

import (
	"context"
	"fmt"
)

// Progress is something that happened while a change was carried out: a step of a grey release, a
// pause, the verdict of a check, the way back. rollout.Event.Progress makes one.
type Progress struct {
	Target
	// Generation is the generation that the deployer works under. It says which change is meant.
	Generation uint64
	// Op names the event, as the Op of a Note does: "switched", "paused".
	Op Op
	// Detail is for a person, such as a share. It may be empty.
	Detail string
	// Error is why it happened, cut to 4096 bytes. It may be empty.
	Error string
}

// Progress writes p into the journal, as an entry of the change that is under way at the target
// with that generation, so that Events has it. It reports whether it did: where no such change is
// under way, because it has ended, was taken over, or was never one of this journal, it writes
// nothing. A Deployer may call it while it is at work; each call is one append.
func (p *Promoter) Progress(ctx context.Context, r Progress) (written bool, err error) {
	defer p.watched("progress", &err)()
	var list problems
	list.op(r.Op)
	list.reason("detail", r.Detail)
	if err := list.err("progress"); err != nil {
		return false, err
	}
	e, err := p.commit(ctx, func(s *state) (Entry, bool, error) {
		e, ok := s.progress(r)
		return e, ok, nil
	})
	return e.Kind == Progressed, err
}

// progress is the entry for r; ok is false when its change is not under way.
func (s *state) progress(r Progress) (e Entry, ok bool) {
	open := s.place(r.Target).open
	if open == nil || open.Generation != r.Generation {
		return Entry{}, false
	}
	e = Entry{Kind: Progressed, Op: r.Op, Change: open.Change, Generation: open.Generation,
		Target: r.Target, Version: open.Version, Digest: open.Digest, Repository: open.Repository,
		Actor: open.Actor, Reason: r.Detail, Error: clip(r.Error, maxText),
		Needs: formatProgressed}
	return e, true
}

// Events returns all entries of a change, oldest first: its start, its progress and its end. An ID
// that no change has is ErrNotFound.
func (p *Promoter) Events(ctx context.Context, id ChangeID) (list []Entry, err error) {
	cluster, number, err := id.parse()
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	viewErr := p.view(ctx, func(s *state) {
		for _, e := range s.entriesOf(cluster, number) {
			if e.Change == number {
				list = append(list, e)
			}
		}
	})
	if viewErr == nil && len(list) == 0 {
		err = fmt.Errorf("change %s-%d: %w", cluster, number, ErrNotFound)
	}
	if viewErr != nil {
		err = viewErr
	}
	return list, err
}
