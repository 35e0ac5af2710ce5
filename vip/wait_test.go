package vip_test

import (
	"context"
	"fmt"
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
	require.Eventually(t, func() bool {
		return len(a.Waiting()) == n
	}, time.Minute, time.Millisecond)
}

func TestWaitOrder(t *testing.T) {
	t.Parallel()
	eachMemStore(t, testWaitOrder)
}

func testWaitOrder(t *testing.T, store vip.Store) {
	c := newClock()
	p := pool(t, "p", "10.0.0.1-10.0.0.2")
	p.CoolDown = -1
	a := allocator(t, store, c, vip.Config{}, p)
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

func TestWaitNewcomerDoesNotOvertake(t *testing.T) {
	t.Parallel()
	eachMemStore(t, testWaitNewcomerDoesNotOvertake)
}

func testWaitNewcomerDoesNotOvertake(t *testing.T, store vip.Store) {
	c := newClock()
	a := allocator(t, store, c, vip.Config{}, pool(t, "p", "10.0.0.1-10.0.0.3"))
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

// A waiter blocks no other in a pool that could not serve it: its team has all it may there, or the
// pool is too small.
func TestWaitBlocksOnlyUsablePools(t *testing.T) {
	t.Parallel()
	eachMemStore(t, testWaitBlocksOnlyUsablePools)
}

func testWaitBlocksOnlyUsablePools(t *testing.T, store vip.Store) {
	p, q := pool(t, "p", "10.0.0.1-10.0.0.3"), pool(t, "q", "10.0.1.1-10.0.1.2")
	p.Quotas, q.CoolDown = map[string]int{"web": 1}, -1
	a := allocator(t, store, newClock(), vip.Config{Interval: time.Millisecond}, p, q)
	web := allocate(t, a, vip.Request{Owner: vip.Owner{Task: "H", Team: "web"}, Pool: "p"})
	held := []vip.Lease{allocate(t, a, vip.Request{Owner: owner("Q1"), Pool: "q"}),
		allocate(t, a, vip.Request{Owner: owner("Q2"), Pool: "q"})}
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
	require.Equal(t, "q", allocate(t, a, vip.Request{Owner: owner("newcomer2")}).Pool,
		"three will never be free in q")
	cancel()
	require.ErrorIs(t, <-group, context.Canceled)
}

func TestWaitReleaseFreesQuota(t *testing.T) {
	t.Parallel()
	p, q := pool(t, "p", "10.0.0.1-10.0.0.2"), pool(t, "q", "10.0.1.1")
	p.Quotas, p.CoolDown = map[string]int{"web": 1}, time.Hour
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{Interval: time.Hour}, p, q)
	web := allocate(t, a, vip.Request{Owner: vip.Owner{Task: "H", Team: "web"}, Pool: "p"})
	allocate(t, a, vip.Request{Owner: owner("Q"), Pool: "q"})
	served := make(chan vip.Lease)
	go func() {
		l, _ := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "W", Team: "web"},
			Wait: true})
		served <- l
	}()
	queued(t, a, 1)
	release(t, a, web)
	require.Equal(t, "10.0.0.2", (<-served).Addr.String())
}

// A waiter for a quota is not woken by a change that leaves the use of the quota as it is.
func TestWaitRenewalDoesNotWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, q := pool(t, "p", "10.0.0.1-10.0.0.2"), pool(t, "q", "10.0.1.1")
		p.Quotas = map[string]int{"web": 1}
		store := &hooked{Store: vip.NewMemStore()}
		a := allocator(t, store, newClock(), vip.Config{Interval: time.Hour}, p, q)
		web := allocate(t, a, vip.Request{Owner: vip.Owner{Task: "H", Team: "web"}, Pool: "p"})
		allocate(t, a, vip.Request{Owner: owner("Q"), Pool: "q"})
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() {
			_, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "W", Team: "web"},
				Wait: true})
			served <- err
		}()
		synctest.Wait()
		before := store.reads.Load()
		_, err := a.Renew(t.Context(), web.ID, 0)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, before, store.reads.Load())
		cancel()
		require.ErrorIs(t, <-served, context.Canceled)
	})
}

// A waiter behind another is woken as soon as that one does not want the pool any more, for any
// reason.
func TestWaitNextIsServed(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.1-10.0.0.3")
	p.Quotas, p.Labels = map[string]int{"web": 3}, map[string]string{"region": "bj"}
	named := func(task, team string) vip.Request {
		return vip.Request{Owner: vip.Owner{Task: task, Team: team}, Addr: addr("10.0.0.1")}
	}
	for what, happens := range map[string]func(t *testing.T, a, other *vip.Allocator,
		cancel func()){
		"it gives up": func(t *testing.T, a, other *vip.Allocator,
			cancel func()) {
			cancel()
		},
		"it has a lease": func(t *testing.T, a, other *vip.Allocator,
			cancel func()) {
			allocate(t, a, named("front", "web"))
		},
		"another allocator gave it one": func(t *testing.T, a, other *vip.Allocator,
			cancel func()) {
			allocate(t, other, named("front", "web"))
		},
		"its quota is used up": func(t *testing.T, a, other *vip.Allocator,
			cancel func()) {
			allocate(t, a, named("T", "web"))
		},
		"another allocator used it up": func(t *testing.T, a, other *vip.Allocator,
			cancel func()) {
			allocate(t, other, named("T", "web"))
		},
		"the pool has other labels": func(t *testing.T, a, other *vip.Allocator, cancel func()) {
			p := p
			p.Labels = nil
			require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, store, cfg := newClock(), vip.Shared(vip.NewMemStore()),
					vip.Config{Interval: time.Hour}
				a, other := allocator(t, store, c, cfg, p), allocator(t, store, c, cfg, p)
				allocate(t, a, vip.Request{Owner: owner("H"), Addr: addr("10.0.0.3")})
				ctx, cancel := context.WithCancel(t.Context())
				front := make(chan error, 1)
				go func() {
					req := vip.Request{Owner: vip.Owner{Task: "front", Team: "web"},
						Selector: p.Labels, Wait: true}
					_, err := a.AllocateN(ctx, req, 3)
					front <- err
				}()
				synctest.Wait()
				behind := wait(t.Context(), a, "behind", 0)
				synctest.Wait()
				require.Len(t, a.Waiting(), 2)
				happens(t, a, other, cancel)
				c.Add(5 * time.Second)
				require.NoError(t, a.Sweep(t.Context())) // which sees the other's changes
				synctest.Wait()
				require.Len(t, behind, 1)
				require.NoError(t, (<-behind).err)
				cancel()
				require.Error(t, <-front)
			})
		})
	}
}

// A pool that SetPools adds serves the waiters at once, in their order.
func TestWaitPoolIsAdded(t *testing.T) {
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

// The part of a quota that a failed allocation had reserved is free for the waiters.
func TestWaitFailureFreesQuota(t *testing.T) {
	t.Parallel()
	p, q := pool(t, "p", "10.0.0.1-10.0.0.2"), pool(t, "q", "10.0.1.1")
	p.Quotas = map[string]int{"web": 1}
	c, store := newClock(), &hooked{Store: vip.NewMemStore()}
	cfg := vip.Config{Interval: time.Hour}
	a, other := allocator(t, store, c, cfg, p, q), allocator(t, vip.Shared(store.Store), c, cfg, p, q)
	allocate(t, a, vip.Request{Owner: owner("Q"), Pool: "q"})
	served := make(chan result, 1)
	hook := func() {
		// while the address is being allocated, a request queues, and another takes the address
		go func() {
			l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "W", Team: "web"},
				Wait: true})
			served <- result{l, err}
		}()
		queued(t, a, 1)
		allocate(t, other, vip.Request{Owner: owner("O"), Addr: addr("10.0.0.1")})
	}
	store.next.Store(&hook)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "A", Team: "web"},
		Addr: addr("10.0.0.1")})
	require.ErrorIs(t, err, vip.ErrTaken)
	r := <-served
	require.NoError(t, r.err)
	require.Equal(t, "10.0.0.2", r.lease.Addr.String())
}

// hooked is a store that counts reads, and calls next before a commit.
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

func TestWaitMany(t *testing.T) {
	t.Parallel()
	eachMemStore(t, testWaitMany)
}

func testWaitMany(t *testing.T, store vip.Store) {
	p := pool(t, "p", "10.0.0.1-10.0.0.4")
	p.CoolDown = -1
	a := allocator(t, store, newClock(), vip.Config{}, p)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 60)
	for i := range 40 {
		go func() {
			l, err := a.Allocate(ctx, vip.Request{Owner: owner(fmt.Sprint("T", i)), Wait: true})
			if err == nil {
				_, err = a.Release(ctx, l.ID, "")
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
