package promote

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
)

// MemJournal is a Journal in memory: for tests, and the reference for other implementations.
type MemJournal struct {
	mu      sync.Mutex
	entries []Entry           // in the order of At
	end     uint64            // the newest At
	last    map[string]uint64 // the Seq of each cluster's last entry
	grown   chan struct{}     // closed and replaced by each append
}

var (
	_ Journal = (*MemJournal)(nil)
	_ Trimmer = (*MemJournal)(nil)
)

// NewMemJournal returns an empty journal.
func NewMemJournal() *MemJournal {
	return &MemJournal{last: map[string]uint64{}, grown: make(chan struct{})}
}

// Append implements Journal.
func (j *MemJournal) Append(ctx context.Context, e Entry) (uint64, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if last := j.last[e.Cluster]; e.Seq != last+1 {
		return 0, fmt.Errorf("append entry %d of cluster %q: its last one is %d: %w", e.Seq,
			e.Cluster, last, ErrConflict)
	}
	j.end++
	e.At = j.end
	j.entries = append(j.entries, e)
	j.last[e.Cluster] = e.Seq
	close(j.grown)
	j.grown = make(chan struct{})
	return e.At, nil
}

// Read implements Journal.
func (j *MemJournal) Read(ctx context.Context, after uint64) ([]Entry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	first := sort.Search(len(j.entries), func(i int) bool { return j.entries[i].At > after })
	if first == len(j.entries) {
		return nil, nil
	}
	return slices.Clone(j.entries[first:]), nil
}

// Wait implements Journal.
func (j *MemJournal) Wait(ctx context.Context, after uint64) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		j.mu.Lock()
		end, grown := j.end, j.grown
		j.mu.Unlock()
		if end > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Trim implements Trimmer.
func (j *MemJournal) Trim(ctx context.Context, cluster string, through uint64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if last := j.last[cluster]; through >= last {
		return fmt.Errorf("trim cluster %q through entry %d: its last one is %d: %w", cluster,
			through, last, ErrInvalid)
	}
	j.entries = slices.DeleteFunc(slices.Clone(j.entries), func(e Entry) bool {
		return e.Cluster == cluster && e.Seq <= through
	})
	return nil
}
