package vip_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func TestSharedSeesOthers(t *testing.T) {
	t.Parallel()
	c, store := newClock(), vip.Shared(vip.NewMemStore())
	p := pool(t, "p", "10.0.0.1-10.0.0.2")
	p.CoolDown, p.Quotas = -1, map[string]int{"team": 1}
	cfg := vip.Config{Refresh: 5 * time.Second}
	a, b := allocator(t, store, c, cfg, p), allocator(t, store, c, cfg, p)
	team := func(task string) vip.Request {
		return vip.Request{Owner: vip.Owner{Task: task, Team: "team"}}
	}

	l := allocate(t, a, team("T1"))
	require.Equal(t, l, allocate(t, b, team("T1")), "the same owner")
	_, err := b.Allocate(t.Context(), team("T2"))
	require.ErrorIs(t, err, vip.ErrQuota)
	release(t, a, l)
	c.Add(time.Second)
	allocate(t, b, team("T2"))

	from := a.Revision()
	require.Empty(t, a.List(vip.Query{Task: "T2", States: []vip.State{vip.Leased, vip.Draining}}),
		"not yet")
	c.Add(5 * time.Second)
	require.NoError(t, a.Sweep(t.Context()))
	require.Len(t, a.List(vip.Query{Task: "T2", States: []vip.State{vip.Leased, vip.Draining}}), 1)
	events, err := a.Watch(t.Context(), from)
	require.NoError(t, err)
	require.Equal(t, vip.Allocated, events[len(events)-1].Kind)
	require.Equal(t, conserved(t, a), conserved(t, b))
}

// Only a store that says so is one allocator's: one that counts calls, say, is not by mistake.
func TestStoreIsSharedUnlessItSaysOtherwise(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.1-10.0.0.2")
	for what, test := range map[string]struct {
		wrap   func(*hooked) vip.Store
		shared bool
	}{
		"exclusive":                {func(h *hooked) vip.Store { return exclusive{h, true} }, false},
		"exclusive, and it is not": {func(h *hooked) vip.Store { return exclusive{h, false} }, true},
		"wrapped":                  {func(h *hooked) vip.Store { return h }, true},
		"exclusive, for several": {func(h *hooked) vip.Store {
			return vip.Shared(exclusive{h, true})
		}, true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c, inner := newClock(), &hooked{Store: vip.NewMemStore()}
			store := test.wrap(inner)
			a, b := allocator(t, store, c, vip.Config{}, p), allocator(t, store, c, vip.Config{}, p)
			was := inner.reads.Load()
			one := allocate(t, a, vip.Request{Owner: owner("T")})
			if !test.shared {
				require.Equal(t, was, inner.reads.Load(), "nothing is read")
				return
			}
			require.Greater(t, inner.reads.Load(), was)
			require.Equal(t, one, allocate(t, b, vip.Request{Owner: owner("T")}))
		})
	}
	require.Implements(t, (*vip.ExclusiveStore)(nil), vip.NewMemStore())
	require.Implements(t, (*vip.Watcher)(nil), vip.Shared(vip.NewMemStore()))
	require.NotImplements(t, (*vip.ExclusiveStore)(nil), vip.Shared(vip.NewMemStore()))
	require.NotImplements(t, (*vip.Watcher)(nil), vip.Shared(&hooked{}))
}

// exclusive is a store that says whether it is one allocator's.
type exclusive struct {
	vip.Store
	is bool
}

func (e exclusive) Exclusive() bool { return e.is }

// The changes that SetPools is the first to see become events like all others: the changes of other
// allocators, and the end of a cool-down.
func TestSetPoolsTellsWhatItSees(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.1-10.0.0.3")
	a := allocator(t, vip.Shared(store), c, vip.Config{}, p)
	release(t, a, allocate(t, a, vip.Request{Owner: owner("cooling")}))
	mine := allocate(t, a, vip.Request{Owner: owner("mine")})
	b := allocator(t, vip.Shared(store), c, vip.Config{}, p)
	from := a.Revision()
	allocate(t, b, vip.Request{Owner: owner("other")})
	release(t, b, mine)
	c.Add(vip.DefaultCoolDown)
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
	events, err := a.Watch(t.Context(), from)
	require.NoError(t, err)
	told := map[string]vip.EventKind{}
	for _, e := range events {
		told[e.Lease().Owner.Task] = e.Kind
	}
	require.Equal(t, map[string]vip.EventKind{"cooling": vip.BecameFree, "mine": vip.Ended,
		"other": vip.Allocated}, told)
}

// The changes that its new pools make to an address become events like the changes of others, also
// for an address that is no longer in a pool.
func TestSetPoolsTellsWhatItDoes(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.1-10.0.0.3")
	a := allocator(t, vip.Shared(store), c, vip.Config{}, p)
	mine := allocate(t, a, vip.Request{Owner: owner("mine")})
	for _, task := range []string{"cooling", "aside"} {
		release(t, a, allocate(t, a, vip.Request{Owner: owner(task)}))
	}
	_, err := a.Quarantine(t.Context(), addr("10.0.0.3"), "", 0)
	require.NoError(t, err)
	from := a.Revision()
	p.CoolDown = -1
	release(t, allocator(t, vip.Shared(store), c, vip.Config{}, p), mine)
	p.Ranges[0].First = addr("10.0.0.2")
	for range 2 {
		require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
	}
	require.NotEqual(t, from, a.Revision())
	events, err := a.Watch(t.Context(), from)
	require.NoError(t, err)
	told := map[string]vip.EventKind{}
	for _, e := range events {
		told[e.Lease().Owner.Task] = e.Kind
	}
	require.Equal(t, map[string]vip.EventKind{"mine": vip.Ended, "cooling": vip.BecameFree}, told)
	require.Len(t, events, 2)
}

// Two that ask two allocators for the last address: the one that does not get it learns that there
// is none.
func TestSharedRunOutTogether(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.1")
	a, b := allocator(t, vip.Shared(store), c, vip.Config{}, p),
		allocator(t, vip.Shared(store), c, vip.Config{}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	_, err := b.Allocate(t.Context(), vip.Request{Owner: owner("T2")})
	require.ErrorIs(t, err, vip.ErrExhausted)
	release(t, a, l)
	c.Add(vip.DefaultCoolDown)
	require.NotEqual(t, l.ID, allocate(t, b, vip.Request{Owner: owner("T2")}).ID)
	_, err = a.Renew(t.Context(), l.ID, 0)
	require.ErrorIs(t, err, vip.ErrFenced)
}

// The records of owners go with the last address that they had.
func TestForgottenOwners(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.1")
	p.CoolDown = -1
	a := allocator(t, vip.Shared(store), c, vip.Config{}, p)
	owners := func() []string {
		records, err := store.List(t.Context(), "owner/")
		require.NoError(t, err)
		var all []string
		for _, r := range records {
			all = append(all, r.Key)
		}
		return all
	}
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T2")}))
	allocate(t, a, vip.Request{Owner: owner("T3")})
	require.NoError(t, a.Sweep(t.Context()))
	require.Equal(t, []string{"owner/T3"}, owners())
}

// A damaged record of an owner stops no call: its task is still one owner, and the next allocation
// rebuilds the record.
func TestDamagedOwnerRecord(t *testing.T) {
	t.Parallel()
	c, store := newClock(), vip.Shared(vip.NewMemStore())
	p := pool(t, "p", "10.0.0.1-10.0.0.9")
	a := allocator(t, store, c, vip.Config{}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	damage := func() {
		_, err := store.Commit(t.Context(), vip.Change{Key: "owner/T1", Value: []byte("10.0.0.\n"),
			Revision: vip.AnyRevision})
		require.NoError(t, err)
	}
	damage()
	b := allocator(t, store, c, vip.Config{}, p)
	require.Equal(t, l.ID, allocate(t, b, vip.Request{Owner: owner("T1")}).ID)
	release(t, b, l)
	again := allocate(t, a, vip.Request{Owner: owner("T1")})
	require.NotEqual(t, l.ID, again.ID)
	records, err := store.Get(t.Context(), "owner/T1")
	require.NoError(t, err)
	require.Contains(t, string(records[0].Value), again.Addr.String()+"\n")
}

// A store that was restored from a backup has lost the later changes. The leases acknowledged since
// then are fenced; an id of then is not given again.
func TestStoreThatIsPutBack(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), &rewound{Store: vip.NewMemStore()}, pool(t, "p", "10.0.0.1-10.0.0.2")
	a := allocator(t, vip.Shared(store), c, vip.Config{}, p)
	kept := allocate(t, a, vip.Request{Owner: owner("T1")})
	store.backUp(t)
	lost := allocate(t, a, vip.Request{Owner: owner("T2")})
	store.putBack(t)

	c.Add(time.Second)
	got := allocate(t, a, vip.Request{Owner: owner("T3")})
	require.Equal(t, lost.Addr, got.Addr)
	_, err := a.Release(t.Context(), lost.ID, "")
	require.ErrorIs(t, err, vip.ErrFenced)
	_, err = a.Renew(t.Context(), kept.ID, 0)
	require.NoError(t, err)

	store.putBack(t)
	from := a.Revision()
	c.Add(time.Minute)
	require.NoError(t, a.Sweep(t.Context()))
	events, err := a.Watch(t.Context(), from)
	require.NoError(t, err)
	last := events[len(events)-1]
	require.Equal(t, []any{vip.Ended, got.ID}, []any{last.Kind, last.Lease().ID})
	conserved(t, a)
	require.Len(t, a.List(vip.Query{}), 1)
}

// rewound is a store that can be restored; its revisions go on growing.
type rewound struct {
	vip.Store
	backup []vip.Record
}

func (r *rewound) backUp(t *testing.T) {
	var err error
	r.backup, err = r.List(t.Context(), "")
	require.NoError(t, err)
}

func (r *rewound) putBack(t *testing.T) {
	now, err := r.List(t.Context(), "")
	require.NoError(t, err)
	var changes []vip.Change
	for _, rec := range now {
		changes = append(changes, vip.Change{Key: rec.Key, Revision: vip.AnyRevision})
	}
	_, err = r.Commit(t.Context(), changes...)
	require.NoError(t, err)
	for _, rec := range r.backup {
		_, err = r.Commit(t.Context(), vip.Change{Key: rec.Key, Value: rec.Value})
		require.NoError(t, err)
	}
}

// Two allocators end the same expired leases. One that comes second ends the rest of its batch in
// the next sweep.
func TestConflictEndsLeaseOnce(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), onceEach{vip.NewMemStore()}, pool(t, "p", "10.0.0.1-10.0.0.2")
	a := allocator(t, store, c, vip.Config{Grace: time.Minute}, p)
	one, two := allocate(t, a, vip.Request{Owner: owner("T1"), TTL: time.Hour}),
		allocate(t, a, vip.Request{Owner: owner("T2"), TTL: time.Hour})
	b := allocator(t, store, c, vip.Config{Grace: time.Minute}, p)
	c.Add(time.Hour + time.Minute)
	release(t, b, one)
	require.NoError(t, a.Sweep(t.Context()))
	from := a.Revision()
	require.NoError(t, a.Sweep(t.Context()))
	require.Empty(t, a.List(vip.Query{States: []vip.State{vip.Leased}}))
	events, err := a.Watch(t.Context(), from)
	require.NoError(t, err)
	require.Len(t, events, 1)
	require.Equal(t, []any{vip.Ended, two.ID}, []any{events[0].Kind, events[0].Lease().ID})
}

// onceEach is a store that, as Consul does, finds another revision when a commit changes a key a
// second time.
type onceEach struct{ vip.Store }

func (onceEach) Exclusive() bool { return true }

func (s onceEach) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	seen := map[string]bool{}
	for _, c := range changes {
		if seen[c.Key] {
			return 0, fmt.Errorf("key %s: %w", c.Key, vip.ErrRevision)
		}
		seen[c.Key] = true
	}
	return s.Store.Commit(ctx, changes...)
}

// Two allocators that have not been given the same pools yet are still one for a task.
func TestOneOwnerWhileAPoolIsAdded(t *testing.T) {
	t.Parallel()
	c, store := newClock(), vip.NewMemStore()
	p, q := pool(t, "p", "10.0.0.1"), pool(t, "q", "10.0.1.1")
	older, newer := allocator(t, vip.Shared(store), c, vip.Config{}, p),
		allocator(t, vip.Shared(store), c, vip.Config{}, p, q)
	l := allocate(t, newer, vip.Request{Owner: owner("T"), Pool: "q"})
	require.Equal(t, l, allocate(t, older, vip.Request{Owner: owner("T")}))
	conserved(t, older)
	release(t, older, l)
	conserved(t, older)
	_, err := newer.Renew(t.Context(), l.ID, 0)
	require.ErrorIs(t, err, vip.ErrFenced)
}

// afterGet is a store that calls then, once, after it has read a key.
type afterGet struct {
	vip.Store
	key  string
	then func()
}

func (s *afterGet) Get(ctx context.Context, keys ...string) ([]vip.Record, error) {
	found, err := s.Store.Get(ctx, keys...)
	if then := s.then; then != nil && slices.Contains(keys, s.key) {
		s.then = nil
		then()
	}
	return found, err
}

// While an allocator reads the addresses of a task, the task moves to another one, of which this
// allocator hears at once: it must not take the task for the holder of both.
func TestSharedOwnerMovesWhileRead(t *testing.T) {
	t.Parallel()
	c, cfg := newClock(), vip.Config{Refresh: time.Hour}
	p := pool(t, "p", "10.0.0.1-10.0.0.3")
	store := &afterGet{Store: vip.NewMemStore(), key: "addr/10.0.0.1"}
	a, other := allocator(t, store, c, cfg, p), allocator(t, vip.Shared(store.Store), c, cfg, p)
	first := allocate(t, a, vip.Request{Owner: owner("T")})
	require.Equal(t, "10.0.0.1", first.Addr.String())
	var second vip.Lease
	store.then = func() {
		release(t, other, first)
		second = allocate(t, other, vip.Request{Owner: owner("T"), Addr: addr("10.0.0.2")})
		_, err := a.Get(t.Context(), second.ID)
		require.NoError(t, err)
	}
	require.Equal(t, second.ID, allocate(t, a, vip.Request{Owner: owner("T")}).ID)
}

// An allocator that follows the store reads it when another has changed something, and goes on when
// the store did not answer for a while.
func TestFollow(t *testing.T) {
	t.Parallel()
	store := &watched{MemStore: vip.NewMemStore()}
	p := pool(t, "p", "10.0.0.0/28")
	var both []*vip.Allocator
	for range 2 {
		a, err := vip.Open(t.Context(), vip.Config{Store: vip.Shared(store), Pools: []vip.Pool{p},
			Refresh: time.Hour})
		require.NoError(t, err)
		both = append(both, a)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = both[0].Run(ctx) })
	sees := func(n int) {
		require.Eventually(t, func() bool {
			return len(both[0].List(vip.Query{})) == n
		}, time.Minute, time.Millisecond)
	}
	allocate(t, both[1], vip.Request{Owner: owner("T1")})
	sees(1)
	store.fail(errors.New("no leader"))
	allocate(t, both[1], vip.Request{Owner: owner("T2")})
	require.Eventually(t, func() bool {
		return store.failures() > 0
	}, time.Minute, time.Millisecond)
	store.fail(nil)
	sees(2)
	stop()
	wg.Wait()
}

// watched is a store whose Watch fails when told to.
type watched struct {
	*vip.MemStore
	mu     sync.Mutex
	err    error
	failed int
}

func (s *watched) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *watched) failures() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *watched) Watch(ctx context.Context, after uint64, prefix string) (uint64, error) {
	now, err := s.MemStore.Watch(ctx, after, prefix)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		s.failed++
		return 0, s.err
	}
	return now, err
}
