package nginxsync

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Merge returns a source of all that the sources supply, such as a baseline out of a registry and
// overlays out of leases. Instances of one cluster in one scope that several sources name serve
// together, in the order of the sources. Of several scopes of one VIP, and of several VIPs of one
// task, the last source's counts. Pools and plans are those of all. There is no snapshot before
// each source has supplied one: the routes of a silent source are not known, and are not empty. A
// source that fails later keeps its last snapshot in the result while the others go on; its error
// is returned once after each snapshot.
func Merge(sources ...Source) Source {
	return &merged{parts: make([]part, len(sources)), sources: sources,
		changed: make(chan struct{})}
}

type merged struct {
	sources []Source

	mu       sync.Mutex
	parts    []part
	revision uint64
	snapshot Snapshot
	changed  chan struct{} // closed with each revision
}

// part is the last snapshot of one source.
type part struct {
	snapshot Snapshot
	revision uint64 // of the source; 0 before the first
}

// Watch implements Source.
func (m *merged) Watch(ctx context.Context, after uint64) (Snapshot, uint64, error) {
	if ctx.Err() != nil {
		return Snapshot{}, 0, context.Cause(ctx)
	}
	own, stop := context.WithCancel(ctx)
	failed := make(chan error)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for i, source := range m.sources {
		wg.Go(func() { m.follow(own, i, source, failed) })
	}
	for {
		m.mu.Lock()
		snapshot, revision, changed := m.snapshot, m.revision, m.changed
		m.mu.Unlock()
		if revision != 0 && revision != after {
			return snapshot, revision, nil
		}
		select {
		case <-changed:
		case err := <-failed:
			return Snapshot{}, 0, err
		case <-ctx.Done():
			return Snapshot{}, 0, context.Cause(ctx)
		}
	}
}

// follow waits for the snapshots of one source, and reports its first error.
func (m *merged) follow(ctx context.Context, i int, source Source, failed chan<- error) {
	tries := retry.Backoff{}
	told := false
	for {
		m.mu.Lock()
		after := m.parts[i].revision
		m.mu.Unlock()
		snapshot, revision, err := source.Watch(ctx, after)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			m.take(i, snapshot, revision)
			continue
		case !told:
			told = true
			select {
			case failed <- err:
			case <-ctx.Done():
				return
			}
		}
		if retry.Sleep(ctx, tries.Next(50*time.Millisecond, 5*time.Second)) != nil {
			return
		}
	}
}

// take puts the snapshot of one source into the whole.
func (m *merged) take(i int, snapshot Snapshot, revision uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.parts[i].revision == revision {
		return // another watcher was first
	}
	m.parts[i] = part{snapshot, revision}
	var out Snapshot
	for _, p := range m.parts {
		if p.revision == 0 {
			return
		}
		out.Baseline = join(out.Baseline, p.snapshot.Baseline)
		out.Overlays = joinAll(out.Overlays, p.snapshot.Overlays)
		out.Branches = joinAll(out.Branches, p.snapshot.Branches)
		if out.Scopes == nil && len(p.snapshot.Scopes) > 0 {
			out.Scopes = make(map[netip.Addr]Scope, len(p.snapshot.Scopes))
		}
		maps.Copy(out.Scopes, p.snapshot.Scopes)
		out.Pools = append(out.Pools, p.snapshot.Pools...)
		if out.Tasks == nil && len(p.snapshot.Tasks) > 0 {
			out.Tasks = make(map[string]netip.Addr, len(p.snapshot.Tasks))
		}
		maps.Copy(out.Tasks, p.snapshot.Tasks)
		out.Planned = append(out.Planned, p.snapshot.Planned...)
	}
	m.snapshot = out
	m.revision++
	close(m.changed)
	m.changed = make(chan struct{})
}

// joinAll is all scopes of two snapshots. The map of a scope that only one of them has is shared:
// an agent does not look through a map that it knows from the snapshot before.
func joinAll[K comparable](a, b map[K]map[string][]Instance) map[K]map[string][]Instance {
	if len(a) == 0 || len(b) == 0 {
		return either(a, b)
	}
	out := maps.Clone(a)
	for name, clusters := range b {
		out[name] = join(out[name], clusters)
	}
	return out
}

// join is all instances of two scopes; maps and lists that are the only ones are shared.
func join(a, b map[string][]Instance) map[string][]Instance {
	if len(a) == 0 || len(b) == 0 {
		return either(a, b)
	}
	out := maps.Clone(a)
	for cluster, list := range b {
		if have := out[cluster]; len(have) > 0 {
			list = slices.Concat(have, list)
		}
		out[cluster] = list
	}
	return out
}

func either[K comparable, V any](a, b map[K]V) map[K]V {
	if len(a) > 0 || b == nil {
		return a
	}
	return b
}
