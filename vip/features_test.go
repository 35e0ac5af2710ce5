package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

type result struct {
	lease vip.Lease
	err   error
}

func wait(ctx context.Context, a *vip.Allocator, task string, priority int) <-chan result {
	got := make(chan result, 1)
	go func() {
		l, err := a.Allocate(ctx, vip.Request{Owner: owner(task), Wait: true, Priority: priority})
		got <- result{l, err}
	}()
	return got
}

func queued(t *testing.T, a *vip.Allocator, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(a.Waiting()) == n }, time.Minute, time.Millisecond)
}

func TestWaitInLine(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := pool(t, "p", "10.0.0.1-10.0.0.2")
	p.CoolDown = -1
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p)
	held := []vip.Lease{
		allocate(t, a, vip.Request{Owner: owner("H1"), TTL: time.Hour}),
		allocate(t, a, vip.Request{Owner: owner("H2"), TTL: time.Minute}),
	}
	low := wait(t.Context(), a, "low", 0)
	queued(t, a, 1)
	low2 := wait(t.Context(), a, "low2", 0)
	queued(t, a, 2)
	ctx, giveUp := context.WithCancel(t.Context())
	quitter := wait(ctx, a, "quitter", 5)
	queued(t, a, 3)
	high := wait(t.Context(), a, "high", 1)
	queued(t, a, 4)

	line := a.Waiting()
	for i, want := range []string{"quitter", "high", "low", "low2"} {
		require.Equal(t, want, line[i].Owner.Task)
		require.Equal(t, i+1, line[i].Position)
	}
	require.Equal(t, c.Now().Add(time.Minute), line[0].Estimate)
	require.Equal(t, c.Now().Add(time.Hour), line[1].Estimate)
	require.Zero(t, line[2].Estimate)

	giveUp()
	r := <-quitter
	require.ErrorIs(t, r.err, context.Canceled)
	require.ErrorIs(t, r.err, vip.ErrExhausted)
	release(t, a, held[1])
	r = <-high
	require.NoError(t, r.err)
	require.Equal(t, held[1].Addr, r.lease.Addr)

	release(t, a, held[0])
	r = <-low
	require.NoError(t, r.err)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("newcomer")})
	require.ErrorIs(t, err, vip.ErrExhausted)
	release(t, a, r.lease)
	require.NoError(t, (<-low2).err)
	require.Empty(t, a.Waiting())
}

func TestNewcomerDoesNotPassTheLine(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "p", "10.0.0.1-10.0.0.3"))
	held := allocate(t, a, vip.Request{Owner: owner("H")})
	ctx, cancel := context.WithCancel(t.Context())
	group := make(chan error, 1)
	go func() {
		_, err := a.AllocateN(ctx, vip.Request{Owner: owner("group"), Wait: true}, 3)
		group <- err
	}()
	queued(t, a, 1)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("newcomer")})
	require.ErrorIs(t, err, vip.ErrExhausted, "two are free, and awaited")
	release(t, a, held)
	cancel()
	require.ErrorIs(t, <-group, context.Canceled)
	allocate(t, a, vip.Request{Owner: owner("newcomer")})
}

// Who waits stands in nobody's way in a pool that could not serve it: its team has all it may there, or the pool is too small.
func TestWaitingHoldsUpOnlyThePoolsThatCanServeIt(t *testing.T) {
	t.Parallel()
	p, q := pool(t, "p", "10.0.0.1-10.0.0.3"), pool(t, "q", "10.0.1.1-10.0.1.2")
	p.Quotas, q.CoolDown = map[string]int{"web": 1}, -1
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{Interval: time.Millisecond}, p, q)
	web := allocate(t, a, vip.Request{Owner: vip.Owner{Task: "H", Team: "web"}, Pool: "p"})
	held := []vip.Lease{allocate(t, a, vip.Request{Owner: owner("Q1"), Pool: "q"}), allocate(t, a, vip.Request{Owner: owner("Q2"), Pool: "q"})}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan vip.Lease)
	go func() {
		l, _ := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "W", Team: "web"}, Wait: true})
		served <- l
	}()
	queued(t, a, 1)
	behind := wait(ctx, a, "behind", 0)
	require.Equal(t, "p", (<-behind).lease.Pool)
	allocate(t, a, vip.Request{Owner: owner("newcomer"), Pool: "p"})
	release(t, a, web) // its quota is free, one address of p cools down, none is left
	release(t, a, held[0])
	require.Equal(t, "q", (<-served).Pool)

	_, err := a.AllocateN(ctx, vip.Request{Owner: owner("group"), Wait: true}, 4)
	require.ErrorIs(t, err, vip.ErrExhausted, "no pool holds four")
	release(t, a, held[1])
	group := make(chan error)
	go func() {
		_, err := a.AllocateN(ctx, vip.Request{Owner: owner("group"), Wait: true}, 3)
		group <- err
	}()
	queued(t, a, 1)
	require.Equal(t, "q", allocate(t, a, vip.Request{Owner: owner("newcomer2")}).Pool, "three will never be free in q")
	cancel()
	require.ErrorIs(t, <-group, context.Canceled)
}

func TestReleaseMakesRoomInAQuota(t *testing.T) {
	t.Parallel()
	p, q := pool(t, "p", "10.0.0.1-10.0.0.2"), pool(t, "q", "10.0.1.1")
	p.Quotas, p.CoolDown = map[string]int{"web": 1}, time.Hour
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{Interval: time.Hour}, p, q)
	web := allocate(t, a, vip.Request{Owner: vip.Owner{Task: "H", Team: "web"}, Pool: "p"})
	allocate(t, a, vip.Request{Owner: owner("Q"), Pool: "q"})
	served := make(chan vip.Lease)
	go func() {
		l, _ := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "W", Team: "web"}, Wait: true})
		served <- l
	}()
	queued(t, a, 1)
	release(t, a, web)
	require.Equal(t, "10.0.0.2", (<-served).Addr.String())
}

// Who waits for a quota is not woken by what does not change how much of it is used.
func TestRenewalsDoNotWakeWhoWaitsForAQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, q := pool(t, "p", "10.0.0.1-10.0.0.2"), pool(t, "q", "10.0.1.1")
		p.Quotas = map[string]int{"web": 1}
		store := &hooked{Store: vip.NewMemStore()}
		a := allocator(t, store, newClock(), vip.Config{Interval: time.Hour, Shared: true}, p, q)
		web := allocate(t, a, vip.Request{Owner: vip.Owner{Task: "H", Team: "web"}, Pool: "p"})
		allocate(t, a, vip.Request{Owner: owner("Q"), Pool: "q"})
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() {
			_, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "W", Team: "web"}, Wait: true})
			served <- err
		}()
		synctest.Wait()
		before := store.reads.Load()
		_, err := a.Renew(t.Context(), web.ID, web.Generation, 0)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, before, store.reads.Load())
		cancel()
		require.ErrorIs(t, <-served, context.Canceled)
	})
}

// Who waits behind somebody is woken as soon as that one does not want the pool any more, for whatever reason.
func TestWhoWaitsBehindIsServedWhenTheOneInFrontIsOutOfTheWay(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.1-10.0.0.3")
	p.Quotas, p.Labels = map[string]int{"web": 3}, map[string]string{"region": "bj"}
	named := func(task, team string) vip.Request {
		return vip.Request{Owner: vip.Owner{Task: task, Team: team}, Addr: addr("10.0.0.1")}
	}
	for what, happens := range map[string]func(t *testing.T, a, other *vip.Allocator, cancel func()){
		"it gives up":                   func(t *testing.T, a, other *vip.Allocator, cancel func()) { cancel() },
		"it has a lease":                func(t *testing.T, a, other *vip.Allocator, cancel func()) { allocate(t, a, named("front", "web")) },
		"another allocator gave it one": func(t *testing.T, a, other *vip.Allocator, cancel func()) { allocate(t, other, named("front", "web")) },
		"its quota is used up":          func(t *testing.T, a, other *vip.Allocator, cancel func()) { allocate(t, a, named("T", "web")) },
		"another allocator used it up":  func(t *testing.T, a, other *vip.Allocator, cancel func()) { allocate(t, other, named("T", "web")) },
		"the pool has other labels": func(t *testing.T, a, other *vip.Allocator, cancel func()) {
			p := p
			p.Labels = nil
			require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, store, cfg := newClock(), vip.NewMemStore(), vip.Config{Interval: time.Hour, Shared: true}
				a, other := allocator(t, store, c, cfg, p), allocator(t, store, c, cfg, p)
				allocate(t, a, vip.Request{Owner: owner("H"), Addr: addr("10.0.0.3")})
				ctx, cancel := context.WithCancel(t.Context())
				front := make(chan error, 1)
				go func() {
					req := vip.Request{Owner: vip.Owner{Task: "front", Team: "web"}, Selector: p.Labels, Wait: true}
					_, err := a.AllocateN(ctx, req, 3)
					front <- err
				}()
				synctest.Wait()
				behind := wait(t.Context(), a, "behind", 0)
				synctest.Wait()
				require.Len(t, a.Waiting(), 2)
				happens(t, a, other, cancel)
				c.Add(5 * time.Second)
				require.NoError(t, a.Sweep(t.Context())) // which sees what the other did
				synctest.Wait()
				require.Len(t, behind, 1)
				require.NoError(t, (<-behind).err)
				cancel()
				require.Error(t, <-front)
			})
		})
	}
}

// A pool that SetPools adds serves those who wait at once, in their order.
func TestWhoWaitsIsServedByAPoolThatIsAdded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, q := pool(t, "p", "10.0.0.1"), pool(t, "q", "10.0.1.1-10.0.1.3")
		a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{Interval: time.Hour}, p)
		allocate(t, a, vip.Request{Owner: owner("H")})
		var waiting []<-chan result
		for i := range 4 {
			waiting = append(waiting, wait(t.Context(), a, fmt.Sprint("T", i), 0))
			synctest.Wait()
		}
		require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p, q}))
		synctest.Wait()
		require.Equal(t, "T3", a.Waiting()[0].Owner.Task)
		for i, w := range waiting[:3] {
			require.Equal(t, fmt.Sprint("10.0.1.", i+1), (<-w).lease.Addr.String())
		}
		require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p, q, pool(t, "r", "10.0.2.1")}))
		require.Equal(t, "r", (<-waiting[3]).lease.Pool)
	})
}

// What an allocation that fails in the end had reserved of a quota is there for those who wait.
func TestAFailureMakesRoomInAQuota(t *testing.T) {
	t.Parallel()
	p, q := pool(t, "p", "10.0.0.1-10.0.0.2"), pool(t, "q", "10.0.1.1")
	p.Quotas = map[string]int{"web": 1}
	c, store := newClock(), &hooked{Store: vip.NewMemStore()}
	cfg := vip.Config{Interval: time.Hour, Shared: true}
	a, other := allocator(t, store, c, cfg, p, q), allocator(t, store.Store, c, cfg, p, q)
	allocate(t, a, vip.Request{Owner: owner("Q"), Pool: "q"})
	served := make(chan result, 1)
	hook := func() { // while the address is being allocated, somebody queues, and another takes the address
		go func() {
			l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "W", Team: "web"}, Wait: true})
			served <- result{l, err}
		}()
		queued(t, a, 1)
		allocate(t, other, vip.Request{Owner: owner("O"), Addr: addr("10.0.0.1")})
	}
	store.next.Store(&hook)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "A", Team: "web"}, Addr: addr("10.0.0.1")})
	require.ErrorIs(t, err, vip.ErrTaken)
	r := <-served
	require.NoError(t, r.err)
	require.Equal(t, "10.0.0.2", r.lease.Addr.String())
}

// hooked is a store that counts what is read, and calls next before a commit.
type hooked struct {
	vip.Store
	reads atomic.Int64
	next  atomic.Pointer[func()]
}

func (h *hooked) Get(ctx context.Context, keys ...string) ([]vip.Record, error) {
	h.reads.Add(1)
	return h.Store.Get(ctx, keys...)
}

func (h *hooked) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	if next := h.next.Swap(nil); next != nil {
		(*next)()
	}
	return h.Store.Commit(ctx, changes...)
}

func TestManyWaitAndAllAreServedOrGiveUp(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.1-10.0.0.4")
	p.CoolDown = -1
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 60)
	for i := range 40 {
		go func() {
			l, err := a.Allocate(ctx, vip.Request{Owner: owner(fmt.Sprint("T", i)), Wait: true})
			if err == nil {
				_, err = a.Release(ctx, l.ID, l.Generation, "")
			}
			served <- err
		}()
	}
	for range 40 {
		require.NoError(t, <-served)
	}
	for i := range 4 {
		allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("H", i))})
	}
	for i := range 20 {
		go func() {
			_, err := a.Allocate(ctx, vip.Request{Owner: owner(fmt.Sprint("W", i)), Wait: true})
			served <- err
		}()
	}
	queued(t, a, 20)
	cancel()
	for range 20 {
		require.ErrorIs(t, <-served, context.Canceled)
	}
	require.Empty(t, a.Waiting())
	require.Equal(t, uint64(4), conserved(t, a).Leased)
}

func TestWhoHadThisVIP(t *testing.T) {
	t.Parallel()
	c := newClock()
	store, p := vip.NewMemStore(), pool(t, "p", "10.0.0.1")
	a := allocator(t, store, c, vip.Config{History: 4}, p)
	start := c.Now()
	first := allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1")})
	for i := range 2 {
		c.Add(time.Minute)
		_, err := a.Bind(t.Context(), first.ID, first.Generation, []vip.Instance{{ID: fmt.Sprint("c", i), Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
		require.NoError(t, err)
	}
	c.Add(time.Minute)
	release(t, a, first)
	c.Add(10 * time.Minute)
	second := allocate(t, a, vip.Request{Owner: owner("T2", "web", "v2"), TTL: vip.Forever})

	a = allocator(t, store, c, vip.Config{History: 4}, p)
	for _, q := range []struct {
		minute         int
		task, instance string
	}{{-1, "", ""}, {0, "T1", ""}, {1, "T1", "c0"}, {2, "T1", "c1"}, {3, "", ""}, {9, "", ""}, {13, "T2", ""}, {100, "T2", ""}} {
		l, err := a.At(t.Context(), addr("10.0.0.1"), start.Add(time.Duration(q.minute)*time.Minute+time.Second))
		if q.task == "" {
			require.ErrorIs(t, err, vip.ErrNotFound, "minute %d", q.minute)
			continue
		}
		require.NoError(t, err, "minute %d", q.minute)
		require.Equal(t, q.task, l.Owner.Task, "minute %d", q.minute)
		if q.instance == "" {
			require.Empty(t, l.Binding.Instances)
		} else {
			require.Equal(t, q.instance, l.Binding.Instances[0].ID)
		}
	}
	for range 9 {
		release(t, a, second)
		c.Add(10 * time.Minute)
		second = allocate(t, a, vip.Request{Owner: owner("T2", "web", "v2"), TTL: vip.Forever})
	}
	past, err := a.History(t.Context(), addr("10.0.0.1"))
	require.NoError(t, err)
	require.Len(t, past, 5, "four records and the live lease")
	require.Equal(t, second, past[4])
	_, err = a.History(t.Context(), addr("10.9.9.9"))
	require.ErrorIs(t, err, vip.ErrNotFound)
}

// A binding that was replaced at the very moment of the release is not in the way of the one before it.
func TestWhoHadThisVIPWhenTheClockIsCoarse(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{History: 2}, pool(t, "p", "10.0.0.1"))
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	for i := range 3 {
		c.Add(time.Minute)
		_, err := a.Bind(t.Context(), l.ID, l.Generation, []vip.Instance{{ID: fmt.Sprint("c", i), Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
		require.NoError(t, err)
	}
	release(t, a, l)
	had, err := a.At(t.Context(), l.Addr, c.Now().Add(-time.Second))
	require.NoError(t, err)
	require.Len(t, had.Binding.Instances, 1)
	require.Equal(t, "c1", had.Binding.Instances[0].ID)
}

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
	_, err := a.Bind(t.Context(), l.ID, l.Generation, []vip.Instance{{ID: "c", Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
	require.NoError(t, err)
	_, err = a.Renew(t.Context(), l.ID, l.Generation, 0)
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
	require.Equal(t, []vip.EventKind{vip.Allocated, vip.Bound, vip.Renewed, vip.Expiring, vip.Ended, vip.BecameFree, vip.SetAside}, kinds)
	require.Equal(t, "expired", events[4].Lease.Reason)
	rest, err := a.Watch(t.Context(), events[4].Revision)
	require.NoError(t, err)
	require.Equal(t, events[5:], rest, "a watch goes on where it was")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Watch(ctx, a.Revision())
	require.ErrorIs(t, err, context.Canceled)
	for range 3000 {
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

// That a lease expires is told once, whatever happens to it in its grace; after a renewal it is told anew.
func TestExpiringIsToldOnce(t *testing.T) {
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
	_, err := a.Renew(t.Context(), l.ID, l.Generation, 0)
	require.NoError(t, err)
	require.Zero(t, expiring())
	c.Add(time.Hour)
	require.Equal(t, 1, expiring())
	_, err = a.Bind(t.Context(), l.ID, l.Generation, nil) // which renews nothing
	require.NoError(t, err)
	require.Zero(t, expiring())
	c.Add(time.Minute)
	require.Zero(t, expiring())
	require.Empty(t, a.Locate(vip.Query{}))
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := pool(t, "p", "10.0.0.0/28")
	p.MaxQuarantined = 0.2 // of 16: 3
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p)
	held := allocate(t, a, vip.Request{Owner: owner("T1")})
	cooling := allocate(t, a, vip.Request{Owner: owner("T2")})
	release(t, a, cooling)

	got, err := a.Quarantine(t.Context(), held.Addr, "answers ARP for another", 0)
	require.NoError(t, err)
	require.Equal(t, vip.Quarantined, got.State)
	_, err = a.Renew(t.Context(), held.ID, held.Generation, 0)
	require.ErrorIs(t, err, vip.ErrFenced)
	_, err = a.Quarantine(t.Context(), cooling.Addr, "flaps", time.Hour)
	require.NoError(t, err)
	_, err = a.Quarantine(t.Context(), addr("10.0.0.9"), "never used", time.Hour)
	require.NoError(t, err)
	_, err = a.Quarantine(t.Context(), addr("10.0.0.10"), "one too many", time.Hour)
	require.ErrorIs(t, err, vip.ErrQuarantineFull)
	_, err = a.Quarantine(t.Context(), addr("10.0.0.9"), "again, longer", 2*time.Hour)
	require.NoError(t, err, "those that are in it may change")
	_, err = a.Quarantine(t.Context(), addr("10.0.0.0"), "", 0)
	require.ErrorIs(t, err, vip.ErrTaken)
	_, err = a.Quarantine(t.Context(), addr("10.9.0.0"), "", 0)
	require.ErrorIs(t, err, vip.ErrNotFound)
	require.Equal(t, uint64(3), conserved(t, a).Quarantined)

	c.Add(time.Hour)
	require.Equal(t, uint64(2), conserved(t, a).Quarantined)
	got, err = a.Restore(t.Context(), held.Addr, "replaced")
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, got.State)
	got, err = a.Restore(t.Context(), held.Addr, "replaced")
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, got.State)
	c.Add(time.Hour)
	require.Equal(t, uint64(14), conserved(t, a).Free)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("T3"), Addr: held.Addr})
	require.NoError(t, err)
}

// A quarantine is no way around the cool-down, nor around the proof that nothing uses the address any more.
func TestQuarantineDoesNotCutARestShort(t *testing.T) {
	t.Parallel()
	drained := false
	for _, cfg := range []vip.Config{{}, {DrainLimit: time.Minute, Drained: func(context.Context, vip.Lease) (bool, error) { return drained, nil }}} {
		c := newClock()
		a := allocator(t, vip.NewMemStore(), c, cfg, pool(t, "p", "10.0.0.1"))
		quarantine := func(rest time.Duration) time.Duration {
			l, err := a.Quarantine(t.Context(), addr("10.0.0.1"), "flaps", rest)
			require.NoError(t, err)
			return l.CoolUntil.Sub(c.Now())
		}
		require.Equal(t, time.Second, quarantine(time.Second), "it was never used")
		c.Add(time.Second)
		l := allocate(t, a, vip.Request{Owner: owner("T1")})
		require.Equal(t, vip.DefaultCoolDown+cfg.DrainLimit, quarantine(time.Second))
		require.Equal(t, vip.DefaultCoolDown+cfg.DrainLimit, quarantine(time.Second), "asked again")
		require.Equal(t, time.Hour, quarantine(time.Hour))

		from := a.Revision()
		restored, err := a.Restore(t.Context(), l.Addr, "a mistake")
		require.NoError(t, err)
		events, err := a.Watch(t.Context(), from)
		require.NoError(t, err)
		require.Equal(t, vip.Restored, events[0].Kind)
		if cfg.Drained != nil {
			require.Equal(t, vip.Draining, restored.State)
			drained = true
			require.NoError(t, a.Sweep(t.Context()))
			restored, err = a.Get(t.Context(), l.ID)
			require.NoError(t, err)
		}
		require.Equal(t, vip.Cooling, restored.State)
		require.LessOrEqual(t, quarantine(time.Second), vip.DefaultCoolDown, "it has drained")
		c.Add(vip.DefaultCoolDown)
		require.Equal(t, time.Second, quarantine(time.Second), "it has rested")
	}
}

func TestLeaksAreConfirmedBeforeTheyEnd(t *testing.T) {
	t.Parallel()
	c := newClock()
	gone := map[string]bool{}
	var fault error
	a := allocator(t, vip.NewMemStore(), c, vip.Config{
		LeakGrace: 10 * time.Minute,
		Alive:     func(_ context.Context, l vip.Lease) (bool, error) { return !gone[l.Owner.Task], fault },
	}, pool(t, "p", "10.0.0.0/28"))
	stays, leaks := allocate(t, a, vip.Request{Owner: owner("T1")}), allocate(t, a, vip.Request{Owner: owner("T2")})
	check := func() []vip.Leak {
		t.Helper()
		found, err := a.CheckLeaks(t.Context())
		require.NoError(t, err)
		return found
	}
	require.Empty(t, check())
	gone["T1"], gone["T2"] = true, true
	require.Len(t, check(), 2)
	require.Len(t, a.Suspects(), 2)
	gone["T1"] = false
	c.Add(5 * time.Minute)
	require.Len(t, check(), 1)
	c.Add(5 * time.Minute)
	gone["T1"] = true
	fault = errors.New("orchestrator is away")
	_, err := a.CheckLeaks(t.Context())
	require.ErrorIs(t, err, fault)
	require.Equal(t, uint64(2), conserved(t, a).Leased, "not knowing ends nothing")
	fault = nil
	found := check()
	require.Len(t, found, 2)
	require.False(t, found[0].Confirmed, "T1 was back in between")
	require.True(t, found[1].Confirmed)
	l, err := a.Get(t.Context(), leaks.ID)
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, l.State)
	require.Equal(t, "leaked: its owner is gone", l.Reason)
	_, err = a.Renew(t.Context(), stays.ID, stays.Generation, 0)
	require.NoError(t, err)
}

// An owner that does something while the world is asked about it is there, whatever the world says.
func TestAnOwnerThatIsHeardOfSavesItsLeaseFromTheLeakCheck(t *testing.T) {
	t.Parallel()
	for what, call := range map[string]func(context.Context, *vip.Allocator, vip.Lease) error{
		"renew": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Renew(ctx, l.ID, l.Generation, 0)
			return err
		},
		"bind": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Bind(ctx, l.ID, l.Generation, nil)
			return err
		},
		"allocate": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			again, err := a.Allocate(ctx, vip.Request{Owner: l.Owner})
			if again.ID != l.ID {
				return fmt.Errorf("another lease: %s", again.ID)
			}
			return err
		},
	} {
		for _, ttl := range []time.Duration{24 * time.Hour, vip.Forever} { // one that is Forever looks the same after a renewal
			c := newClock()
			var a *vip.Allocator
			heard := false
			a = allocator(t, vip.NewMemStore(), c, vip.Config{LeakGrace: time.Minute, Alive: func(ctx context.Context, l vip.Lease) (bool, error) {
				if heard {
					return false, call(ctx, a, l)
				}
				return false, nil
			}}, pool(t, "p", "10.0.0.0/28"))
			l := allocate(t, a, vip.Request{Owner: owner("T1"), TTL: ttl})
			check := func() vip.Leak {
				c.Add(time.Hour)
				found, err := a.CheckLeaks(t.Context())
				require.NoError(t, err, what)
				return found[0]
			}
			check()
			heard = true
			require.False(t, check().Confirmed, "%s %s", what, ttl)
			require.Equal(t, uint64(1), conserved(t, a).Leased, what)
			heard = false
			if what == "allocate" {
				require.False(t, a.Suspects()[0].Since.Before(c.Now()), "a candidate anew")
				require.True(t, check().Confirmed, what)
			}
			_, err := a.Release(t.Context(), l.ID, l.Generation, "")
			require.NoError(t, err)
			_, err = a.CheckLeaks(t.Context())
			require.NoError(t, err)
			require.Empty(t, a.Suspects(), what)
		}
	}
}

// table is a Truth that can be repaired.
type table struct {
	name string
	rows map[netip.Addr]vip.Observation
	err  error
}

func (s *table) Name() string { return s.name }

func (s *table) Observe(context.Context) ([]vip.Observation, error) {
	var all []vip.Observation
	for _, o := range s.rows {
		all = append(all, o)
	}
	return all, s.err
}

func (s *table) Repair(_ context.Context, f vip.Finding) error {
	delete(s.rows, f.Addr)
	if f.Lease != nil {
		o := vip.Observation{Addr: f.Addr, Task: f.Lease.Owner.Task, Instances: []netip.AddrPort{}}
		for _, i := range f.Lease.Binding.Instances {
			o.Instances = append(o.Instances, i.Addr)
		}
		s.rows[f.Addr] = o
	}
	return nil
}

func TestAuditAndApply(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.0/28"))
	x, y := netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("192.0.2.2:80")
	rows := map[netip.Addr]vip.Observation{addr("10.0.0.9"): {Addr: addr("10.0.0.9"), Task: "ghost"}}
	var leases []vip.Lease
	for i, seen := range [][]netip.AddrPort{{y, x}, {x}, nil} {
		l := allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", i))})
		l, err := a.Bind(t.Context(), l.ID, l.Generation, []vip.Instance{{ID: "x", Addr: x}, {ID: "y", Addr: y}})
		require.NoError(t, err)
		leases = append(leases, l)
		rows[l.Addr] = vip.Observation{Addr: l.Addr, Task: "T0", Instances: seen}
	}
	unserved := allocate(t, a, vip.Request{Owner: owner("T3")})
	nginx, lvs := &table{name: "nginx", rows: rows}, &table{name: "lvs", err: errors.New("no answer")}

	report, err := a.Audit(t.Context(), nginx, lvs)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"lvs": "no answer"}, report.Failed)
	require.Equal(t, 4, report.Leases)
	type row struct {
		kind vip.FindingKind
		addr netip.Addr
	}
	var got []row
	for _, f := range report.Findings {
		got = append(got, row{f.Kind, f.Addr})
	}
	require.Equal(t, []row{
		{vip.OtherInstances, leases[1].Addr}, {vip.OtherTask, leases[1].Addr}, {vip.OtherTask, leases[2].Addr},
		{vip.NotServed, unserved.Addr}, {vip.NotLeased, addr("10.0.0.9")},
	}, got)
	require.Equal(t, "leads to [192.0.2.1:80], bound are [192.0.2.1:80 192.0.2.2:80]", report.Findings[0].Detail)

	release(t, a, leases[2]) // after the report: its finding is passed over
	repaired, err := a.Apply(t.Context(), report, nginx, lvs)
	require.NoError(t, err)
	require.Equal(t, 4, repaired)
	report, err = a.Audit(t.Context(), nginx)
	require.NoError(t, err)
	require.Len(t, report.Findings, 1)
	require.Equal(t, vip.NotLeased, report.Findings[0].Kind)
}

// One of two truths of the same name that fails would hide what the other has found, and a repair could go to the wrong one.
func TestTruthsHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.1"))
	ghost := map[netip.Addr]vip.Observation{addr("10.0.0.1"): {Addr: addr("10.0.0.1"), Task: "ghost"}}
	one, two := &table{name: "nginx", rows: ghost}, &table{name: "nginx", err: errors.New("no answer")}
	_, err := a.Audit(t.Context(), one, two)
	require.ErrorIs(t, err, vip.ErrInvalid)
	require.ErrorContains(t, err, `audit: truth "nginx": invalid request: another truth has this name`)
	_, err = a.Audit(t.Context(), one, &table{})
	require.ErrorContains(t, err, "audit: truth 2 of 2: invalid request: it has no name")

	two.name = "nginx-2"
	report, err := a.Audit(t.Context(), one, two)
	require.NoError(t, err)
	require.Len(t, report.Findings, 1)
	require.Equal(t, map[string]string{"nginx-2": "no answer"}, report.Failed)
	two.name = "nginx"
	repaired, err := a.Apply(t.Context(), report, one, two)
	require.ErrorIs(t, err, vip.ErrInvalid)
	require.Zero(t, repaired)
	require.Len(t, ghost, 1)
}

// What another allocator has given away is no finding, and is not repaired after a report that is older.
func TestAuditSeesTheLeasesOfOtherAllocators(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.1-10.0.0.4")
	a, b := allocator(t, store, c, vip.Config{Shared: true}, p), allocator(t, store, c, vip.Config{Shared: true}, p)
	first, second := addr("10.0.0.1"), addr("10.0.0.2")
	allocate(t, b, vip.Request{Owner: owner("T1"), Addr: first})
	nginx := &table{name: "nginx", rows: map[netip.Addr]vip.Observation{first: {Addr: first, Task: "T1"}, second: {Addr: second, Task: "T2"}}}
	report, err := a.Audit(t.Context(), nginx)
	require.NoError(t, err)
	require.Len(t, report.Findings, 1)
	require.Equal(t, second, report.Findings[0].Addr)
	allocate(t, b, vip.Request{Owner: owner("T2"), Addr: second})
	repaired, err := a.Apply(t.Context(), report, nginx)
	require.NoError(t, err)
	require.Zero(t, repaired)
	require.Len(t, nginx.rows, 2)
}

// listed is a Truth that cannot be the key of a map.
type listed []vip.Observation

func (listed) Name() string { return "listed" }

func (l listed) Observe(context.Context) ([]vip.Observation, error) { return l, nil }

func TestAuditKnowsAnAddressInEitherForm(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.1"))
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	mapped, plain := netip.MustParseAddrPort("[::ffff:192.0.2.1]:80"), netip.MustParseAddrPort("192.0.2.1:80")
	l, err := a.Bind(t.Context(), l.ID, l.Generation, []vip.Instance{{Addr: mapped}})
	require.NoError(t, err)
	require.Equal(t, plain, l.Binding.Instances[0].Addr)
	for _, q := range []vip.Query{{Addr: plain}, {Addr: mapped}, {VIP: l.Addr}, {VIP: addr("::ffff:10.0.0.1")}} {
		require.Len(t, a.Locate(q), 1, "%+v", q)
	}
	report, err := a.Audit(t.Context(), listed{{Addr: addr("::ffff:10.0.0.1"), Task: "T1", Instances: []netip.AddrPort{mapped}}})
	require.NoError(t, err)
	require.Empty(t, report.Findings)
}

func TestObserve(t *testing.T) {
	t.Parallel()
	c := newClock()
	var calls []string
	a := allocator(t, vip.NewMemStore(), c, vip.Config{Observe: func(call string, _ time.Duration, err error) {
		calls = append(calls, fmt.Sprint(call, " ", err == nil))
	}}, pool(t, "p", "10.0.0.1"))
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T2")})
	require.Error(t, err)
	release(t, a, l)
	_, err = a.Quarantine(t.Context(), l.Addr, "bad", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"allocate true", "allocate false", "release true", "quarantine true"}, calls)
}
