package audit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

// table is a View that can be repaired.
type table struct {
	name string
	rows map[netip.Addr]audit.Observation
	err  error
}

func (s *table) Name() string { return s.name }

func (s *table) Observe(context.Context) ([]audit.Observation, error) {
	var all []audit.Observation
	for _, o := range s.rows {
		all = append(all, o)
	}
	return all, s.err
}

func (s *table) Repair(_ context.Context, f audit.Finding) error {
	delete(s.rows, f.Addr)
	if f.Lease != nil {
		o := audit.Observation{Addr: f.Addr, Task: f.Lease.Owner.Task,
			Instances: []netip.AddrPort{}}
		for _, i := range f.Lease.Binding.Instances {
			o.Instances = append(o.Instances, i.Addr)
		}
		s.rows[f.Addr] = o
	}
	return nil
}

func TestCheckAndRepair(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.0/28"))
	x, y := netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("192.0.2.2:80")
	rows := map[netip.Addr]audit.Observation{addr("10.0.0.9"): {Addr: addr("10.0.0.9"),
		Task: "ghost"}}
	var leases []vip.Lease
	for i, seen := range [][]netip.AddrPort{{y, x}, {x}, nil} {
		l := allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", i))})
		l, err := a.Bind(t.Context(), l.ID, []vip.Instance{{ID: "x", Addr: x},
			{ID: "y", Addr: y}})
		require.NoError(t, err)
		leases = append(leases, l)
		rows[l.Addr] = audit.Observation{Addr: l.Addr, Task: "T0", Instances: seen}
	}
	unserved := allocate(t, a, vip.Request{Owner: owner("T3")})
	nginx, lvs := &table{name: "nginx", rows: rows},
		&table{name: "lvs", err: errors.New("no answer")}
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx, lvs}})

	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Held)
	require.Equal(t, map[string]string{"lvs": "no answer"}, report.Failed)
	require.Equal(t, 4, report.Leases)
	type row struct {
		kind audit.Kind
		addr netip.Addr
	}
	var got []row
	for _, f := range report.Findings {
		got = append(got, row{f.Kind, f.Addr})
	}
	require.Equal(t, []row{
		{audit.OtherInstances, leases[1].Addr}, {audit.OtherTask, leases[1].Addr},
		{audit.OtherTask, leases[2].Addr},
		{audit.NotServed, unserved.Addr}, {audit.NotLeased, addr("10.0.0.9")},
	}, got)
	require.Equal(t, "leads to [192.0.2.1:80], bound are [192.0.2.1:80 192.0.2.2:80]",
		report.Findings[0].Detail)

	release(t, a, leases[2]) // after the report: its finding is passed over
	repaired, err := auditor.Repair(t.Context(), report, nil)
	require.NoError(t, err)
	require.Equal(t, 4, repaired)
	report, err = auditor.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Findings, 1)
	require.Equal(t, audit.NotLeased, report.Findings[0].Kind)
}

// With two views of one name, the failure of one would hide the findings of the other, and Repair
// could repair the wrong one.
func TestNew(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.1"))
	bad := audit.Config{
		Views: []audit.View{&table{name: "nginx"}, &table{name: "nginx"}, &table{}},
		Pools: []string{""}, MaxShare: 1.1, AtLeast: -1,
	}
	_, err := audit.New(bad)
	require.ErrorIs(t, err, vip.ErrInvalid)
	for _, says := range []string{
		"Config.Leases: required", `view "nginx": another view has this name`,
		"view 3 of 3: the name is empty",
		"Config.Pools: ", "Config.MaxShare: 1.1", "Config.AtLeast: -1",
	} {
		require.ErrorContains(t, err, says)
	}
	_, err = audit.New(audit.Config{Leases: a, MaxShare: math.NaN()})
	require.ErrorContains(t, err, "Config.MaxShare: NaN")
}

// A lease that another allocator has given is no finding, and Repair passes over a finding that is
// older than the lease.
func TestCheckSharedStore(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "10.0.0.1-10.0.0.4")
	a, b := allocator(t, vip.Shared(store), c, vip.Config{}, p),
		allocator(t, vip.Shared(store), c, vip.Config{}, p)
	first, second := addr("10.0.0.1"), addr("10.0.0.2")
	allocate(t, b, vip.Request{Owner: owner("T1"), Addr: first})
	nginx := &table{name: "nginx", rows: map[netip.Addr]audit.Observation{first: {Addr: first,
		Task: "T1"}, second: {Addr: second, Task: "T2"}}}
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx}})
	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Findings, 1)
	require.Equal(t, second, report.Findings[0].Addr)
	allocate(t, b, vip.Request{Owner: owner("T2"), Addr: second})
	repaired, err := auditor.Repair(t.Context(), report, nil)
	require.NoError(t, err)
	require.Zero(t, repaired)
	require.Len(t, nginx.rows, 2)
}

// listed is a View that cannot be the key of a map.
type listed []audit.Observation

func (listed) Name() string { return "listed" }

func (l listed) Observe(context.Context) ([]audit.Observation, error) { return l, nil }

func TestCheckMappedAddress(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.1"))
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	mapped, plain := netip.MustParseAddrPort("[::ffff:192.0.2.1]:80"),
		netip.MustParseAddrPort("192.0.2.1:80")
	l, err := a.Bind(t.Context(), l.ID, []vip.Instance{{Addr: mapped}})
	require.NoError(t, err)
	require.Equal(t, plain, l.Binding.Instances[0].Addr)
	for _, q := range []vip.Query{{InstanceAddr: plain}, {InstanceAddr: mapped}, {Addr: l.Addr},
		{Addr: addr("::ffff:10.0.0.1")}} {
		require.Len(t, a.List(q), 1, "%+v", q)
	}
	view := listed{{Addr: addr("::ffff:10.0.0.1"), Task: "T1", Instances: []netip.AddrPort{mapped}}}
	report, err := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{view}}).Check(
		t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Findings)
}

func TestImports(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/vip/audit", "net/http")
}

// TestDoneContext calls everything with a context that has ended.
func TestDoneContext(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.0/28"))
	checker, err := audit.NewLeakChecker(audit.LeakConfig{
		Leases: a, Alive: func(context.Context, vip.Lease) (bool, error) { return true, nil },
	})
	require.NoError(t, err)
	ghost := addr("10.0.0.9")
	nginx := &table{name: "nginx", rows: map[netip.Addr]audit.Observation{ghost: {Addr: ghost,
		Task: "ghost"}}}
	allocate(t, a, vip.Request{Owner: owner("T1"), Addr: addr("10.0.0.1")})
	nginx.rows[addr("10.0.0.1")] = audit.Observation{Addr: addr("10.0.0.1")}
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx}})
	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Findings, 1)

	why := errors.New("the program ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err = auditor.Check(ctx)
	require.ErrorIs(t, err, why)
	_, err = checker.Check(ctx)
	require.ErrorIs(t, err, why)
	repaired, err := auditor.Repair(ctx, report, nil)
	require.ErrorIs(t, err, why)
	require.Zero(t, repaired)
	require.Len(t, nginx.rows, 2, "nothing is repaired")
}
