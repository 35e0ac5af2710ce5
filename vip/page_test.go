package vip_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// pages lists q page by page.
func pages(a *vip.Allocator, q vip.Query, limit int) (all []vip.Lease) {
	q.Limit = limit
	for {
		page := a.List(q)
		all = append(all, page...)
		if len(page) < limit {
			return all
		}
		q.After = page[len(page)-1].Addr
	}
}

func addresses(leases []vip.Lease) (all []netip.Addr) {
	for _, l := range leases {
		all = append(all, l.Addr)
	}
	return all
}

// 3,000 leases of two teams, in two families, found by each of their traits in pages of any size.
func TestListPages(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "six", "fd00::100-fd00::1fff"),
		pool(t, "four", "10.0.0.0/20"))
	var want []netip.Addr
	for i := range 3000 {
		l := allocate(t, a, vip.Request{
			Owner: vip.Owner{Task: fmt.Sprint("T", i%700), Team: fmt.Sprint(i % 2),
				Overrides: map[string]string{fmt.Sprint("c", i): "v1"}},
			Pool: []string{"six", "four"}[i%3%2],
		})
		_, err := a.Bind(t.Context(), l.ID, []vip.Instance{{
			ID: fmt.Sprint("i", i%10), Addr: netip.AddrPortFrom(addr("192.0.2.1"), uint16(1+i%10)),
			Cluster: "bound", Version: "v1",
		}})
		require.NoError(t, err)
		want = append(want, l.Addr)
	}
	slices.SortFunc(want, netip.Addr.Compare)
	require.Equal(t, want, addresses(a.List(vip.Query{})))
	for q, n := range map[*vip.Query]int{
		{}: 3000, {Team: "1"}: 1500, {Cluster: "bound"}: 3000, {Cluster: "bound", Version: "v1",
			Team: "0"}: 1500, {Instance: "i3"}: 300,
		{InstanceAddr: netip.MustParseAddrPort("192.0.2.1:4"), Instance: "i3"}: 300, {Pool: "four"}: 1000,
		{Task: "T12"}:   5,
		{Version: "v1"}: 3000, {Version: "v2"}: 0, {Team: "1", Instance: "i3"}: 300,
		{Team: "0", Instance: "i3"}: 0,
	} {
		all := a.List(*q)
		require.Len(t, all, n, "%+v", q)
		for _, limit := range []int{1000, 37, max(n, 1), n + 1} {
			require.Equal(t, all, pages(a, *q, limit), "%+v", q)
		}
	}
	require.Empty(t, a.List(vip.Query{Addr: want[0], After: want[0]}))
	require.Equal(t, want[:1], addresses(a.List(vip.Query{Addr: want[0], After: addr("0.0.0.0"),
		Limit: 1})))
	require.Equal(t, want[1000:1002], addresses(
		a.List(vip.Query{After: addr("::ffff:255.255.255.255"), Limit: 2})))
	for _, l := range a.List(vip.Query{Team: "1"}) {
		release(t, a, l)
	}
	require.Len(t, a.List(vip.Query{}), 3000, "half of them cool down")
	require.Len(t, a.List(vip.Query{States: []vip.State{vip.Leased}}), 1500)
	require.Empty(t, a.List(vip.Query{Team: "1", States: []vip.State{vip.Leased}}))
}

// A lease that lives from the first page to the last is in one of them, although others change
// meanwhile; a list without a limit shows a task that moves with one address.
func TestListBesideChanges(t *testing.T) {
	t.Parallel()
	eachMemStore(t, testListBesideChanges)
}

func testListBesideChanges(t *testing.T, store vip.Store) {
	p := pool(t, "p", "10.0.0.0/22")
	p.CoolDown = -1
	a := allocator(t, store, newClock(), vip.Config{}, p)
	kept := map[netip.Addr]bool{}
	for i := range 500 {
		l := allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("kept-", i))})
		if i%2 == 0 {
			kept[l.Addr] = true
		} else {
			release(t, a, l)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			req := vip.Request{Owner: owner(fmt.Sprint("moves-", g))}
			for i := 0; ctx.Err() == nil; i++ {
				l, err := a.Allocate(t.Context(), req)
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
	for range 50 {
		found := map[netip.Addr]int{}
		for _, l := range pages(a, vip.Query{States: []vip.State{vip.Leased}}, 64) {
			found[l.Addr]++
		}
		for at := range kept {
			require.Equal(t, 1, found[at], "%s", at)
		}
		tasks := map[string]int{}
		for _, l := range a.List(vip.Query{States: []vip.State{vip.Leased}}) {
			tasks[l.Owner.Task]++
			require.Equal(t, 1, tasks[l.Owner.Task], l.Owner.Task)
		}
	}
	stop()
	wg.Wait()
}
