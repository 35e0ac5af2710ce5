package vip

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// MemStore keeps records in memory: for tests, and for a platform that hands out all addresses
// again after every start.
type MemStore struct {
	mu       sync.RWMutex
	records  table[string, *memRecord]
	past     int // records of the past that are in the table: see memRecord
	revision uint64
	changed  chan struct{} // closed at the next commit; nil without a waiter
}

var _ Watcher = (*MemStore)(nil)

// NewMemStore returns an empty store.
func NewMemStore() *MemStore { return &MemStore{} }

// Exclusive implements ExclusiveStore: a MemStore is one allocator's. See Shared.
func (*MemStore) Exclusive() bool { return true }

// List implements Store.
func (s *MemStore) List(ctx context.Context, prefix string) ([]Record, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []Record
	inPast := strings.HasPrefix(prefix, historyPrefix) || strings.HasPrefix(historyPrefix, prefix)
	for r := range s.records.all {
		if strings.HasPrefix(r.tableKey(), prefix) {
			found = append(found, r.record())
		}
		if inPast {
			found = r.appendPast(found, prefix)
		}
	}
	slices.SortFunc(found, func(a, b Record) int { return cmp.Compare(a.Key, b.Key) })
	return found, nil
}

// Get implements Store.
func (s *MemStore) Get(ctx context.Context, keys ...string) ([]Record, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	found := make([]Record, len(keys))
	for i, key := range keys {
		found[i] = s.find(key).record()
		found[i].Key = key
	}
	return found, nil
}

// Commit implements Store.
func (s *MemStore) Commit(ctx context.Context, changes ...Change) (uint64, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var some [4]memPlace
	there := some[:0]
	for i := range changes {
		c := &changes[i]
		at := s.find(c.Key)
		there = append(there, at)
		if have := at.record().Revision; c.Revision != AnyRevision && have != c.Revision {
			return 0, unexpected(c.Key, have, c.Revision)
		}
	}
	s.advance()
	for i, c := range changes {
		switch at := there[i]; {
		case at.record().Revision == 0:
			if c.Value != nil {
				s.put(c.Key, c.Value)
			}
		case at.slot != nil:
			at.slot.set(c.Value, s.revision)
		case c.Value != nil:
			at.r.set(c.Value, s.revision)
		}
	}
	for i, c := range changes { // after the past of the addresses
		if at := there[i]; c.Value == nil && at.r != nil && at.slot == nil {
			s.remove(at.r)
		}
	}
	return s.revision, nil
}

// commitSteps is Commit for the steps of a commit that forgets no address and has no further
// changes. It finds the records by the entries, without a look at their keys.
func (s *MemStore) commitSteps(ctx context.Context, steps []step) (uint64, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range steps {
		e := steps[i].e
		if e.stored == nil || e.stored.revision == 0 {
			e.stored = s.records.get(e.key())
		}
		var have uint64
		if e.stored != nil {
			have = e.stored.revision
		}
		if have != e.rev {
			return 0, unexpected(e.key(), have, e.rev)
		}
	}
	s.advance()
	for i := range steps {
		step := &steps[i]
		if e := step.e; e.stored == nil {
			e.stored = s.put(e.key(), step.record)
		} else {
			e.stored.set(step.record, s.revision)
		}
		if step.past != nil {
			s.setPast(step.e, step.pastSlot, step.past)
		}
	}
	return s.revision, nil
}

func unexpected(key string, have, want uint64) error {
	return fmt.Errorf("key %s: has revision %d, expected %d: %w", key, have, want, ErrRevision)
}

// advance begins a new revision.
func (s *MemStore) advance() {
	s.revision++
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Watch implements Watcher. It reports every commit, with any keys.
func (s *MemStore) Watch(ctx context.Context, after uint64, _ string) (uint64, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		s.mu.Lock()
		revision := s.revision + 1 // never 0
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		if revision != after {
			return revision, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}
