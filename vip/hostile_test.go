package vip_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// A store that breaks its contract, and uses the memory of its results again, costs addresses. It
// gives none away.
func TestStoreChangesReturnedValue(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), &reusing{Store: vip.NewMemStore()}, pool(t, "p", "10.0.0.1")
	held := allocate(t, allocator(t, store, c, vip.Config{}, p), vip.Request{Owner: owner("A"),
		TTL: vip.Forever})
	a := allocator(t, store, c, vip.Config{}, p)
	_, err := a.History(t.Context(), held.Addr)
	require.NoError(t, err)

	_, err = a.Renew(t.Context(), held.ID, 0)
	require.Error(t, err)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("B")})
	require.ErrorIs(t, err, vip.ErrExhausted)
}

// reusing is a store whose lists last until the next one.
type reusing struct {
	vip.Store
	returned []vip.Record
}

func (*reusing) Exclusive() bool { return true }

func (r *reusing) List(ctx context.Context, prefix string) ([]vip.Record, error) {
	found, err := r.Store.List(ctx, prefix)
	for _, old := range r.returned {
		clear(old.Value)
	}
	for i := range found {
		found[i].Value = bytes.Clone(found[i].Value)
	}
	r.returned = found
	return found, err
}

// While a free address is read again because of a late call, an allocation that could get it waits,
// one of another pool does not, and one that queues stands in the queue.
func TestAllocationDuringAReReading(t *testing.T) {
	t.Parallel()
	c, store := newClock(), &stopping{Store: vip.NewMemStore(), reached: make(chan struct{}),
		on: make(chan struct{})}
	p, q := pool(t, "p", "10.0.0.1"), pool(t, "q", "10.0.0.2")
	p.CoolDown = -1
	a := allocator(t, store, c, vip.Config{History: -1}, p, q)
	allocate(t, a, vip.Request{Owner: owner("Q"), Pool: "q"})
	l := allocate(t, a, vip.Request{Owner: owner("A"), Pool: "p"})
	_, err := a.Release(t.Context(), l.ID, "")
	require.NoError(t, err)
	// as if restored to before it
	_, err = store.Commit(t.Context(), vip.Change{Key: "addr/10.0.0.1", Revision: vip.AnyRevision})
	require.NoError(t, err)

	late := make(chan error)
	store.stopAt = 2 // the first asks, the second reads again
	go func() {
		_, err := a.Get(t.Context(), "10.0.0.1-7-aaaaa")
		late <- err
	}()
	<-store.reached
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("C"), Pool: "q"})
	require.ErrorIs(t, err, vip.ErrExhausted)
	ctx, cancel := context.WithCancel(t.Context())
	queued := make(chan error)
	go func() {
		_, err := a.Allocate(ctx, vip.Request{Owner: owner("D"), Pool: "p", Wait: true})
		queued <- err
	}()
	require.Eventually(t, func() bool {
		return len(a.Waiting()) == 1
	}, time.Minute, time.Millisecond)
	cancel()
	err = <-queued
	require.ErrorIs(t, err, vip.ErrExhausted)
	require.ErrorIs(t, err, context.Canceled)

	got := make(chan vip.Lease)
	go func() {
		l, _ := a.Allocate(t.Context(), vip.Request{Owner: owner("B"), Pool: "p"})
		got <- l
	}()
	close(store.on)
	require.Equal(t, netip.MustParseAddr("10.0.0.1"), (<-got).Addr)
	require.ErrorIs(t, <-late, vip.ErrNotFound)
	conserved(t, a)
}

// stopping is a store that stops in one of its readings.
type stopping struct {
	vip.Store
	stopAt      int // 1 for the next; 0 for none
	reached, on chan struct{}
}

func (s *stopping) Get(ctx context.Context, keys ...string) ([]vip.Record, error) {
	if s.stopAt > 0 {
		if s.stopAt--; s.stopAt == 0 {
			close(s.reached)
			<-s.on
		}
	}
	return s.Store.Get(ctx, keys...)
}

// Another allocator that wins every round costs an error and no address.
func TestGivingUpAfterManyConflicts(t *testing.T) {
	t.Parallel()
	store := &rival{Store: vip.NewMemStore()}
	a := allocator(t, store, newClock(), vip.Config{}, pool(t, "p", "10.0.0.1-10.0.0.9"))
	held := allocate(t, a, vip.Request{Owner: owner("A")})
	store.wins.Store(true)
	for what, call := range map[string]func() error{
		"allocate": func() error {
			_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("B")})
			return err
		},
		"two": func() error {
			_, err := a.AllocateN(t.Context(), vip.Request{Owner: owner("C")}, 2)
			return err
		},
		"by name": func() error {
			_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("D"),
				Addr: addr("10.0.0.5")})
			return err
		},
		"renew": func() error {
			_, err := a.Renew(t.Context(), held.ID, 0)
			return err
		},
		"release": func() error {
			_, err := a.Release(t.Context(), held.ID, "")
			return err
		},
		"quarantine": func() error {
			_, err := a.Quarantine(t.Context(), addr("10.0.0.7"), "bad", 0)
			return err
		},
	} {
		require.ErrorIs(t, call(), vip.ErrContended, what)
		require.Equal(t, []uint64{8, 1}, []uint64{conserved(t, a).Free, conserved(t, a).Leased},
			what)
	}
	store.wins.Store(false)
	for i := range 8 {
		allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", i))})
	}
	release(t, a, held)
}

// rival is a store in which another client may have changed every key before a commit.
type rival struct {
	vip.Store
	wins atomic.Bool
}

func (*rival) Exclusive() bool { return true }

func (r *rival) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	if !r.wins.Load() {
		return r.Store.Commit(ctx, changes...)
	}
	for _, c := range changes {
		found, err := r.Get(ctx, c.Key)
		if err != nil {
			return 0, err
		}
		if found[0].Value != nil {
			if _, err := r.Store.Commit(ctx, vip.Change{Key: c.Key, Value: found[0].Value,
				Revision: vip.AnyRevision}); err != nil {
				return 0, err
			}
		}
	}
	return 0, vip.ErrRevision
}

func TestAddressWithAZoneIsInNoPool(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "fd00::/120"))
	allocate(t, a, vip.Request{Owner: owner("A"), Addr: netip.MustParseAddr("fd00::5")})
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("B"),
		Addr: netip.MustParseAddr("fd00::5%eth0")})
	require.ErrorIs(t, err, vip.ErrNotFound)
	_, err = a.Quarantine(t.Context(), netip.MustParseAddr("fd00::5%eth0"), "bad", 0)
	require.ErrorIs(t, err, vip.ErrNotFound)
}

func TestTimesThatNoRecordHolds(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{},
		pool(t, "p", "10.0.0.1-10.0.0.2"))
	const long = 250 * 366 * 24 * time.Hour
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("A"), TTL: long})
	require.ErrorIs(t, err, vip.ErrInvalid)
	l := allocate(t, a, vip.Request{Owner: owner("A")})
	_, err = a.Renew(t.Context(), l.ID, long)
	require.ErrorIs(t, err, vip.ErrInvalid)
	_, err = a.Quarantine(t.Context(), l.Addr, "bad", long)
	require.ErrorIs(t, err, vip.ErrInvalid)
}

// An event shows the lease as it is, also when the clock was put back a little.
func TestEventAfterClockPutBack(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "p", "10.0.0.1"))
	l := allocate(t, a, vip.Request{Owner: owner("A"), TTL: time.Minute})
	c.Add(-900 * time.Millisecond)
	from := a.Revision()
	bound, err := a.Bind(t.Context(), l.ID, nil)
	require.NoError(t, err)
	events, err := a.Watch(t.Context(), from)
	require.NoError(t, err)
	require.Equal(t, bound.Expires, events[len(events)-1].Lease().Expires)
	require.True(t, bound.Expires.Before(l.Expires))
}
