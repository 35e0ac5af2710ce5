package promote

import (
	"bytes"
	"context"
	"fmt"
	"sync"
)

// MemArchive is an Archive in memory: for tests, and the reference for other implementations.
type MemArchive struct {
	mu       sync.Mutex
	segments map[string][]byte
}

var _ Archive = (*MemArchive)(nil)

// NewMemArchive returns an Archive without a segment.
func NewMemArchive() *MemArchive { return &MemArchive{segments: map[string][]byte{}} }

// Put implements Archive.
func (a *MemArchive) Put(ctx context.Context, name string, segment []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.segments[name] = bytes.Clone(segment)
	return nil
}

// Get implements Archive.
func (a *MemArchive) Get(ctx context.Context, name string) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	segment, found := a.segments[name]
	if !found {
		return nil, fmt.Errorf("segment %s: %w", name, ErrNotFound)
	}
	return bytes.Clone(segment), nil
}
