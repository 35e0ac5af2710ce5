package nginxsync

import (
	"context"
	"slices"
	"sync"
)

// Source supplies snapshots: the instances that serve each cluster. It is pulled: the caller keeps
// the revision that it has and asks for a newer one. sourcetest.Run holds an implementation to the
// contract.
type Source interface {
	// Watch blocks until there is a snapshot whose revision differs from after, and returns the
	// newest one: revisions in between are skipped. An after of 0 returns the current snapshot as
	// soon as there is one. Revisions grow and are never
	// 0. The caller does not change the snapshot. The error is the context's cause when ctx ends.
	Watch(ctx context.Context, after uint64) (Snapshot, uint64, error)
}

// StaticSource is a Source whose snapshot the program sets. It is safe for concurrent use.
type StaticSource struct {
	mu       sync.Mutex
	snapshot Snapshot
	revision uint64
	changed  chan struct{} // closed by the next Set
}

var _ Source = (*StaticSource)(nil)

// NewStaticSource is a source with a first snapshot, of revision 1.
func NewStaticSource(s Snapshot) *StaticSource {
	return &StaticSource{snapshot: s, revision: 1, changed: make(chan struct{})}
}

// Set makes s the current snapshot and returns its revision. The caller does not change s any more.
// Intents of earlier snapshots go on to be supplied until they are given again: a watcher may skip
// the snapshot that they came with. The agent knows which are used up and which have ended.
func (s *StaticSource) Set(snapshot Snapshot) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var planned []Intent
	for _, in := range snapshot.Planned {
		in.serial = s.revision + 1
		planned = append(planned, in)
	}
	for _, in := range s.snapshot.Planned {
		if !slices.ContainsFunc(planned, func(p Intent) bool {
			return p.VIP == in.VIP && p.Cluster == in.Cluster && p.By == in.By
		}) {
			planned = append(planned, in)
		}
	}
	snapshot.Planned = planned
	s.snapshot = snapshot
	s.revision++
	close(s.changed)
	s.changed = make(chan struct{})
	return s.revision
}

// Watch implements Source.
func (s *StaticSource) Watch(ctx context.Context, after uint64) (Snapshot, uint64, error) {
	for {
		if ctx.Err() != nil {
			return Snapshot{}, 0, context.Cause(ctx)
		}
		s.mu.Lock()
		snapshot, revision, changed := s.snapshot, s.revision, s.changed
		s.mu.Unlock()
		if revision != after {
			return snapshot, revision, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}
