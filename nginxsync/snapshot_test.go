package nginxsync_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/names/namestest"
	"github.com/sluice-deploy/sluice/nginxsync"
)

type (
	clusters = map[string][]nginxsync.Instance
	overlays = map[netip.Addr]map[string][]nginxsync.Instance
)

var vip = netip.MustParseAddr("10.0.0.9")

func serves(ids ...string) []nginxsync.Instance {
	list := []nginxsync.Instance{}
	for _, id := range ids {
		list = append(list, nginxsync.Instance{ID: id, Addr: netip.MustParseAddrPort("10.1.0.1:80"),
			Version: "v1"})
	}
	return list
}

func TestValidateNamesEverything(t *testing.T) {
	t.Parallel()
	s := nginxsync.Snapshot{Baseline: clusters{"a b": {{ID: "", Weight: -1, Version: "-"}}}}
	err := s.Validate()
	for _, want := range []string{`cluster "a b"`, "id: is empty", "weight -1",
		`version "-" stands for no version`, "want a host address"} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
}

func TestNames(t *testing.T) {
	t.Parallel()
	with := func(f func(*nginxsync.Instance)) error {
		in := serves("i")[0]
		f(&in)
		return nginxsync.Snapshot{Baseline: clusters{"a": {in}}}.Validate()
	}
	namestest.Run(t, namestest.Cluster, func(s string) error {
		return nginxsync.Snapshot{Overlays: overlays{vip: {s: serves("i")}}}.Validate()
	})
	namestest.Run(t, namestest.Instance, func(s string) error {
		return with(func(in *nginxsync.Instance) { in.ID = s })
	})
	namestest.Run(t, namestest.Version, func(s string) error {
		if s == "" {
			return nginxsync.ErrInvalid // empty stands for no version here
		}
		return with(func(in *nginxsync.Instance) { in.Version = s })
	})
}

func TestAddressesOfNoHost(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"169.254.169.254:80", "[::ffff:169.254.1.1]:80", "[fe80::1]:80",
		"224.0.0.1:80", "[ff02::1]:80", "255.255.255.255:80"} {
		in := serves("i1")
		in[0].Addr = netip.MustParseAddrPort(addr)
		err := nginxsync.Snapshot{Baseline: clusters{"a": in}}.Validate()
		require.ErrorIs(t, err, nginxsync.ErrInvalid, addr)
		require.ErrorContains(t, err, "want that of a host")
	}
}

// Each bad record is set aside with its reason, and nothing else changes.
func TestUsable(t *testing.T) {
	t.Parallel()
	good := serves("i1", "i2")
	bad := func(f func(*nginxsync.Instance)) []nginxsync.Instance {
		list := serves("i1", "i2")
		f(&list[0])
		return list
	}
	for _, c := range []struct {
		name string
		in   nginxsync.Snapshot
		out  nginxsync.Snapshot
		want []string // beginnings of the records that are set aside
	}{
		{"all good", nginxsync.Snapshot{Baseline: clusters{"a": good},
			Overlays: overlays{vip: {"a": good}}, Planned: []nginxsync.Intent{{Cluster: "a"}}},
			nginxsync.Snapshot{Baseline: clusters{"a": good}, Overlays: overlays{vip: {"a": good}},
				Planned: []nginxsync.Intent{{Cluster: "a"}}}, nil},
		{"weight", nginxsync.Snapshot{Baseline: clusters{"a": bad(func(in *nginxsync.Instance) {
			in.Weight = 65536
		}), "b": good}},
			nginxsync.Snapshot{Baseline: clusters{"a": serves("i2"), "b": good}},
			[]string{`baseline cluster "a" instance "i1": weight 65536`}},
		{"address",
			nginxsync.Snapshot{Overlays: overlays{vip: {"a": bad(func(in *nginxsync.Instance) {
				in.Addr = netip.AddrPort{}
			})}}},
			nginxsync.Snapshot{Overlays: overlays{vip: {"a": serves("i2")}}},
			[]string{`vip 10.0.0.9 cluster "a" instance "i1": address `}},
		{"version", nginxsync.Snapshot{Baseline: clusters{"a": bad(func(in *nginxsync.Instance) {
			in.Version = "1.0+5"
		})}},
			nginxsync.Snapshot{Baseline: clusters{"a": serves("i2")}},
			[]string{`baseline cluster "a" instance "i1": version "1.0+5": byte 4 is '+': write '_'`}},
		{"id", nginxsync.Snapshot{Baseline: clusters{"a": bad(func(in *nginxsync.Instance) {
			in.ID = "a\nb 1"
		})}},
			nginxsync.Snapshot{Baseline: clusters{"a": serves("i2")}},
			[]string{`baseline cluster "a" instance "a\nb 1": id: byte 2 is '\n'`}},
		{"the first of two with an id stays",
			nginxsync.Snapshot{Baseline: clusters{"a": append(serves("i1"),
				nginxsync.Instance{ID: "i1", Addr: netip.MustParseAddrPort("10.1.0.2:80")})}},
			nginxsync.Snapshot{Baseline: clusters{"a": serves("i1")}},
			[]string{`baseline cluster "a" instance "i1": listed twice`}},
		{"cluster of the baseline", nginxsync.Snapshot{Baseline: clusters{"Hello_Web": good,
			"b": good}},
			nginxsync.Snapshot{Baseline: clusters{"b": good}},
			[]string{`baseline cluster "Hello_Web": byte 1 is the capital 'H'`}},
		{"an overlay whose instances are all bad is empty",
			nginxsync.Snapshot{Baseline: clusters{"a": good},
				Overlays: overlays{vip: {"a": bad(func(in *nginxsync.Instance) {
					in.Weight = -1
				})[:1]}}},
			nginxsync.Snapshot{Baseline: clusters{"a": good}, Overlays: overlays{vip: {"a": {}}}},
			[]string{`vip 10.0.0.9 cluster "a" instance "i1": weight -1`}},
		{"an overlay with capitals answers 503 under both names",
			nginxsync.Snapshot{Baseline: clusters{"hello_web": good},
				Overlays: overlays{vip: {"Hello_Web": good, "b": good}}},
			nginxsync.Snapshot{Baseline: clusters{"hello_web": good},
				Overlays: overlays{vip: {"Hello_Web": {}, "hello_web": {}, "b": good}}},
			[]string{`vip 10.0.0.9 cluster "Hello_Web": byte 1 is the capital 'H'`}},
		{"the overlay of the right name stays",
			nginxsync.Snapshot{Overlays: overlays{vip: {"Hello_Web": serves("i1"),
				"hello_web": good}}},
			nginxsync.Snapshot{Overlays: overlays{vip: {"Hello_Web": {}, "hello_web": good}}},
			[]string{`vip 10.0.0.9 cluster "Hello_Web": `}},
		{"names that the routes cannot carry",
			nginxsync.Snapshot{Overlays: overlays{vip: {"hello web": good, "商品": good, "a\nb": good,
				strings.Repeat("a", 200): good, "b": good}}},
			nginxsync.Snapshot{Overlays: overlays{vip: {"b": good}}},
			[]string{`vip 10.0.0.9 cluster "a\nb": `, `vip 10.0.0.9 cluster "aaaa`,
				`vip 10.0.0.9 cluster "hello web": `, `vip 10.0.0.9 cluster "\u5546\u54c1": `}},
		{"no address", nginxsync.Snapshot{Overlays: overlays{{}: {"a": good},
			netip.IPv4Unspecified(): {"a": good}, vip: {"a": good}}},
			nginxsync.Snapshot{Overlays: overlays{vip: {"a": good}}},
			[]string{"vip: want the address of a host", "vip 0.0.0.0: "}},
		{"IPv4 in IPv6 is the IPv4 address",
			nginxsync.Snapshot{Overlays: overlays{netip.MustParseAddr(
				"::ffff:10.0.0.9"): {"a": good}}},
			nginxsync.Snapshot{Overlays: overlays{vip: {"a": good}}}, nil},
		{"the IPv4 address counts", nginxsync.Snapshot{Overlays: overlays{vip: {"a": good},
			netip.MustParseAddr("::ffff:10.0.0.9"): {"a": serves("i3"), "b": good}}},
			nginxsync.Snapshot{Overlays: overlays{vip: {"a": good, "b": good}}},
			[]string{`vip ::ffff:10.0.0.9 cluster "a": the overlay of 10.0.0.9 has the cluster too`}},
		{"a bad name of another way to write the address leaves the overlay of the address",
			nginxsync.Snapshot{Overlays: overlays{vip: {"hello_web": good},
				netip.MustParseAddr("::ffff:10.0.0.9"): {"Hello_Web": serves("i3")}}},
			nginxsync.Snapshot{Overlays: overlays{vip: {"hello_web": good, "Hello_Web": {}}}},
			[]string{`vip 10.0.0.9 cluster "Hello_Web": `}},
		{"an address with a zone answers 503",
			nginxsync.Snapshot{Overlays: overlays{netip.MustParseAddr(
				"fe80::1%eth0"): {"a": good}}},
			nginxsync.Snapshot{Overlays: overlays{netip.MustParseAddr("fe80::1"): {"a": {}}}},
			[]string{"vip fe80::1%eth0: want an address without zone"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			usable, aside := c.in.Usable()
			require.Equal(t, c.out.Canonical(), usable.Canonical())
			require.Equal(t, c.out.Planned, usable.Planned)
			require.Len(t, aside, len(c.want))
			for i, want := range c.want {
				require.True(t, strings.HasPrefix(aside[i].String(), want), "%s\nwant %s", aside[i],
					want)
			}
			require.Equal(t, len(aside) == 0, c.in.Validate() == nil)
			// The rest of the snapshot can be written and read again.
			text, err := nginxsync.NewRoutes(1, usable).MarshalText()
			require.NoError(t, err)
			require.NoError(t, new(nginxsync.Routes).UnmarshalText(text))
		})
	}
}

// Nginx looks for a VIP in the short form: a row in the other form would be the baseline.
func TestCanonicalVIPs(t *testing.T) {
	t.Parallel()
	long := netip.MustParseAddr("::ffff:10.0.0.9")
	s := nginxsync.Snapshot{Overlays: overlays{
		long: {"a": serves("i3"), "b": serves("i4")},
		vip:  {"a": serves("i1")},
	}}
	want := nginxsync.Snapshot{Overlays: overlays{vip: {"a": serves("i1"), "b": serves("i4")}}}
	require.True(t, s.Equal(want))
	require.Empty(t, nginxsync.Diff(s, want))
	text, err := nginxsync.NewRoutes(1, s).MarshalText()
	require.NoError(t, err)
	require.NotContains(t, string(text), "ffff")
}
