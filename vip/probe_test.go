package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// prober says that some addresses are in use, and notes the addresses that it was asked about.
type prober struct {
	mu    sync.Mutex
	used  map[netip.Addr]bool
	err   error
	asked []netip.Addr
}

func (p *prober) probe(_ context.Context, addr netip.Addr) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, addr)
	return p.used[addr], p.err
}

func TestProbe(t *testing.T) {
	t.Parallel()
	c, p := newClock(), pool(t, "p", "10.0.0.1-10.0.0.8")
	p.MaxQuarantined = 0.5
	used := &prober{used: map[netip.Addr]bool{addr("10.0.0.1"): true, addr("10.0.0.2"): true}}
	a := allocator(t, vip.NewMemStore(), c, vip.Config{Probe: used.probe}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	require.Equal(t, addr("10.0.0.3"), l.Addr)
	aside := a.List(vip.Query{States: []vip.State{vip.Quarantined}})
	require.Len(t, aside, 2)
	require.Equal(t, "in use, by the word of Config.Probe", aside[0].Reason)
	require.Equal(t, c.Now().Add(10*time.Minute), aside[0].CoolUntil)
	require.Equal(t, vip.Owner{}, aside[0].Owner)

	require.Len(t, used.asked, 3)
	allocate(t, a, vip.Request{Owner: owner("T1")}) // it has the lease
	release(t, a, l)
	used.used[l.Addr] = true
	require.Equal(t, l.Addr, allocate(t, a, vip.Request{Owner: owner("T1")}).Addr)
	require.Len(t, used.asked, 3, "the owner itself may be the one who uses it")

	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T2"), Addr: addr("10.0.0.1")})
	require.ErrorIs(t, err, vip.ErrTaken)
	used.used[addr("10.0.0.8")] = true
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("T2"), Addr: addr("10.0.0.8")})
	require.ErrorIs(t, err, vip.ErrTaken)
	require.ErrorContains(t, err, "in use, by the word of Config.Probe")
	c.Add(time.Hour)
	clear(used.used)
	require.Equal(t, addr("10.0.0.1"), allocate(t, a, vip.Request{Owner: owner("T2"),
		Addr: addr("10.0.0.1")}).Addr)
	conserved(t, a)
}

// Of several addresses together one in use is replaced.
func TestProbeSeveral(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.1-10.0.0.8")
	p.MaxQuarantined = 0.5
	used := &prober{used: map[netip.Addr]bool{addr("10.0.0.2"): true}}
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{Probe: used.probe}, p)
	all, err := a.AllocateN(t.Context(), vip.Request{Owner: owner("T1")}, 3)
	require.NoError(t, err)
	var got []string
	for _, l := range all {
		got = append(got, l.Addr.String())
	}
	require.NotContains(t, got, "10.0.0.2")
	require.Equal(t, uint64(3), conserved(t, a).Leased)
	require.Equal(t, uint64(1), conserved(t, a).Quarantined)
}

// A probe that finds everything in use does not empty the pool, and one that fails gives nothing
// away.
func TestProbeFaults(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.1-10.0.0.20")
	all := map[netip.Addr]bool{}
	for i := range 20 {
		all[netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})] = true
	}
	used := &prober{used: all}
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{Probe: used.probe}, p)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T1")})
	require.ErrorIs(t, err, vip.ErrQuarantineFull)
	require.ErrorContains(t, err, "address 10.0.0.3 is in use")
	require.Equal(t, uint64(2), conserved(t, a).Quarantined)
	require.Equal(t, uint64(18), conserved(t, a).Free)

	clear(all)
	used.err = errors.New("no socket left")
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("T1")})
	require.ErrorIs(t, err, used.err)
	require.ErrorContains(t, err, `allocate for task "T1": probe 10.0.0.4: no socket left`)
	require.Equal(t, uint64(18), conserved(t, a).Free)
	used.err = nil
	allocate(t, a, vip.Request{Owner: owner("T1")})

	why := errors.New("the program ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	b := allocator(t, vip.NewMemStore(), newClock(),
		vip.Config{Probe: func(ctx context.Context, _ netip.Addr) (bool, error) {
			cancel(why)
			<-ctx.Done()
			return true, ctx.Err()
		}}, p)
	_, err = b.Allocate(ctx, vip.Request{Owner: owner("T1")})
	require.ErrorIs(t, err, why)
	require.Equal(t, uint64(20), conserved(t, b).Free, "what was cut short says nothing")
}

// While one address is asked about, other calls go on, and calls of the same owner wait for it.
func TestProbeHoldsUpNobody(t *testing.T) {
	t.Parallel()
	probing, goOn := make(chan struct{}, 1), make(chan struct{})
	slow := addr("10.0.0.1")
	cfg := vip.Config{Probe: func(_ context.Context, addr netip.Addr) (bool, error) {
		if addr == slow {
			probing <- struct{}{}
			<-goOn
		}
		return false, nil
	}}
	a := allocator(t, vip.NewMemStore(), newClock(), cfg, pool(t, "p", "10.0.0.1-10.0.0.8"))
	type answer struct {
		lease vip.Lease
		err   error
	}
	answers := make(chan answer)
	ask := func() {
		l, err := a.Allocate(context.Background(), vip.Request{Owner: owner("T1")})
		answers <- answer{l, err}
	}
	go ask()
	<-probing
	go ask()
	other := allocate(t, a, vip.Request{Owner: owner("T2")})
	require.Equal(t, addr("10.0.0.2"), other.Addr)
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{pool(t, "p", "10.0.0.1-10.0.0.9")}))
	close(goOn)
	for range 2 {
		got := <-answers
		require.NoError(t, got.err)
		require.Equal(t, slow, got.lease.Addr)
	}
	require.Equal(t, uint64(2), conserved(t, a).Leased)
}

// Many callers with a probe that says no now and then: no address twice, and none of those in use.
func TestProbeConcurrently(t *testing.T) {
	t.Parallel()
	eachMemStore(t, testProbeConcurrently)
}

func testProbeConcurrently(t *testing.T, store vip.Store) {
	p := pool(t, "p", "10.0.0.1-10.0.0.100")
	p.MaxQuarantined = 1
	inUse := func(a netip.Addr) bool { return a.As4()[3]%5 == 0 }
	cfg := vip.Config{Probe: func(_ context.Context, a netip.Addr) (bool, error) {
		return inUse(a), nil
	}}
	a := allocator(t, store, newClock(), cfg, p)
	var held holders
	var callers sync.WaitGroup
	for i := range 80 {
		callers.Go(func() {
			l, err := a.Allocate(context.Background(),
				vip.Request{Owner: owner(fmt.Sprint("T", i))})
			if err != nil {
				t.Errorf("T%d: %v", i, err)
				return
			}
			held.take(t, l.Addr, l.Owner.Task)
		})
	}
	callers.Wait()
	require.Equal(t, uint64(80), conserved(t, a).Leased)
	require.False(t, slices.ContainsFunc(a.List(vip.Query{States: []vip.State{vip.Leased}}),
		func(l vip.Lease) bool {
			return inUse(l.Addr)
		}))
}
