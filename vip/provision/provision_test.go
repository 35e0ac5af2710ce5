package provision_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/provision"
)

// wire is a driver that remembers the announced addresses.
type wire struct {
	mu    sync.Mutex
	have  []netip.Addr
	calls int
	bad   map[netip.Addr]error
	err   error
}

func (w *wire) Apply(_ context.Context, want []netip.Addr) (map[netip.Addr]error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if w.err != nil {
		return nil, w.err
	}
	w.have = nil
	aside := map[netip.Addr]error{}
	for _, a := range want {
		if why := w.bad[a]; why != nil {
			aside[a] = why
		} else {
			w.have = append(w.have, a)
		}
	}
	return aside, nil
}

func (w *wire) set(err error, bad map[netip.Addr]error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err, w.bad = err, bad
}

func (w *wire) announces(want ...netip.Addr) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return fmt.Sprint(w.have) == fmt.Sprint(want)
	}
}

func TestKeeperFollowsTheLeases(t *testing.T) {
	t.Parallel()
	p, err := vip.ParsePool("p", "10.0.0.1-10.0.0.9")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	lease := func(task string) vip.Lease {
		l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task}})
		require.NoError(t, err)
		return l
	}
	soon := func(condition func() bool) {
		t.Helper()
		require.Eventually(t, condition, time.Minute, time.Millisecond)
	}
	x := lease("T1")
	w := &wire{}
	k := &provision.Keeper{Allocator: a, Driver: w, Retry: time.Millisecond}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	soon(w.announces(x.Addr))
	y := lease("T2")
	soon(w.announces(x.Addr, y.Addr))
	_, err = a.Release(t.Context(), x.ID, "done")
	require.NoError(t, err)
	w.set(errors.New("no such device"), nil)
	z := lease("T3")
	w.set(nil, map[netip.Addr]error{y.Addr: errors.New("someone else answers")})
	soon(w.announces(x.Addr, z.Addr)) // x cools down: Nginx still answers on it
	soon(func() bool { return len(k.Aside()) == 1 })
	require.EqualError(t, k.Aside()[y.Addr], "someone else answers")
	_, err = a.Quarantine(t.Context(), x.Addr, "flaps", 0)
	require.NoError(t, err)
	soon(w.announces(z.Addr))

	lost := errors.New("another machine has the job")
	cancel(lost)
	require.ErrorIs(t, <-done, lost)
	require.True(t, w.announces()(), "withdrawn before Run returned")
}

func TestKeeperHoldsWhatTheStoreHasLost(t *testing.T) {
	t.Parallel()
	p, err := vip.ParsePool("p", "10.0.0.1-10.0.0.9")
	require.NoError(t, err)
	store := vip.NewMemStore()
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.Shared(store), Pools: []vip.Pool{p},
		Refresh: time.Nanosecond})
	require.NoError(t, err)
	lease := func(task string) vip.Lease {
		l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task}})
		require.NoError(t, err)
		return l
	}
	soon := func(condition func() bool) {
		t.Helper()
		require.Eventually(t, condition, time.Minute, time.Millisecond)
	}
	x, y := lease("T1"), lease("T2")
	w := &wire{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	run := func(ctx context.Context) {
		go func() { done <- (&provision.Keeper{Allocator: a, Driver: w}).Run(ctx) }()
	}
	run(ctx)
	soon(w.announces(x.Addr, y.Addr))
	for _, l := range []vip.Lease{x, y} {
		_, err = store.Commit(t.Context(), vip.Change{Key: "addr/" + l.Addr.String(),
			Revision: vip.AnyRevision})
		require.NoError(t, err)
	}
	require.NoError(t, a.Sweep(t.Context()))
	require.Empty(t, a.List(vip.Query{}))
	z := lease("T3")
	require.NotEqual(t, y.Addr, z.Addr)
	soon(func() bool {
		return w.announces(x.Addr, y.Addr)() || w.announces(x.Addr, y.Addr, z.Addr)()
	})
	_, err = a.Quarantine(t.Context(), y.Addr, "flaps", 0) // the store has a record of it again
	require.NoError(t, err)
	soon(func() bool { return w.announces(x.Addr)() || w.announces(x.Addr, z.Addr)() })
	_, err = a.Release(t.Context(), z.ID, "done")
	require.NoError(t, err)

	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.True(t, w.announces()(), "withdrawn before Run returned")
	next, stop := context.WithCancel(t.Context())
	run(next) // it takes the store as it is
	soon(w.announces(z.Addr))
	stop()
	require.ErrorIs(t, <-done, context.Canceled)
}

func TestKeeperSaysWhenItCannotWithdraw(t *testing.T) {
	t.Parallel()
	p, err := vip.ParsePool("p", "10.0.0.1")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	w := &wire{err: errors.New("no such device")}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = (&provision.Keeper{Allocator: a, Driver: w}).Run(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "withdraw addresses: no such device")
}

func TestImports(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/vip/provision/keepalived", "net/http")
}

func ExampleKeeper() {
	p, _ := vip.ParsePool("test", "127.58.0.0/24")
	a, _ := vip.Open(context.Background(), vip.Config{Store: vip.NewMemStore(),
		Pools: []vip.Pool{p}})
	ctx, cancel := context.WithCancel(context.Background())
	k := &provision.Keeper{Allocator: a, Driver: provision.None{}}
	cancel()
	fmt.Println(k.Run(ctx))
	// Output: context canceled
}
