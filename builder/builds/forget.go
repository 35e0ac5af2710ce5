package builds

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Ended builds are forgotten in two steps. A Forgotten entry takes them out of the state of every
// process. Then their logs and entries are removed; a crash between the two leaves them to the next
// process that runs.

const (
	forgetAtOnce = 1000        // builds that one entry forgets at most
	forgetEvery  = time.Minute // between two looks for builds that have grown too old
)

// forgettable returns the entry that forgets ended builds: all but the newest keep of them, and
// every one that ended before the time. A build stays while one that it superseded does, whose end
// is read out of its Submitted entry.
func (s *state) forgettable(keep int, before time.Time) (e Entry, ok bool) {
	var ended []*record
	for _, r := range s.order {
		if r.State.Ended() {
			ended = append(ended, r)
		}
	}
	slices.SortFunc(ended, func(a, b *record) int { return cmp.Compare(b.Seq, a.Seq) })
	chosen := map[string]bool{}
	for i, r := range ended {
		if i >= keep || r.Changed.Before(before) {
			chosen[r.ID] = true
		}
	}
	for spared := true; spared; {
		spared = false
		for _, r := range s.order {
			if !chosen[r.ID] && chosen[r.supersedes] {
				delete(chosen, r.supersedes)
				spared = true
			}
		}
	}
	e = Entry{Kind: Forgotten, Before: s.forgot}
	for _, r := range s.order { // oldest first: what is left out superseded nothing that stays
		if chosen[r.ID] && len(e.Builds) < forgetAtOnce {
			e.Builds = append(e.Builds, r.ID)
		}
	}
	return e, len(e.Builds) > 0
}

// forget applies a Forgotten entry.
func (s *state) forget(e Entry) {
	s.forgot = e.Seq
	gone := map[string]bool{}
	for _, id := range e.Builds {
		gone[id] = true
		s.forgotten[id] = e.Seq
		if r := s.builds[id]; r != nil {
			s.oldLogs[r.logName] = e.Seq
		}
		delete(s.builds, id)
	}
	of := func(r *record) bool { return gone[r.ID] }
	s.order, s.open = slices.DeleteFunc(s.order, of), slices.DeleteFunc(s.open, of)
}

// missed reports whether an entry follows a Forgotten one that was removed before this state read
// it: builds of this state may be without their end.
func (s *state) missed(e Entry) bool {
	return e.Kind == Forgotten && e.Before > s.forgot && e.Seq > s.trusted
}

// dropped reports whether an entry is of a build that was forgotten after it.
func (s *state) dropped(e Entry) bool {
	if e.Kind == Forgotten {
		return e.Seq < s.forgot
	}
	return e.Seq < s.forgotten[e.Build]
}

// reread reads the journal from its beginning.
func (b *Builds) reread(ctx context.Context, trusted uint64) (*state, error) {
	s := newState()
	s.trusted = trusted
	for {
		entries, err := b.config.Journal.Read(ctx, s.seq)
		if err != nil || len(entries) == 0 {
			return s, err
		}
		for _, e := range entries {
			if s.missed(e) { // one more was removed meanwhile
				s = newState()
				s.trusted = e.Seq
				break
			}
			s.apply(e)
		}
	}
}

// forgetOld forgets builds as the configuration says, and removes their logs and records.
func (b *Builds) forgetOld(ctx context.Context) error {
	c := b.config
	b.mu.Lock()
	ended := len(b.state.order) - len(b.state.open)
	now := c.Now()
	due := ended > c.KeepEnded+c.KeepEnded/10 || c.KeepFor > 0 && now.Sub(b.looked) >= forgetEvery
	b.mu.Unlock()
	if due {
		b.looked = now
		var before time.Time
		if c.KeepFor > 0 {
			before = now.Add(-c.KeepFor)
		}
		e, ok, err := b.record(ctx, func(s *state) (Entry, bool, error) {
			e, ok := s.forgettable(c.KeepEnded, before)
			return e, ok, nil
		})
		if err != nil {
			return err
		}
		if ok {
			c.Logger.Info("ended builds are forgotten", "builds", len(e.Builds))
		}
	}
	return b.tidy(ctx)
}

// tidy removes the logs and entries of forgotten builds, once for each Forgotten entry.
func (b *Builds) tidy(ctx context.Context) error {
	b.mu.Lock()
	s := b.state
	if s.forgot == b.tidied {
		b.mu.Unlock()
		return nil
	}
	forgot := s.forgot
	rule := &state{forgot: s.forgot, forgotten: maps.Clone(s.forgotten)}
	logs := maps.Clone(s.oldLogs)
	for name := range logs {
		// An id that was used again before logs had names of their own has its old one.
		if r := s.builds[name]; r != nil && r.logName == name {
			delete(logs, name)
		}
	}
	b.mu.Unlock()
	// An id is free as soon as it is forgotten: another process may build under it by now, with a
	// log of another name.
	for name := range logs {
		if err := b.config.Logs.RemoveLog(ctx, name); err != nil {
			return fmt.Errorf("log %s of a forgotten build: %w", name, err)
		}
	}
	if j, ok := b.config.Journal.(Compacter); ok {
		if err := j.Compact(ctx, rule.dropped); err != nil {
			return fmt.Errorf("forgotten builds: %w", err)
		}
	}
	b.tidied = forgot
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, seq := range rule.forgotten {
		if b.state.forgotten[id] == seq {
			delete(b.state.forgotten, id) // nothing of the build is left
		}
	}
	maps.DeleteFunc(b.state.oldLogs, func(name string, seq uint64) bool { return seq <= forgot })
	return nil
}
