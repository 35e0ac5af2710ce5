package vip_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func TestReadList(t *testing.T) {
	t.Parallel()
	p, err := vip.ReadList("tgw", strings.NewReader(`# from the provider
region,vip,ports,real_servers,reserved
bj,10.58.0.2,80 443,192.0.2.1 192.0.2.2,
bj,10.58.0.1,,,
sh,10.58.9.1,80,,used by the gateway
sh,fd00::1,80,,
`))
	require.NoError(t, err)
	require.Equal(t, []vip.Range{{First: addr("10.58.0.1"), Last: addr("10.58.0.2")},
		{First: addr("10.58.9.1"), Last: addr("10.58.9.1")},
		{First: addr("fd00::1"), Last: addr("fd00::1")}}, p.Ranges)
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1"), Addr: addr("10.58.0.2")})
	require.Equal(t, &vip.Details{Region: "bj", Ports: []uint16{80, 443},
		RealServers: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")}}, l.Details)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: owner("T2"), Addr: addr("10.58.9.1")})
	require.ErrorContains(t, err, "used by the gateway")
	require.Equal(t, uint64(4), conserved(t, a).Size)
}

func TestReadListNamesEveryFault(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"":                               "column names: EOF",
		"region\nbj\n":                   "column vip is missing",
		"vip,zone\n":                     `column "zone": want each of vip, region`,
		"vip,vip\n":                      `column "vip"`,
		"vip\n":                          "Pool.Ranges: want at least one",
		"vip\nx\n10.0.0.1\n10.0.0.1\n":   "line 4: address 10.0.0.1 stands in the list before",
		"vip,ports\n10.0.0.1,0\n":        `line 2: port "0"`,
		"vip,real_servers\n10.0.0.1,a\n": "line 2: real server: ",
		"vip,region\n10.0.0.1\n":         "wrong number of fields",
		"vip\n::ffff:10.0.0.1\n":         "line 2: range ::ffff:10.0.0.1: IPv4 in IPv6 form",
	} {
		_, err := vip.ReadList("tgw", strings.NewReader(list))
		require.ErrorContains(t, err, want, "%q", list)
		require.ErrorContains(t, err, `pool "tgw"`, "%q", list)
	}
}

func FuzzReadList(f *testing.F) {
	f.Add("vip,region,ports,real_servers,reserved\n10.0.0.1,bj,80 443,192.0.2.1,\n")
	f.Add("vip\n\"10.0.0.1\"\n")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := vip.ReadList("p", strings.NewReader(s))
		if err == nil && (len(p.Details) == 0 || len(p.Reserved) > len(p.Details)) {
			t.Errorf("%q: %+v", s, p)
		}
	})
}

func TestMaxCooling(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := pool(t, "p", "10.0.0.1-10.0.0.4")
	p.MaxCooling = 0.5
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p)
	var leases []vip.Lease
	for i := range 4 {
		leases = append(leases, allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", i))}))
	}
	for _, i := range []int{2, 0, 1} {
		release(t, a, leases[i])
		c.Add(time.Second)
	}
	l := allocate(t, a, vip.Request{Owner: owner("U1")})
	require.Equal(t, leases[2].Addr, l.Addr)
	require.Contains(t, l.Reason, "cut short")
	require.Equal(t, leases[2].Generation+1, l.Generation)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("U2")})
	require.ErrorIs(t, err, vip.ErrExhausted, "two of four may cool")
	require.Equal(t, uint64(2), conserved(t, a).Cooling)
}

// Allocators that share a store know each other only by the commits that the store refuses.
func TestAllocatorsOnOneStore(t *testing.T) {
	t.Parallel()
	store := vip.NewMemStore()
	p := pool(t, "p", "10.0.0.0/26")
	p.CoolDown = -1
	var held holders
	var wg sync.WaitGroup
	for w := range 8 {
		a, err := vip.Open(t.Context(), vip.Config{Store: store, Pools: []vip.Pool{p}})
		require.NoError(t, err)
		wg.Go(func() {
			for i := range 200 {
				task := fmt.Sprint("T", w, "-", i)
				l, err := a.Allocate(t.Context(), vip.Request{Owner: owner(task)})
				if err != nil {
					t.Error(err)
					return
				}
				held.take(t, l.Addr, task)
				runtime.Gosched()
				held.give(l.Addr)
				if _, err := a.Release(t.Context(), l.ID, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// An allocator that slept while its lease ended and the address went to another finds itself
// fenced.
func TestLateAllocatorIsFenced(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.1")
	sleeper, other := allocator(t, store, c, vip.Config{}, p), allocator(t, store, c, vip.Config{},
		p)
	l := allocate(t, sleeper, vip.Request{Owner: owner("T1"), TTL: time.Minute})
	_, err := other.Renew(t.Context(), l.ID, 0)
	require.NoError(t, err, "a lease that another allocator has given is looked up")
	c.Add(time.Minute)
	require.NoError(t, other.Sweep(t.Context()))
	c.Add(time.Hour)
	held := allocate(t, other, vip.Request{Owner: owner("T2"), TTL: vip.Forever})
	require.Equal(t, l.Addr, held.Addr)

	_, err = sleeper.Renew(t.Context(), l.ID, 0)
	require.ErrorIs(t, err, vip.ErrFenced)
	_, err = sleeper.Release(t.Context(), l.ID, "")
	require.ErrorIs(t, err, vip.ErrFenced)
	require.NoError(t, sleeper.Sweep(t.Context()))
	got, err := other.Get(t.Context(), held.ID)
	require.NoError(t, err)
	require.Equal(t, held, got)
}
