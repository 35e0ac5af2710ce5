package vip

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// MemStore keeps records in memory: for tests, and for a platform that hands out all addresses
// again after every start.
type MemStore struct {
	mu       sync.RWMutex
	records  table[string, *memRecord]
	revision uint64
	changed  chan struct{} // closed at the next commit; nil without a waiter
}

// memRecord is a record in a MemStore: the bytes of its key and of its value, without the words
// that a string and a slice have beside them, so that it takes 32 bytes and not 48.
type memRecord struct {
	key, value         *byte
	keySize, valueSize uint32
	revision           uint64
}

func newMemRecord(key string, value []byte, revision uint64) *memRecord {
	r := &memRecord{key: unsafe.StringData(key), keySize: uint32(len(key))}
	r.set(value, revision)
	return r
}

func (r *memRecord) set(value []byte, revision uint64) {
	r.value, r.valueSize, r.revision = unsafe.SliceData(value), uint32(len(value)), revision
}

func (r *memRecord) tableKey() string { return unsafe.String(r.key, r.keySize) }

func (r *memRecord) record() Record {
	return Record{r.tableKey(), unsafe.Slice(r.value, r.valueSize), r.revision}
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
	for r := range s.records.all {
		if strings.HasPrefix(r.tableKey(), prefix) {
			found = append(found, r.record())
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
		found[i] = Record{Key: key}
		if r := s.records.get(key); r != nil {
			found[i] = r.record()
		}
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
	var some [4]*memRecord
	there := some[:0]
	for _, c := range changes {
		r := s.records.get(c.Key)
		there = append(there, r)
		var have uint64
		if r != nil {
			have = r.revision
		}
		if c.Revision != AnyRevision && have != c.Revision {
			return 0, fmt.Errorf("key %s: has revision %d, expected %d: %w", c.Key, have,
				c.Revision, ErrRevision)
		}
	}
	s.revision++
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	for i, c := range changes {
		switch r := there[i]; {
		case c.Value == nil:
			s.records.remove(c.Key)
		case r != nil:
			r.set(c.Value, s.revision)
		default:
			s.records.put(newMemRecord(c.Key, c.Value, s.revision))
		}
	}
	return s.revision, nil
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
