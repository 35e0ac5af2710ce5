package builds

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/sluice-deploy/sluice/builder"
)

// Memory is a Journal, Logs and Owners in memory: for tests, and the reference for other
// implementations.
type Memory struct {
	mu      sync.Mutex
	entries []Entry
	grown   chan struct{} // closed and replaced by each append
	logs    map[string][]byte
	owners  map[string]bool
}

var (
	_ Journal   = (*Memory)(nil)
	_ Compacter = (*Memory)(nil)
	_ Logs      = (*Memory)(nil)
	_ Owners    = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{grown: make(chan struct{}), logs: map[string][]byte{}, owners: map[string]bool{}}
}

// Append implements Journal.
func (m *Memory) Append(ctx context.Context, after uint64, e Entry) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := m.last(); last != after {
		return fmt.Errorf("append after entry %d: the last entry is %d: %w", after, last,
			ErrConflict)
	}
	if e.Seq != after+1 {
		return fmt.Errorf("append after entry %d: the entry has number %d: %w", after, e.Seq,
			builder.ErrInvalid)
	}
	m.entries = append(m.entries, e)
	close(m.grown)
	m.grown = make(chan struct{})
	return nil
}

// Read implements Journal.
func (m *Memory) Read(ctx context.Context, after uint64) ([]Entry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, _ := slices.BinarySearchFunc(m.entries, after, func(e Entry, after uint64) int {
		return cmp.Compare(e.Seq, after+1)
	})
	return slices.Clone(m.entries[i:]), nil
}

// last is the number of the last entry.
func (m *Memory) last() uint64 {
	if len(m.entries) == 0 {
		return 0
	}
	return m.entries[len(m.entries)-1].Seq
}

// Compact implements Compacter.
func (m *Memory) Compact(ctx context.Context, drop func(Entry) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.last()
	m.entries = slices.DeleteFunc(slices.Clone(m.entries), func(e Entry) bool {
		return e.Seq != last && e.Kind != Damaged && drop(e)
	})
	return nil
}

// Wait implements Journal.
func (m *Memory) Wait(ctx context.Context, after uint64) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m.mu.Lock()
		n, grown := m.last(), m.grown
		m.mu.Unlock()
		if n > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
		}
	}
}

// AppendLog implements Logs.
func (m *Memory) AppendLog(ctx context.Context, name string, offset int64, data []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := int64(len(m.logs[name])); n != offset {
		return fmt.Errorf("append to the log %s at %d: it has %d bytes: %w", name, offset, n,
			ErrConflict)
	}
	m.logs[name] = append(m.logs[name], data...)
	return nil
}

// ReadLog implements Logs.
func (m *Memory) ReadLog(ctx context.Context, name string, offset int64, limit int) ([]byte, int64,
	error) {
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	log := m.logs[name]
	from := min(offset, int64(len(log)))
	return slices.Clone(log[from:min(from+int64(limit), int64(len(log)))]), int64(len(log)), nil
}

// RemoveLog implements Logs.
func (m *Memory) RemoveLog(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.logs, name)
	return nil
}

// Join implements Owners.
func (m *Memory) Join(ctx context.Context, owner string) (context.Context, func(), error) {
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.owners[owner] {
		return nil, nil, fmt.Errorf("owner %s lives already: %w", owner, ErrConflict)
	}
	m.owners[owner] = true
	tenure, end := context.WithCancelCause(context.Background())
	return tenure, sync.OnceFunc(func() {
		end(fmt.Errorf("owner %s has left: %w", owner, ErrFenced))
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.owners, owner)
	}), nil
}

// Lives implements Owners.
func (m *Memory) Lives(ctx context.Context, owner string) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.owners[owner], nil
}
