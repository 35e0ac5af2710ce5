package audit_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

// rowsOf is a table that agrees with all leases of a.
func rowsOf(a *vip.Allocator) *table {
	rows := map[netip.Addr]audit.Observation{}
	for _, l := range a.List(vip.Query{States: []vip.State{vip.Leased}}) {
		rows[l.Addr] = audit.Observation{Addr: l.Addr, Task: l.Owner.Task}
	}
	return &table{name: "nginx", rows: rows}
}

func leasedTo(t testing.TB, a *vip.Allocator, n int) (all []vip.Lease) {
	t.Helper()
	for i := range n {
		all = append(all, allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("T", i))}))
	}
	return all
}

// Repair leaves a view's entries for addresses that the allocator does not own.
func TestRepairLeavesForeignAddresses(t *testing.T) {
	t.Parallel()
	c := newClock()
	p, other := pool(t, "10.0.0.0/29"), pool(t, "10.0.1.1-10.0.1.4")
	p.Reserved[addr("10.0.0.6")] = "used by the gateway"
	other.Name = "other"
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p, other)
	leasedTo(t, a, 2)
	nginx := rowsOf(a)
	foreign := []string{
		"192.0.2.80",      // in no pool
		"10.0.0.0",        // the network address of the pool
		"10.0.0.6",        // reserved by configuration
		"10.0.1.2",        // of a pool out of scope
		"fd00::1",         // of another family
		"fe80::1%eth0",    // with a zone
		"::ffff:10.0.0.6", // reserved, in IPv6 form
	}
	for _, text := range foreign {
		ip := addr(text)
		nginx.rows[ip] = audit.Observation{Addr: ip, Task: "ghost"}
	}
	mine := addr("10.0.0.5")
	nginx.rows[mine] = audit.Observation{Addr: mine, Task: "ghost"}
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx},
		Pools: []string{"p"}})
	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Findings, 1)
	require.Equal(t, mine, report.Findings[0].Addr)
	require.Equal(t, map[string]int{"nginx": len(foreign)}, report.Foreign)

	// a report that was made by hand, or before the pools changed
	for ip := range nginx.rows {
		report.Findings = append(report.Findings, audit.Finding{View: "nginx",
			Kind: audit.NotLeased, Addr: ip})
	}
	repaired, err := auditor.Repair(t.Context(), report, nil)
	require.NoError(t, err)
	require.Equal(t, 2, repaired, "the finding, and its copy")
	require.Len(t, nginx.rows, 2+len(foreign))
}

// An address that was leased before it was reserved, or before its pool was taken out, is the
// allocator's until it is free.
func TestRepairFormerAddresses(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := pool(t, "10.0.0.1-10.0.0.4")
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, p)
	all := leasedTo(t, a, 4)
	p.Reserved[all[0].Addr] = "the gateway moves here"
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{{Name: "p", Reserved: p.Reserved,
		Ranges: []vip.Range{{First: all[0].Addr, Last: all[1].Addr}}}}))
	nginx := rowsOf(a)
	release(t, a, all[0])
	release(t, a, all[2])
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx}})
	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Foreign)
	_, err = auditor.Repair(t.Context(), report, nil)
	require.NoError(t, err)
	require.NotContains(t, nginx.rows, all[0].Addr)
	require.NotContains(t, nginx.rows, all[2].Addr)
	require.Len(t, nginx.rows, 2)

	c.Add(time.Hour)
	for _, l := range all {
		nginx.rows[l.Addr] = audit.Observation{Addr: l.Addr, Task: l.Owner.Task}
	}
	report, err = auditor.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int{"nginx": 2}, report.Foreign, "they have rested, and may have "+
		"a new use")
}

func TestRepairHoldsMassChange(t *testing.T) {
	t.Parallel()
	const leases = 40
	for name, test := range map[string]struct {
		spoil  func(t *testing.T, a *vip.Allocator, nginx *table) *vip.Allocator
		reason string
		change int
	}{
		"store is empty": {func(t *testing.T, _ *vip.Allocator, nginx *table) *vip.Allocator {
			for ip := range nginx.rows {
				if len(nginx.rows) > 2 { // fewer than are ever too many
					delete(nginx.rows, ip)
				}
			}
			return allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.0/24"))
		}, "the store has no record of any address, and the view uses 2", 2},
		"store is another one": {func(t *testing.T, _ *vip.Allocator, _ *table) *vip.Allocator {
			a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.0/24"))
			for i := range leases {
				allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("other-", i))})
			}
			return a
		}, "40 of its 40 addresses would be taken away or changed, at most 4", 40},
		"store is old": {func(t *testing.T, a *vip.Allocator, nginx *table) *vip.Allocator {
			for i, l := range a.List(vip.Query{States: []vip.State{vip.Leased}}) {
				if i < 5 {
					release(t, a, l) // as if the store did not know of the lease yet
				}
			}
			return a
		}, "5 of its 40 addresses would be taken away or changed, at most 4", 5},
		"view is empty": {func(_ *testing.T, a *vip.Allocator, nginx *table) *vip.Allocator {
			clear(nginx.rows)
			return a
		}, "it lacks 40 of 40 leases, at most 4", 40},
		"view has a half": {func(_ *testing.T, a *vip.Allocator, nginx *table) *vip.Allocator {
			for i, l := range a.List(vip.Query{States: []vip.State{vip.Leased}}) {
				if i%2 == 0 {
					delete(nginx.rows, l.Addr)
				}
			}
			return a
		}, "it lacks 20 of 40 leases, at most 4", 20},
		"view leads elsewhere": {func(_ *testing.T, a *vip.Allocator, nginx *table) *vip.Allocator {
			for ip, o := range nginx.rows {
				o.Instances = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}
				nginx.rows[ip] = o
			}
			return a
		}, "40 of its 40 addresses would be taken away or changed", 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.0/24"))
			leasedTo(t, a, leases)
			nginx, whole := rowsOf(a), rowsOf(a)
			whole.name = "lvs"
			a = test.spoil(t, a, nginx)
			before := len(nginx.rows)
			auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx}})
			report, err := auditor.Check(t.Context())
			require.NoError(t, err)
			require.Len(t, report.Held, 1)
			require.Equal(t, test.change, report.Held[0].Changes)
			require.Contains(t, report.Held[0].Reason, test.reason)

			for _, allow := range []map[string]int{nil, {"nginx": test.change - 1}, {"lvs": 1000}} {
				repaired, err := auditor.Repair(t.Context(), report, allow)
				var held *audit.HeldError
				require.ErrorAs(t, err, &held)
				require.ErrorIs(t, err, audit.ErrHeld)
				require.Equal(t, report.Held[0], held.Hold)
				require.ErrorContains(t, err, fmt.Sprintf("allow %d changes: held", test.change))
				require.Zero(t, repaired)
				require.Len(t, nginx.rows, before)
			}
			repaired, err := auditor.Repair(t.Context(), report,
				map[string]int{"nginx": test.change})
			require.NoError(t, err)
			require.Equal(t, test.change, repaired)
		})
	}
}

// One view that is held does not hold up another.
func TestRepairHoldsOneView(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.0/24"))
	leasedTo(t, a, 40)
	nginx, lvs := rowsOf(a), rowsOf(a)
	lvs.name = "lvs"
	clear(nginx.rows)
	delete(lvs.rows, addr("10.0.0.1"))
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx, lvs}})
	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	repaired, err := auditor.Repair(t.Context(), report, nil)
	require.ErrorIs(t, err, audit.ErrHeld)
	require.Equal(t, 1, repaired)
	require.Len(t, lvs.rows, 40)
	require.Empty(t, nginx.rows)

	without := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx}, MaxShare: 1})
	report, err = without.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Held)
}

// An orchestrator that knows no task any more ends no lease.
func TestLeaksHoldMassEnd(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.0/24"))
	all := leasedTo(t, a, 50)
	gone := map[string]bool{}
	leaks := checker(t, a, c, audit.LeakConfig{
		Grace: time.Minute,
		Alive: func(_ context.Context, l vip.Lease) (bool, error) {
			return !gone[l.Owner.Task], nil
		},
	})
	for _, l := range all {
		gone[l.Owner.Task] = true
	}
	for range 3 {
		c.Add(time.Hour)
		found, err := leaks.Check(t.Context())
		var held *audit.HeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, audit.Hold{Changes: 50, Of: 50, Limit: 5, Reason: held.Hold.Reason},
			held.Hold)
		require.ErrorContains(t, err, "the owners of 50 of 50 leases are said to be gone, at "+
			"most 5 at once")
		require.Equal(t, held.Hold, *leaks.Held())
		require.Len(t, found, 50)
		require.Len(t, leaks.Suspects(), 50)
		require.Equal(t, uint64(50), leased(a))
	}
	for i, l := range all {
		gone[l.Owner.Task] = i < 5
	}
	found, err := leaks.Check(t.Context())
	require.NoError(t, err)
	require.Nil(t, leaks.Held())
	require.Len(t, found, 5)
	require.Equal(t, uint64(45), leased(a), "as many as may be gone at once")

	for _, l := range all {
		gone[l.Owner.Task] = true
	}
	_, err = leaks.Check(t.Context())
	require.ErrorIs(t, err, audit.ErrHeld)
	c.Add(time.Hour)
	_, err = leaks.CheckAllowing(t.Context(), 44)
	require.ErrorIs(t, err, audit.ErrHeld)
	_, err = leaks.CheckAllowing(t.Context(), 45)
	require.NoError(t, err)
	require.Zero(t, leased(a))
}

// An orchestrator that goes through its tasks little by little is held, too: owners that have
// stayed gone count as well as new ones.
func TestLeaksHoldSlowDecay(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.0/24"))
	leasedTo(t, a, 50)
	away := 0
	leaks := checker(t, a, c, audit.LeakConfig{
		Grace: 10 * time.Minute,
		Alive: func(_ context.Context, l vip.Lease) (bool, error) {
			var n int
			_, err := fmt.Sscanf(l.Owner.Task, "T%d", &n)
			return n >= away, err
		},
	})
	var err error
	for range 10 { // one more is away each minute: within the grace no lease is ended
		away++
		c.Add(time.Minute)
		_, checkErr := leaks.Check(t.Context())
		err = errors.Join(err, checkErr)
	}
	require.ErrorIs(t, err, audit.ErrHeld)
	require.Equal(t, uint64(50), leased(a))
}
