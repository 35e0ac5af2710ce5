package platform

import (
	"context"
	"sync"
)

// Events signals that something changed, so that pages can look again. The zero value is ready to
// use; it is safe for concurrent use.
type Events struct {
	mu       sync.Mutex
	revision uint64
	changed  chan struct{} // closed and replaced at every change
}

// Bump says that something changed.
func (e *Events) Bump() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revision++
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

// Revision counts the changes so far.
func (e *Events) Revision() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.revision
}

// Wait returns the revision as soon as it differs from seen, or ctx's error. Start with 0.
func (e *Events) Wait(ctx context.Context, seen uint64) (uint64, error) {
	for {
		e.mu.Lock()
		revision := e.revision
		if e.changed == nil {
			e.changed = make(chan struct{})
		}
		changed := e.changed
		e.mu.Unlock()
		if revision != seen {
			return revision, nil
		}
		select {
		case <-ctx.Done():
			return seen, context.Cause(ctx)
		case <-changed:
		}
	}
}
