package vip_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// No pool hands out an address that cannot be one host's, however it is written.
func TestPoolRefusesSpecialAddresses(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"224.0.0.0/24": "multicast", "239.255.255.255": "multicast",
		"223.255.255.0-224.0.0.0": "multicast",
		"ff02::/120":              "multicast", "ff05::1:3": "multicast",
		"169.254.0.0/16": "link-local", "169.254.169.254": "link-local", "fe80::/120": "link-local",
		"febf::1": "link-local",
		"0.0.0.0": "this network", "0.0.0.0/0": "this network", "::": "unspecified",
		"::/120":          "unspecified",
		"255.255.255.255": "broadcast", "255.255.255.0/24": "broadcast",
	} {
		_, err := vip.ParseRange(text)
		require.ErrorContains(t, err, says, text)
		_, err = vip.ParsePool("p", text)
		require.ErrorContains(t, err, says, text)
	}
	_, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{{
		Name: "p", Ranges: []vip.Range{{First: addr("10.0.0.1"), Last: addr("239.0.0.1")}},
	}}})
	require.ErrorIs(t, err, vip.ErrInvalid)
	for _, text := range []string{"127.58.0.0/24", "::1", "240.0.0.0/24", "223.255.255.0/24",
		"fec0::/120", "fd00::/120", "64:ff9b::/96"} {
		_, err := vip.ParseRange(text)
		require.NoError(t, err, text)
	}
}

// The first address of an IPv6 subnet is its routers', all of them.
func TestPoolReservesRoutersAnycast(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"fd00::/96": "fd00::", "fd00:0:0:1::/120": "fd00:0:0:1::", "fd00::100/120": "fd00::100",
		"fd00::-fd00::9": "fd00::",
		"fd00::":         "fd00::", "fd00::1-fd00::9": "", "fd00::2/127": "", "fd00::7": "",
		"fd00::1/128": "", "10.0.0.1": "",
	} {
		p, err := vip.ParsePool("p", text)
		require.NoError(t, err, text)
		if want == "" {
			require.Empty(t, p.Reserved, text)
			continue
		}
		require.Equal(t, map[netip.Addr]string{addr(want): "subnet-router anycast address"},
			p.Reserved, text)
	}
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "fd00::/120"))
	require.Equal(t, addr("fd00::1"), allocate(t, a, vip.Request{Owner: owner("T1")}).Addr)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T2"), Addr: addr("fd00::")})
	require.ErrorIs(t, err, vip.ErrTaken)
}

// The addresses from fdff:ffff:ffff:ff80 on in a /64 are anycast addresses: RFC 2526, section 2.
func TestPoolReservesSubnetAnycast(t *testing.T) {
	t.Parallel()
	const reason = "subnet anycast address"
	for text, want := range map[string]struct {
		first, last string
		anycast     int
		routers     []string
	}{
		"fd00::/64": {"fd00::fdff:ffff:ffff:ff80", "fd00::fdff:ffff:ffff:ffff", 128,
			[]string{"fd00::"}},
		"fd00::fdff:ffff:ffff:ff00/120": {"fd00::fdff:ffff:ffff:ff80", "fd00::fdff:ffff:ffff:ffff",
			128, []string{"fd00::fdff:ffff:ffff:ff00"}},
		"fd00::fdff:ffff:ffff:fffe-fd00::fe00:0:0:1": {"fd00::fdff:ffff:ffff:fffe",
			"fd00::fdff:ffff:ffff:ffff", 2, nil},
		"fd00::fdff:ffff:ffff:ff80": {"fd00::fdff:ffff:ffff:ff80", "fd00::fdff:ffff:ffff:ff80", 1,
			nil},
		"fd00::1-fd00:0:0:1::1": {"fd00::fdff:ffff:ffff:ff80", "fd00::fdff:ffff:ffff:ffff", 128,
			[]string{"fd00:0:0:1::"}},
		"fd00::/62": {"fd00::fdff:ffff:ffff:ff80", "fd00:0:0:3:fdff:ffff:ffff:ffff", 4 * 128,
			[]string{"fd00::", "fd00:0:0:1::", "fd00:0:0:2::", "fd00:0:0:3::"}},
		"fd00::/48": {"fd00::fdff:ffff:ffff:ff80", "fd00:0:0:ffff:fdff:ffff:ffff:ffff", 16 * 128,
			[]string{"fd00:0:0:e::", "fd00:0:0:ffff::"}},
	} {
		p, err := vip.ParsePool("p", text)
		require.NoError(t, err, text)
		anycast := 0
		for _, r := range p.Reserved {
			if r == reason {
				anycast++
			}
		}
		require.Equal(t, want.anycast, anycast, text)
		require.Equal(t, reason, p.Reserved[addr(want.first)], text)
		require.Equal(t, reason, p.Reserved[addr(want.last)], text)
		require.NotContains(t, p.Reserved, addr(want.first).Prev(), text)
		require.NotContains(t, p.Reserved, addr(want.last).Next(), text)
		for _, r := range want.routers {
			require.Equal(t, "subnet-router anycast address", p.Reserved[addr(r)], text)
		}
	}
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{},
		pool(t, "p", "fd00::fdff:ffff:ffff:ff7f-fd00:0:0:1::1"))
	require.Equal(t, addr("fd00::fdff:ffff:ffff:ff7f"), allocate(t, a,
		vip.Request{Owner: owner("T1")}).Addr)
	require.Equal(t, addr("fd00::fe00:0:0:0"), allocate(t, a,
		vip.Request{Owner: owner("T2")}).Addr)
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T3"),
		Addr: addr("fd00::fdff:ffff:ffff:fffe")})
	require.ErrorIs(t, err, vip.ErrTaken)
}

// An IPv4 address in IPv6 form is the IPv4 address in every call.
func TestMappedAddressEverywhere(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "p", "10.0.0.1-10.0.0.9"))
	plain, mapped := addr("10.0.0.7"), addr("::ffff:10.0.0.7")
	l := allocate(t, a, vip.Request{Owner: owner("T1"), Addr: mapped})
	require.Equal(t, plain, l.Addr)
	require.Equal(t, l.ID, allocate(t, a, vip.Request{Owner: owner("T1"), Addr: mapped}).ID)
	require.Len(t, a.List(vip.Query{Addr: mapped}), 1)
	holder, err := a.Holder(t.Context(), mapped)
	require.NoError(t, err)
	require.Equal(t, l.ID, holder.ID)
	pool, owned := a.Owns(mapped)
	require.Equal(t, "p", pool)
	require.True(t, owned)
	s, err := a.Snapshot(t.Context())
	require.NoError(t, err)
	require.NotZero(t, s.Revision(mapped))
	past, err := a.History(t.Context(), mapped)
	require.NoError(t, err)
	require.Len(t, past, 1)
	_, err = a.At(t.Context(), mapped, c.Now())
	require.NoError(t, err)
	_, err = a.ReleaseUnchanged(t.Context(), s, mapped, "")
	require.NoError(t, err)
	q, err := a.Quarantine(t.Context(), mapped, "flaps", 0)
	require.NoError(t, err)
	require.Equal(t, plain, q.Addr)
	q, err = a.Restore(t.Context(), mapped, "")
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, q.State)
	bad := []vip.Pool{{Name: "p", Ranges: []vip.Range{{First: plain, Last: plain}},
		Details: map[netip.Addr]vip.Details{mapped: {}}}}
	require.ErrorContains(t, a.SetPools(t.Context(), bad), "Pool.Details: address "+
		"::ffff:10.0.0.7: want a plain")
}

// A task that is deployed again has its address again: its testers have it in their hosts files.
func TestOwnerKeepsAddress(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]vip.Request{
		"as before":          {Owner: owner("T1", "web", "v1")},
		"another version":    {Owner: owner("T1", "web", "v2")},
		"asked by name":      {Owner: owner("T1", "web", "v1"), Addr: addr("10.0.0.1")},
		"with a request id":  {Owner: owner("T1", "web", "v1"), RequestID: "second"},
		"asks for no expiry": {Owner: owner("T1", "web", "v1"), TTL: vip.Forever},
	} {
		for _, shared := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", shared store"}[shared], func(t *testing.T) {
				t.Parallel()
				c, p := newClock(), pool(t, "p", "10.0.0.1-10.0.0.4")
				store := sharedIf(shared, vip.NewMemStore())
				a := allocator(t, store, c, vip.Config{}, p)
				first := allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1"),
					RequestID: "first"})
				require.Equal(t, addr("10.0.0.1"), first.Addr)
				for round := range 3 {
					release(t, a, a.List(vip.Query{Task: "T1", States: []vip.State{vip.Leased}})[0])
					if round == 1 {
						a = allocator(t, store, c, vip.Config{}, p) // a restart in between
					}
					c.Add(time.Second)
					again := again
					if again.RequestID != "" {
						again.RequestID += fmt.Sprint(round)
					}
					l := allocate(t, a, again)
					require.Equal(t, first.Addr, l.Addr)
					require.Greater(t, l.Generation, first.Generation)
					require.Empty(t, l.Reason)
					_, err := a.Renew(t.Context(), first.ID, 0)
					require.ErrorIs(t, err, vip.ErrFenced)
				}
				conserved(t, a)
				// the address of an expired lease, too
				c.Add(48 * time.Hour)
				require.NoError(t, a.Sweep(t.Context()))
				require.Equal(t, first.Addr, allocate(t, a, again).Addr)
			})
		}
	}
}

// To anyone else the address stays closed until it has rested.
func TestOtherOwnerWaitsForCoolDown(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]vip.Owner{
		"another task": owner("T2", "web", "v1"), "other clusters": owner("T1", "api", "v1"),
		"no clusters": owner("T1"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{},
				pool(t, "p", "10.0.0.1-10.0.0.4"))
			l := allocate(t, a, vip.Request{Owner: owner("T1", "web", "v1")})
			release(t, a, l)
			_, err := a.Allocate(t.Context(), vip.Request{Owner: other, Addr: l.Addr})
			require.ErrorIs(t, err, vip.ErrTaken)
			require.NotEqual(t, l.Addr, allocate(t, a, vip.Request{Owner: other}).Addr)
		})
	}
	c := newClock()
	p := pool(t, "p", "10.0.0.1-10.0.0.4")
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	release(t, a, l)
	c.Add(time.Hour)
	_ = allocate(t, a, vip.Request{Owner: owner("T2"), Addr: l.Addr}) // another had it since
	require.NotEqual(t, l.Addr, allocate(t, a, vip.Request{Owner: owner("T1")}).Addr)

	l = allocate(t, a, vip.Request{Owner: owner("T3")})
	release(t, a, l)
	p.Reserved[l.Addr] = "the gateway moves here"
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
	require.NotEqual(t, l.Addr, allocate(t, a, vip.Request{Owner: owner("T3")}).Addr)
}

// The address goes back while its proof of draining is still out, and the proof that comes then
// ends nothing.
func TestOwnerKeepsDrainingAddress(t *testing.T) {
	t.Parallel()
	c := newClock()
	cfg := vip.Config{Drained: func(context.Context, vip.Lease) (bool, error) { return false, nil }}
	a := allocator(t, vip.NewMemStore(), c, cfg, pool(t, "p", "10.0.0.1-10.0.0.4"))
	first := allocate(t, a, vip.Request{Owner: owner("T1")})
	require.Equal(t, vip.Draining, release(t, a, first).State)
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	require.Equal(t, first.Addr, l.Addr)
	c.Add(time.Hour)
	require.NoError(t, a.Sweep(t.Context()))
	l, err := a.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, vip.Leased, l.State)
}
