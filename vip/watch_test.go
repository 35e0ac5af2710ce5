package vip_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/vip"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	c := newClock()
	store, p := vip.NewMemStore(), pool(t, "p", "10.0.0.1-10.0.0.2")
	a := allocator(t, store, c, vip.Config{Grace: time.Minute}, p)
	from := a.Revision()
	next := make(chan []vip.Event)
	go func() {
		events, err := a.Watch(t.Context(), from)
		if err != nil {
			t.Error(err)
		}
		next <- events
	}()
	l := allocate(t, a, vip.Request{Owner: owner("T1"), TTL: time.Minute})
	require.Equal(t, vip.Allocated, (<-next)[0].Kind)
	_, err := a.Bind(t.Context(), l.ID,
		[]vip.Instance{{ID: "c", Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
	require.NoError(t, err)
	_, err = a.Renew(t.Context(), l.ID, 0)
	require.NoError(t, err)
	c.Add(time.Minute)
	require.NoError(t, a.Sweep(t.Context()))
	c.Add(time.Minute)
	require.NoError(t, a.Sweep(t.Context()))
	c.Add(time.Hour)
	require.NoError(t, a.Sweep(t.Context()))
	_, err = a.Quarantine(t.Context(), addr("10.0.0.2"), "answers ARP", time.Minute)
	require.NoError(t, err)

	events, err := a.Watch(t.Context(), from)
	require.NoError(t, err)
	var kinds []vip.EventKind
	for i, e := range events {
		kinds = append(kinds, e.Kind)
		require.Equal(t, from+uint64(i)+1, e.Revision)
	}
	require.Equal(t, []vip.EventKind{vip.Allocated, vip.Bound, vip.Renewed, vip.Expiring, vip.Ended,
		vip.BecameFree, vip.Quarantine}, kinds)
	require.Equal(t, "expired", events[4].Lease().Reason)
	rest, err := a.Watch(t.Context(), events[4].Revision)
	require.NoError(t, err)
	require.Equal(t, events[5:], rest, "a watch goes on where it was")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Watch(ctx, a.Revision())
	require.ErrorIs(t, err, context.Canceled)
	for range 17_000 {
		release(t, a, allocate(t, a, vip.Request{Owner: owner("T2")}))
		c.Add(130 * time.Second)
	}
	_, err = a.Watch(t.Context(), from)
	require.ErrorIs(t, err, vip.ErrCompacted)

	b := allocator(t, store, c, vip.Config{}, p)
	require.Greater(t, b.Revision(), a.Revision())
	_, err = b.Watch(t.Context(), a.Revision())
	require.ErrorIs(t, err, vip.ErrCompacted, "another allocator")
}

// A lease that expires causes one event, with any changes of it in its grace; after a renewal it
// causes another.
func TestWatchExpiringOnce(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.1-10.0.0.2")
	a := allocator(t, store, c, vip.Config{Grace: time.Minute}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1"), TTL: time.Hour})
	from := a.Revision()
	expiring := func() (n int) { // since the last call
		require.NoError(t, a.Sweep(t.Context()))
		require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
		require.NoError(t, a.Sweep(t.Context()))
		for a.Revision() > from {
			events, err := a.Watch(t.Context(), from)
			require.NoError(t, err)
			for _, e := range events {
				if from = e.Revision; e.Kind == vip.Expiring {
					n++
				}
			}
		}
		return n
	}
	c.Add(time.Hour)
	require.Equal(t, 1, expiring())
	_, err := a.Renew(t.Context(), l.ID, 0)
	require.NoError(t, err)
	require.Zero(t, expiring())
	c.Add(time.Hour)
	require.Equal(t, 1, expiring())
	_, err = a.Bind(t.Context(), l.ID, nil) // which renews nothing
	require.NoError(t, err)
	require.Zero(t, expiring())
	c.Add(time.Minute)
	require.Zero(t, expiring())
	require.Empty(t, a.List(vip.Query{States: []vip.State{vip.Leased, vip.Draining}}))
}

// 50 watchers beside four callers get every event in order, the same for all of them; one that does
// not read for too long gets ErrCompacted, and goes on from the revision of now.
func TestWatchers(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.0/24")
	p.CoolDown = -1
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p)
	from := a.Revision()
	const pairs, callers = 500, 4
	var wg sync.WaitGroup
	heard := make([][]string, 50)
	for w := range heard {
		wg.Go(func() {
			after := from
			for len(heard[w]) < 2*pairs*callers {
				events, err := a.Watch(t.Context(), after)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range events {
					if e.Revision != after+1 {
						t.Errorf("event %d after %d", e.Revision, after)
					}
					after = e.Revision
					text, err := e.MarshalJSON()
					if err != nil {
						t.Error(err)
					}
					heard[w] = append(heard[w], string(text))
				}
			}
		})
	}
	for g := range callers {
		wg.Go(func() {
			for i := range pairs {
				l, err := a.Allocate(t.Context(),
					vip.Request{Owner: owner(fmt.Sprint("T", g, "-", i))})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := a.Release(t.Context(), l.ID, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for w := range heard {
		require.Equal(t, heard[0], heard[w])
	}
	var first struct {
		Revision string
		Kind     vip.EventKind
		At       time.Time
		Lease    vip.Lease
	}
	require.NoError(t, json.Unmarshal([]byte(heard[0][0]), &first))
	events, err := a.Watch(t.Context(), from)
	require.NoError(t, err)
	require.Equal(t, strconv.FormatUint(from+1, 10), first.Revision)
	require.Equal(t, vip.Allocated, first.Kind)
	require.Equal(t, events[0].At, first.At)
	require.Equal(t, events[0].Lease(), first.Lease)
	require.Equal(t, vip.Lease{}, vip.Event{}.Lease())

	for range 17_000 {
		release(t, a, allocate(t, a, vip.Request{Owner: owner("T")}))
	}
	_, err = a.Watch(t.Context(), from)
	require.ErrorIs(t, err, vip.ErrCompacted)
	last := a.Revision()
	allocate(t, a, vip.Request{Owner: owner("next")})
	events, err = a.Watch(t.Context(), last)
	require.NoError(t, err)
	require.Equal(t, "next", events[0].Lease().Owner.Task)
}

// The events of the watchers add up to the leases of List, with any changes in between.
func TestWatchFollowsList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c, p := newClock(), pool(&testing.T{}, "p", "10.0.0.1-10.0.0.6")
		a := allocator(&testing.T{}, vip.NewMemStore(), c, vip.Config{Grace: time.Minute}, p)
		after, known := a.Revision(), map[netip.Addr]vip.Lease{}
		task := rapid.SampledFrom([]string{"A", "B", "C", "D"})
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) {
				_, _ = a.Allocate(context.Background(),
					vip.Request{Owner: owner(task.Draw(t, "task")), TTL: time.Hour})
			},
			"release": func(t *rapid.T) {
				for _, l := range a.List(vip.Query{Task: task.Draw(t, "task")}) {
					_, _ = a.Release(context.Background(), l.ID, "")
				}
			},
			"quarantine": func(t *rapid.T) {
				_, _ = a.Quarantine(context.Background(), p.Ranges[0].First, "bad", time.Minute)
			},
			"time passes": func(t *rapid.T) {
				c.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "minutes")) * time.Minute)
				require.NoError(t, a.Sweep(context.Background()))
			},
			"": func(t *rapid.T) {
				for after < a.Revision() {
					events, err := a.Watch(context.Background(), after)
					require.NoError(t, err)
					for _, e := range events {
						after, known[e.Lease().Addr] = e.Revision, e.Lease()
					}
				}
				for _, l := range a.List(vip.Query{States: []vip.State{vip.Free, vip.Leased,
					vip.Cooling, vip.Quarantined}}) {
					require.Equal(t, l, known[l.Addr])
					delete(known, l.Addr)
				}
				require.Empty(t, known)
				for _, l := range a.List(vip.Query{States: []vip.State{vip.Free, vip.Leased,
					vip.Cooling, vip.Quarantined}}) {
					known[l.Addr] = l
				}
			},
		})
	})
}

// An address that is reserved while it rests does not stay at rest for a watcher.
func TestWatchEndOfRestOfReservedAddress(t *testing.T) {
	t.Parallel()
	c, p := newClock(), pool(t, "p", "10.0.0.1-10.0.0.2")
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p)
	l := release(t, a, allocate(t, a, vip.Request{Owner: owner("T")}))
	p.Reserved = map[netip.Addr]string{l.Addr: "gateway"}
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
	after := a.Revision()
	c.Add(time.Hour)
	require.NoError(t, a.Sweep(t.Context()))
	require.Greater(t, a.Revision(), after)
	events, err := a.Watch(t.Context(), after)
	require.NoError(t, err)
	require.Len(t, events, 1)
	require.Equal(t, []any{vip.BecameFree, l.Addr, vip.Reserved},
		[]any{events[0].Kind, events[0].Lease().Addr, events[0].Lease().State})
}

// A watcher that reads late, but not too late, hears of every event in order. No change waits for
// one that stops: the events that it has in its hands stay as they are, and its wait ends with its
// context.
func TestWatchSlowAndDeadReader(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.0/24")
	p.CoolDown = -1
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p)
	from := a.Revision()
	died := errors.New("died")
	ctx, die := context.WithCancelCause(t.Context())
	ended := make(chan error, 100)
	for range cap(ended) {
		go func() {
			after := from
			for {
				events, err := a.Watch(ctx, after)
				if err != nil {
					ended <- err
					return
				}
				after = events[len(events)-1].Revision
			}
		}()
	}
	const rounds, pairs = 10, 500
	change := func(round int) {
		for i := range pairs {
			release(t, a, allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", round, "-", i))}))
		}
	}
	change(0)
	die(died)
	for range cap(ended) {
		require.ErrorIs(t, <-ended, died)
	}
	inHand, err := a.Watch(t.Context(), from) // of a reader that does nothing with it
	require.NoError(t, err)
	leases := func() (all []vip.Lease) {
		for _, e := range inHand {
			all = append(all, e.Lease())
		}
		return all
	}
	seen := leases()

	var slow []vip.Event
	read := func(after uint64) uint64 {
		events, err := a.Watch(t.Context(), after)
		require.NoError(t, err)
		slow = append(slow, events...)
		return events[len(events)-1].Revision
	}
	after := from
	for round := range rounds {
		change(round + 1)
		after = read(after)
	}
	for after < a.Revision() {
		after = read(after)
	}
	require.Len(t, slow, 2*pairs*(rounds+1))
	for i, e := range slow {
		require.Equal(t, from+1+uint64(i), e.Revision)
		kind := vip.Allocated
		if i%2 == 1 {
			kind = vip.Ended
		}
		require.Equal(t, kind, e.Kind)
		require.Equal(t, fmt.Sprint("T", i/2/pairs, "-", i/2%pairs), e.Lease().Owner.Task)
	}
	require.Equal(t, seen, leases())
}
