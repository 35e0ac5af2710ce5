package vip

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// slowStore takes a minute of a fake clock for a commit.
type slowStore struct {
	Store
	took func(time.Duration)
}

func (slowStore) Exclusive() bool { return true }

func (s slowStore) Commit(ctx context.Context, changes ...Change) (uint64, error) {
	s.took(time.Minute)
	return s.Store.Commit(ctx, changes...)
}

// Each hold of the lock is reported, with the wait before it. The time of the store is in neither:
// the lock is free meanwhile.
func TestObserveShowsTheLock(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sums, counts := map[string]time.Duration{}, map[string]int{}
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	sum := func(op string) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return sums[op]
	}
	p, err := ParsePool("p", "10.0.0.1")
	require.NoError(t, err)
	a, err := Open(t.Context(), Config{
		Store: slowStore{NewMemStore(), pass}, Pools: []Pool{p},
		Now: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		},
		Observe: func(op string, took time.Duration, _ error) {
			mu.Lock()
			defer mu.Unlock()
			sums[op] += took
			counts[op]++
		},
	})
	require.NoError(t, err)
	l, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: "T1"}})
	require.NoError(t, err)
	require.Equal(t, time.Minute, sum("allocate"))
	require.Zero(t, sum("lock hold")+sum("lock wait"))
	require.Equal(t, counts["lock hold"], counts["lock wait"])
	require.NotZero(t, counts["lock hold"])

	a.mu.Lock()
	done := make(chan error, 1)
	go func() {
		_, err := a.Renew(t.Context(), l.ID, 0)
		done <- err
	}()
	for a.mu.state.Load() != awaited {
		runtime.Gosched()
	}
	pass(time.Second)
	a.mu.Unlock()
	require.NoError(t, <-done)
	require.Equal(t, time.Second, sum("lock hold"))
	require.Equal(t, time.Second, sum("lock wait"))
}

// A list of lost leases may be long: the calls of others go on while it is made.
func TestLostNeedsNoLock(t *testing.T) {
	t.Parallel()
	p, err := ParsePool("p", "10.0.0.0/24")
	require.NoError(t, err)
	store := NewMemStore()
	a, err := Open(t.Context(), Config{Store: Shared(store), Pools: []Pool{p}})
	require.NoError(t, err)
	l, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: "T1"}})
	require.NoError(t, err)
	store.records = table[string, *memRecord]{}
	_, err = a.Snapshot(t.Context())
	require.NoError(t, err)

	a.mu.Lock()
	defer a.mu.Unlock()
	lost := make(chan []Lease, 1)
	go func() { lost <- a.Lost() }()
	select {
	case all := <-lost:
		require.Len(t, all, 1)
		require.Equal(t, l.ID, all[0].ID)
	case <-time.After(time.Minute):
		t.Fatal("Lost waits for the lock")
	}
}
