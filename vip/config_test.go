package vip_test

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/names/namestest"
	"github.com/sluice-deploy/sluice/vip"
)

// everyField requires that tested and free together name every field of the struct.
func everyField(t *testing.T, of any, tested, free []string) {
	t.Helper()
	var all []string
	for i := range reflect.TypeOf(of).NumField() {
		if f := reflect.TypeOf(of).Field(i); f.IsExported() {
			all = append(all, f.Name)
		}
	}
	require.ElementsMatch(t, all, append(tested, free...), "a new field needs a bad value here")
}

func TestOpenRejectsBadConfig(t *testing.T) {
	t.Parallel()
	good := vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{pool(t, "p", "10.0.0.1")}}
	bad := map[string]func(cfg *vip.Config){
		"Store":      func(cfg *vip.Config) { cfg.Store = nil },
		"Pools":      func(cfg *vip.Config) { cfg.Pools = nil },
		"DefaultTTL": func(cfg *vip.Config) { cfg.DefaultTTL = -5 },
		"Grace":      func(cfg *vip.Config) { cfg.Grace = -1 },
		"DrainLimit": func(cfg *vip.Config) { cfg.DrainLimit = -1 },
		"Refresh":    func(cfg *vip.Config) { cfg.Refresh = -1 },
		"Interval":   func(cfg *vip.Config) { cfg.Interval = -1 },
		"ProbeRest":  func(cfg *vip.Config) { cfg.ProbeRest = -1 },
	}
	var fields []string
	all := good
	for field, spoil := range bad {
		fields = append(fields, field)
		spoil(&all)
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			cfg := good
			spoil(&cfg)
			_, err := vip.Open(t.Context(), cfg)
			require.ErrorIs(t, err, vip.ErrInvalid)
			require.ErrorContains(t, err, "vip: Config."+field+": ")
		})
	}
	_, err := vip.Open(t.Context(), all)
	for _, field := range fields {
		require.ErrorContains(t, err, "Config."+field+": ", "all problems at once")
	}
	// any function, flag and number of records is a good value
	everyField(t, good, fields, []string{"Drained", "Probe", "History", "Logger", "Now",
		"Uptime", "Observe"})
}

func TestOpenRejectsBadPool(t *testing.T) {
	t.Parallel()
	bad := map[string]func(p *vip.Pool){
		"Name":   func(p *vip.Pool) { p.Name = "" },
		"Ranges": func(p *vip.Pool) { p.Ranges = nil },
		"Reserved": func(p *vip.Pool) {
			p.Reserved = map[netip.Addr]string{addr("10.9.9.9"): ""}
		},
		"CoolDown":       func(p *vip.Pool) { p.CoolDown = math.MaxInt64 },
		"MaxCooling":     func(p *vip.Pool) { p.MaxCooling = math.NaN() },
		"MaxQuarantined": func(p *vip.Pool) { p.MaxQuarantined = 1.5 },
		"Details": func(p *vip.Pool) {
			p.Details = map[netip.Addr]vip.Details{addr("10.0.0.1"): {Ports: []uint16{0}}}
		},
		"Labels":   func(p *vip.Pool) { p.Labels = map[string]string{"": "x"} },
		"Quotas":   func(p *vip.Pool) { p.Quotas = map[string]int{"web": -1} },
		"MaxLease": func(p *vip.Pool) { p.MaxLease = -1 },
	}
	var fields []string
	for field, spoil := range bad {
		fields = append(fields, field)
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			p := pool(t, "p", "10.0.0.1")
			spoil(&p)
			_, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(),
				Pools: []vip.Pool{p}})
			require.ErrorIs(t, err, vip.ErrInvalid)
			require.ErrorContains(t, err, "Pool."+field+": ")
		})
	}
	everyField(t, vip.Pool{}, fields, []string{"Disabled"})
}

func TestAllocateRejectsBadRequest(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.1"))
	bad := map[string]struct {
		request vip.Request
		says    string
		is      error
	}{
		"Owner": {vip.Request{Owner: owner("")}, "Request.Owner.Task: ", vip.ErrInvalid},
		"team": {vip.Request{Owner: vip.Owner{Task: "T", Team: "\xff"}},
			"Request.Owner.Team: ", vip.ErrInvalid},
		"Pool": {vip.Request{Owner: owner("T"), Pool: "none"}, `pool "none"`, vip.ErrNotFound},
		"Selector": {vip.Request{Owner: owner("T"), Selector: map[string]string{"": ""}},
			"Request.Selector: ", vip.ErrInvalid},
		"RequestID": {vip.Request{Owner: owner("T"), RequestID: strings.Repeat("x", 1025)},
			"Request.RequestID: ", vip.ErrInvalid},
		"TTL": {vip.Request{Owner: owner("T"), TTL: -5}, "Request.TTL: ", vip.ErrInvalid},
		"Addr": {vip.Request{Owner: owner("T"), Addr: addr("10.9.9.9")}, "address 10.9.9.9",
			vip.ErrNotFound},
	}
	var fields []string
	for field, test := range bad {
		if field != "team" {
			fields = append(fields, field)
		}
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			_, err := a.Allocate(t.Context(), test.request)
			require.ErrorIs(t, err, test.is)
			require.ErrorContains(t, err, test.says)
		})
	}
	everyField(t, vip.Request{}, fields, []string{"Fallback", "Wait", "Priority"})
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T", "A b", "+"), TTL: -5})
	for _, says := range []string{`cluster "A b"`, `version "+"`, "Request.TTL"} {
		require.ErrorContains(t, err, says, "all problems at once")
	}
	require.Equal(t, uint64(1), conserved(t, a).Free)
}

func TestNames(t *testing.T) {
	t.Parallel()
	p := pool(t, "p", "10.0.0.0/24")
	p.CoolDown = -1
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, p)
	allocated := func(t *testing.T, o vip.Owner) error {
		l, err := a.Allocate(context.Background(), vip.Request{Owner: o})
		if err == nil {
			release(t, a, l)
		}
		return err
	}
	namestest.Run(t, namestest.Task, func(name string) error { return allocated(t, owner(name)) })
	namestest.Run(t, namestest.Cluster, func(name string) error {
		return allocated(t, owner("T", name, "v1"))
	})
	namestest.Run(t, namestest.Version, func(name string) error {
		return allocated(t, owner("T", "web", name))
	})

	l := allocate(t, a, vip.Request{Owner: owner("B")})
	bound := func(i vip.Instance) error {
		i.Addr = netip.MustParseAddrPort("192.0.2.1:80")
		_, err := a.Bind(context.Background(), l.ID, []vip.Instance{i})
		return err
	}
	namestest.Run(t, namestest.Instance, func(name string) error {
		return bound(vip.Instance{ID: name})
	}, "empty")
	namestest.Run(t, namestest.Cluster, func(name string) error {
		return bound(vip.Instance{Cluster: name})
	}, "empty")
	namestest.Run(t, namestest.Version, func(name string) error {
		return bound(vip.Instance{Version: name})
	}, "empty")
}

// Cancellation is reported by its cause, at any step of the call.
func TestCancellationCause(t *testing.T) {
	t.Parallel()
	why := errors.New("the program ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	for _, shared := range []bool{false, true} {
		a := allocator(t, sharedIf(shared, vip.NewMemStore()), newClock(), vip.Config{},
			pool(t, "p", "10.0.0.1"))
		l := allocate(t, a, vip.Request{Owner: owner("T")})
		for name, call := range map[string]func() error{
			"Allocate": func() error {
				_, err := a.Allocate(ctx, vip.Request{Owner: owner("T2")})
				return err
			},
			"wait": func() error {
				_, err := a.Allocate(ctx, vip.Request{Owner: owner("T2"), Wait: true})
				return err
			},
			"Renew": func() error {
				_, err := a.Renew(ctx, l.ID, time.Hour)
				return err
			},
			"Bind": func() error { _, err := a.Bind(ctx, l.ID, nil); return err },
			"Release": func() error {
				_, err := a.Release(ctx, l.ID, "")
				return err
			},
			"Quarantine": func() error {
				_, err := a.Quarantine(ctx, l.Addr, "", 0)
				return err
			},
			"Restore": func() error { _, err := a.Restore(ctx, l.Addr, ""); return err },
			"History": func() error { _, err := a.History(ctx, l.Addr); return err },
			"Watch":   func() error { _, err := a.Watch(ctx, a.Revision()); return err },
			"WatchPools": func() error {
				_, _, err := a.WatchPools(ctx, 0)
				return err
			},
			"Run": func() error { return a.Run(ctx) },
			"SetPools": func() error {
				return a.SetPools(ctx, []vip.Pool{pool(t, "p", "10.0.0.1")})
			},
		} {
			require.ErrorIs(t, call(), why, name)
		}
	}
	_, err := vip.Open(ctx, vip.Config{Store: vip.NewMemStore(),
		Pools: []vip.Pool{pool(t, "p", "10.0.0.1")}})
	require.ErrorIs(t, err, why)
}
