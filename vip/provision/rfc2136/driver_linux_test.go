package rfc2136_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/bind"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/provision"
	"github.com/sluice-deploy/sluice/vip/provision/provisiontest"
	"github.com/sluice-deploy/sluice/vip/provision/rfc2136"
)

const zone = "test.example"

func config(s *bind.Server) rfc2136.Config {
	return rfc2136.Config{
		Server: s.Addr, Zone: zone, Owner: "sluice-test", Timeout: time.Minute,
		Key: rfc2136.Key{Name: bind.KeyName, Secret: bind.KeySecret},
	}
}

func driver(t *testing.T, cfg rfc2136.Config) *rfc2136.Driver {
	t.Helper()
	d, err := rfc2136.New(cfg)
	require.NoError(t, err)
	return d
}

// names transfers the zone and lists the addresses by name, without the names that it began with.
func names(t *testing.T, s *bind.Server, zone string) map[string][]string {
	t.Helper()
	m := new(dns.Msg).SetAxfr(zone + ".")
	m.SetTsig(bind.KeyName+".", dns.HmacSHA256, 300, time.Now().Unix())
	parts, err := (&dns.Transfer{TsigSecret: map[string]string{bind.KeyName +
		".": bind.KeySecret}}).In(m, s.Addr)
	require.NoError(t, err)
	found := map[string][]string{}
	for part := range parts {
		require.NoError(t, part.Error)
		for _, rr := range part.RR {
			name := strings.TrimSuffix(rr.Header().Name, "."+zone+".")
			switch rr := rr.(type) {
			case *dns.A:
				if name != "ns" {
					found[name] = append(found[name], rr.A.String())
				}
			case *dns.AAAA:
				found[name] = append(found[name], rr.AAAA.String())
			case *dns.CNAME:
				found[name] = append(found[name], rr.Target)
			}
		}
	}
	for name := range found {
		slices.Sort(found[name])
	}
	return found
}

func TestDriver(t *testing.T) {
	t.Parallel()
	provisiontest.Run(t, func(t *testing.T) provisiontest.Harness {
		s := bind.Start(t, bind.Zone{Name: zone})
		return provisiontest.Harness{Driver: driver(t, config(s)),
			Announced: func(t *testing.T) (all []netip.Addr) {
				for _, addrs := range names(t, s, zone) {
					all = append(all, netip.MustParseAddr(addrs[0]))
				}
				return all
			}}
	})
}

func lease(task, addr string) vip.Lease {
	return vip.Lease{ID: task + addr, Addr: netip.MustParseAddr(addr), Owner: vip.Owner{Task: task},
		State: vip.Leased}
}

func TestNamesOfLeases(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone, Records: "taken A 192.0.2.9\nother A " +
		"192.0.2.8\nother TXT \"managed-by=sluice owner=somebody\""})
	d := driver(t, config(s))
	cooling := lease("T-9", "10.0.0.9")
	cooling.State = vip.Cooling
	aside, err := d.ApplyLeases(t.Context(), []vip.Lease{
		lease("T-1", "10.0.0.1"), lease("t-2", "10.0.0.2"), lease("t-2", "fd00::2"),
		lease("taken", "10.0.0.3"), lease("other", "10.0.0.4"), cooling,
	})
	require.NoError(t, err)
	require.Len(t, aside, 2)
	for addr, why := range map[string]string{"10.0.0.3": "taken.test.example.",
		"10.0.0.4": "other.test.example."} {
		require.ErrorIs(t, aside[netip.MustParseAddr(addr)], rfc2136.ErrForeign)
		require.ErrorContains(t, aside[netip.MustParseAddr(addr)], why)
	}
	got := names(t, s, zone)
	require.Equal(t, []string{"192.0.2.9"}, got["taken"])
	require.Equal(t, []string{"192.0.2.8"}, got["other"])
	require.Equal(t, []string{"10.0.0.2", "fd00::2"}, got["t-2"])
	require.Len(t, got, 4, "%v", got)

	// a task has another address, one is gone, one has come; and the driver is another process
	d = driver(t, config(s))
	_, err = d.ApplyLeases(t.Context(), []vip.Lease{lease("t-2", "10.0.0.7"),
		lease("t-3", "10.0.0.1")})
	require.NoError(t, err)
	got = names(t, s, zone)
	require.Equal(t, map[string][]string{
		"taken": {"192.0.2.9"}, "other": {"192.0.2.8"}, "t-2": {"10.0.0.7"}, "t-3": {"10.0.0.1"},
	}, got)
	_, err = d.Apply(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, names(t, s, zone), 2, "what is somebody else's stays")
}

// Production names lead testers to the task in a view of their own.
func TestProductionNames(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: "shop.example", Records: "@ A 192.0.2.1\nwww A 192.0.2.1"})
	cfg := config(s)
	cfg.Zone = "shop.example"
	cfg.Names = func(l vip.Lease) []string {
		return []string{"bj.shop.example.", "sh", "www", "bj.other.example.", "shop.example."}
	}
	aside, err := driver(t, cfg).ApplyLeases(t.Context(), []vip.Lease{lease("T-1", "10.0.0.1")})
	require.NoError(t, err)
	require.Len(t, aside, 1)
	got := names(t, s, "shop.example")
	require.Equal(t, []string{"10.0.0.1"}, got["bj"])
	require.Equal(t, []string{"10.0.0.1"}, got["sh"])
	require.Equal(t, []string{"192.0.2.1"}, got["www"])
}

// A Keeper gives a lease its name, moves it with the lease, and takes it away when the lease or the
// Keeper ends.
func TestKeeper(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	p, err := vip.ParsePool("p", "10.0.0.1")
	require.NoError(t, err)
	p.CoolDown = -1
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error)
	k := &provision.Keeper{Allocator: a, Driver: driver(t, config(s)), Retry: 10 * time.Millisecond}
	go func() { ended <- k.Run(ctx) }()
	await := func(want map[string][]string) {
		t.Helper()
		testbed.Poll(t, fmt.Sprint(want), func() error {
			if got := names(t, s, zone); fmt.Sprint(got) != fmt.Sprint(want) {
				return fmt.Errorf("the zone has %v", got)
			}
			return nil
		})
	}
	for _, task := range []string{"t-1", "t-2"} { // one address, one after the other
		l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task}})
		require.NoError(t, err)
		await(map[string][]string{task: {"10.0.0.1"}})
		_, err = a.Release(t.Context(), l.ID, "")
		require.NoError(t, err)
		await(map[string][]string{})
	}
	_, err = a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "t-3"}})
	require.NoError(t, err)
	await(map[string][]string{"t-3": {"10.0.0.1"}})
	why := errors.New("the program ends")
	cancel(why)
	require.ErrorIs(t, <-ended, why)
	await(map[string][]string{})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone}, bind.Zone{Name: "closed.example",
		Options: fmt.Sprintf("allow-update { key %q; }; allow-transfer { none; };",
			bind.KeyName)},
		bind.Zone{Name: "readable.example", Options: fmt.Sprintf("allow-transfer { key %q; };",
			bind.KeyName)})
	for name, test := range map[string]struct {
		spoil func(cfg *rfc2136.Config)
		is    error
		says  string
	}{
		"other secret": {func(cfg *rfc2136.Config) {
			cfg.Key.Secret = "b3RoZXI="
		}, rfc2136.ErrTSIG, ""},
		"other key": {func(cfg *rfc2136.Config) { cfg.Key.Name = "other" }, rfc2136.ErrTSIG, ""},
		"algorithm": {func(cfg *rfc2136.Config) {
			cfg.Key.Algorithm = "hmac-sha512"
		}, rfc2136.ErrTSIG, ""},
		"other clock": {func(cfg *rfc2136.Config) {
			cfg.Now = func() time.Time { return time.Now().Add(time.Hour) }
		}, rfc2136.ErrTSIG, ""},
		"no such zone": {func(cfg *rfc2136.Config) {
			cfg.Zone = "none.example"
		}, rfc2136.ErrRefused, "none.example."},
		"may not read": {func(cfg *rfc2136.Config) {
			cfg.Zone = "closed.example"
		}, rfc2136.ErrRefused, "allow-transfer"},
		"may not update": {func(cfg *rfc2136.Config) {
			cfg.Zone = "readable.example"
		}, rfc2136.ErrRefused, "update zone readable.example."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(s)
			test.spoil(&cfg)
			d := driver(t, cfg)
			for range 2 {
				_, err := d.ApplyLeases(t.Context(), []vip.Lease{lease("t-1", "10.0.0.1")})
				require.ErrorIs(t, err, test.is)
				require.ErrorContains(t, err, test.says)
				require.ErrorContains(t, err, s.Addr)
				require.NotContains(t, err.Error(), cfg.Key.Secret)
			}
		})
	}
	t.Cleanup(func() { require.Empty(t, names(t, s, zone)) })
}

// A server that is away, or does not answer, is an error until it is back; then all is put right.
func TestServerAway(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	cfg := config(s)
	cfg.Timeout = 200 * time.Millisecond
	d := driver(t, cfg)
	apply := func(leases ...vip.Lease) error {
		_, err := d.ApplyLeases(t.Context(), leases)
		return err
	}
	one, two := lease("t-1", "10.0.0.1"), lease("t-2", "10.0.0.2")
	testbed.Poll(t, "first update", func() error { return apply(one) })
	s.Process.Pause()
	require.ErrorContains(t, apply(one, two), "no answer within 200ms")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the program ends")
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	_, err := driver(t, config(s)).ApplyLeases(ctx, []vip.Lease{two})
	require.ErrorIs(t, err, why)
	s.Process.Resume()
	testbed.Poll(t, "update after the pause", func() error { return apply(two) })
	require.Equal(t, map[string][]string{"t-2": {"10.0.0.2"}}, names(t, s, zone))

	away := cfg
	away.Server = fmt.Sprint("127.0.0.1:", testbed.Port(t)) // no process listens there
	_, err = driver(t, away).Apply(t.Context(), nil)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// An update that the driver has given up arrives when it has read the zone since.
func TestUpdateArrivesLate(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	cfg := config(s)
	cfg.Timeout = time.Second
	d := driver(t, cfg)
	apply := func(leases ...vip.Lease) func() error {
		return func() error {
			_, err := d.ApplyLeases(t.Context(), leases)
			return err
		}
	}
	one, two := lease("t-1", "10.0.0.1"), lease("t-2", "10.0.0.2")
	testbed.Poll(t, "first update", apply())
	s.Process.Pause()
	require.ErrorContains(t, apply(one)(), "no answer within 1s")
	s.Process.Resume()
	testbed.Poll(t, "update after the pause", apply())
	// the late update, as the server sees it
	_, err := driver(t, config(s)).ApplyLeases(t.Context(), []vip.Lease{one})
	require.NoError(t, err)
	testbed.Poll(t, "update after the late one", apply(two))
	require.Equal(t, map[string][]string{"t-2": {"10.0.0.2"}}, names(t, s, zone))
}

func TestNewRejectsBadConfig(t *testing.T) {
	t.Parallel()
	_, err := rfc2136.New(rfc2136.Config{TTL: time.Millisecond, Timeout: -1,
		Key: rfc2136.Key{Secret: "not base64!", Algorithm: "hmac-md5"}})
	require.ErrorIs(t, err, vip.ErrInvalid)
	for _, says := range []string{"Server", "Zone", "Owner", "Key: name", "Key: the secret",
		"Key: algorithm", "TTL", "Timeout"} {
		require.ErrorContains(t, err, "rfc2136: Config."+says)
	}
	require.NotContains(t, err.Error(), "not base64!")
}
