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

// wide are pools of both families and of several sizes, each with an address far from its start.
var wide = map[string]string{
	"10.0.0.0/28": "10.0.0.9", "10.0.0.0/8": "10.200.3.4", "fd00::/64": "fd00::ab:0:0:1",
	"fd00::1-fd00::20": "fd00::19",
}

// planned is a report with one finding of each kind, and the time between it and its repair.
type planned struct {
	c      *clock
	a      *vip.Allocator // of the auditor
	by     *vip.Allocator // of the changes: a, or another one that shares the store
	pool   vip.Pool
	leases []vip.Lease
	// not leased, and not known to any allocator
	ghost netip.Addr
	// which the view does not have; has for another task; and with other instances
	unserved, misnamed, misled vip.Lease
	view                       *table
}

func plan(t *testing.T, ranges string, shared bool) (*planned, *audit.Auditor, audit.Report) {
	t.Helper()
	p := &planned{c: newClock(), pool: pool(t, ranges), ghost: addr(wide[ranges])}
	var store vip.Store = vip.NewMemStore()
	if shared {
		store = vip.Shared(store)
	}
	p.a = allocator(t, store, p.c, vip.Config{}, p.pool)
	p.by = p.a
	if shared {
		p.by = allocator(t, store, p.c, vip.Config{}, p.pool)
	}
	p.leases = leasedTo(t, p.a, 6)
	p.unserved, p.misnamed, p.misled = p.leases[0], p.leases[1], p.leases[2]
	p.view = rowsOf(p.a)
	delete(p.view.rows, p.unserved.Addr)
	p.view.rows[p.misnamed.Addr] = audit.Observation{Addr: p.misnamed.Addr, Task: "T9"}
	p.view.rows[p.misled.Addr] = audit.Observation{Addr: p.misled.Addr,
		Instances: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}}
	p.view.rows[p.ghost] = audit.Observation{Addr: p.ghost, Task: "ghost"}
	auditor := auditorOf(t, audit.Config{Leases: p.a, Views: []audit.View{p.view}})
	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Held)
	require.Empty(t, report.Foreign)
	require.Len(t, report.Findings, 4)
	return p, auditor, report
}

// Repair carries out the findings that are still true, after any change since the report.
func TestRepairAfterChanges(t *testing.T) {
	t.Parallel()
	end := func(l func(*planned) vip.Lease) func(*testing.T, *planned) {
		return func(t *testing.T, p *planned) { release(t, p.by, l(p)) }
	}
	unserved := func(p *planned) vip.Lease { return p.unserved }
	for name, test := range map[string]struct {
		change func(t *testing.T, p *planned)
		// addresses of findings that are passed over
		passed func(p *planned) []netip.Addr
	}{
		"nothing": {func(*testing.T, *planned) {}, func(*planned) []netip.Addr { return nil }},
		"the address is reserved": {func(t *testing.T, p *planned) {
			p.pool.Reserved[p.ghost] = "the gateway moves here"
			require.NoError(t, p.a.SetPools(t.Context(), []vip.Pool{p.pool}))
		}, func(p *planned) []netip.Addr { return []netip.Addr{p.ghost} }},
		"the pool is cut": {func(t *testing.T, p *planned) {
			p.pool.Reserved = nil // the subnet's anycast addresses, which are not in it any more
			p.pool.Ranges = []vip.Range{{First: p.leases[0].Addr, Last: p.leases[5].Addr}}
			require.NoError(t, p.a.SetPools(t.Context(), []vip.Pool{p.pool}))
		}, func(p *planned) []netip.Addr { return []netip.Addr{p.ghost} }},
		"the pool is another one": {func(t *testing.T, p *planned) {
			other := pool(t, "192.0.2.0/24")
			other.Name = "other"
			require.NoError(t, p.a.SetPools(t.Context(), []vip.Pool{other}))
		}, func(p *planned) []netip.Addr { return []netip.Addr{p.ghost} }},
		"the address is leased": {func(t *testing.T, p *planned) {
			allocate(t, p.by, vip.Request{Owner: owner("ghost"), Addr: p.ghost})
		}, func(p *planned) []netip.Addr { return []netip.Addr{p.ghost} }},
		"the address is leased and released": {func(t *testing.T, p *planned) {
			release(t, p.by, allocate(t, p.by, vip.Request{Owner: owner("X"), Addr: p.ghost}))
		}, func(*planned) []netip.Addr { return nil }},
		"the address is quarantined": {func(t *testing.T, p *planned) {
			_, err := p.by.Quarantine(t.Context(), p.ghost, "answers", 0)
			require.NoError(t, err)
		}, func(*planned) []netip.Addr { return nil }},
		"the lease ends": {end(unserved),
			func(p *planned) []netip.Addr { return []netip.Addr{p.unserved.Addr} }},
		"the lease ends by quarantine": {func(t *testing.T, p *planned) {
			_, err := p.by.Quarantine(t.Context(), p.misnamed.Addr, "answers", 0)
			require.NoError(t, err)
		}, func(p *planned) []netip.Addr { return []netip.Addr{p.misnamed.Addr} }},
		"the owner has a new lease": {func(t *testing.T, p *planned) {
			release(t, p.by, p.unserved)
			again := allocate(t, p.by, vip.Request{Owner: p.unserved.Owner,
				Addr: p.unserved.Addr})
			require.NotEqual(t, p.unserved.ID, again.ID)
		}, func(p *planned) []netip.Addr { return []netip.Addr{p.unserved.Addr} }},
		"another has the address": {func(t *testing.T, p *planned) {
			release(t, p.by, p.misnamed)
			p.c.Add(time.Hour)
			require.NoError(t, p.by.Sweep(t.Context()))
			allocate(t, p.by, vip.Request{Owner: owner("T9"), Addr: p.misnamed.Addr})
		}, func(p *planned) []netip.Addr { return []netip.Addr{p.misnamed.Addr} }},
		"the lease is renewed": {func(t *testing.T, p *planned) {
			_, err := p.by.Renew(t.Context(), p.unserved.ID, 48*time.Hour)
			require.NoError(t, err)
		}, func(*planned) []netip.Addr { return nil }},
		"the lease is bound": {func(t *testing.T, p *planned) {
			_, err := p.by.Bind(t.Context(), p.misled.ID, []vip.Instance{{ID: "c",
				Addr: netip.MustParseAddrPort("192.0.2.1:80")}})
			require.NoError(t, err)
		}, func(p *planned) []netip.Addr { return []netip.Addr{p.misled.Addr} }},
		"all leases expire": {func(t *testing.T, p *planned) {
			p.c.Add(25 * time.Hour)
			require.NoError(t, p.by.Sweep(t.Context()))
		}, func(p *planned) []netip.Addr {
			return []netip.Addr{p.unserved.Addr, p.misnamed.Addr, p.misled.Addr}
		}},
	} {
		for ranges := range wide {
			for _, shared := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/shared_%t", name, ranges, shared), func(t *testing.T) {
					t.Parallel()
					p, auditor, report := plan(t, ranges, shared)
					passed := map[netip.Addr]bool{}
					before := map[netip.Addr]audit.Observation{}
					for _, f := range report.Findings {
						before[f.Addr] = p.view.rows[f.Addr]
					}
					test.change(t, p)
					for _, ip := range test.passed(p) {
						passed[ip] = true
					}
					repaired, err := auditor.Repair(t.Context(), report, nil)
					require.NoError(t, err)
					require.Equal(t, 4-len(passed), repaired)
					for _, f := range report.Findings {
						if passed[f.Addr] {
							require.Equal(t, before[f.Addr], p.view.rows[f.Addr], "%s", f.Addr)
						} else {
							require.NotEqual(t, before[f.Addr], p.view.rows[f.Addr], "%s", f.Addr)
						}
					}
				})
			}
		}
	}
}

// Addresses that are not the allocator's do not make the share larger that may be changed.
func TestForeignAddressesAreNoShare(t *testing.T) {
	t.Parallel()
	for ranges := range wide {
		t.Run(ranges, func(t *testing.T) {
			t.Parallel()
			a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, ranges))
			leasedTo(t, a, 1)
			nginx := rowsOf(a)
			ghost := addr(wide[ranges])
			for range 4 {
				nginx.rows[ghost] = audit.Observation{Addr: ghost, Task: "ghost"}
				ghost = ghost.Next()
			}
			four, six := addr("192.0.2.1"), addr("2001:db8::1")
			for range 100 {
				nginx.rows[four], nginx.rows[six] = audit.Observation{Addr: four},
					audit.Observation{Addr: six}
				four, six = four.Next(), six.Next()
			}
			rows := len(nginx.rows)
			auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx}})
			report, err := auditor.Check(t.Context())
			require.NoError(t, err)
			require.Equal(t, map[string]int{"nginx": 200}, report.Foreign)
			require.Len(t, report.Held, 1)
			require.Equal(t, []int{4, 5, 3}, []int{report.Held[0].Changes, report.Held[0].Of,
				report.Held[0].Limit})
			_, err = auditor.Repair(t.Context(), report, nil)
			require.ErrorIs(t, err, audit.ErrHeld)
			require.Len(t, nginx.rows, rows)
		})
	}
}

// A view that fails half way says nothing about the addresses that it did not come to.
func TestViewThatFailsHalfWay(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.0/8"))
	leasedTo(t, a, 2)
	nginx := rowsOf(a)
	delete(nginx.rows, addr("10.0.0.1"))
	nginx.rows[addr("10.9.9.9")] = audit.Observation{Addr: addr("10.9.9.9"), Task: "ghost"}
	nginx.err = errors.New("connection reset")
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx}, MaxShare: 1})
	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Findings)
	require.Equal(t, map[string]string{"nginx": "connection reset"}, report.Failed)
	repaired, err := auditor.Repair(t.Context(), report, map[string]int{"nginx": 100})
	require.NoError(t, err)
	require.Zero(t, repaired)
	require.Len(t, nginx.rows, 2)
}

// changing is a view during whose observation something happens.
type changing struct {
	*table
	during func()
}

func (v changing) Observe(ctx context.Context) ([]audit.Observation, error) {
	all, err := v.table.Observe(ctx)
	v.during()
	return all, err
}

// Changes while a view is observed are no findings, in a pool that remembers no free address
// either.
func TestCheckBesideChanges(t *testing.T) {
	t.Parallel()
	for ranges := range wide {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/shared_%t", ranges, shared), func(t *testing.T) {
				t.Parallel()
				p, _, _ := plan(t, ranges, shared)
				p.view = rowsOf(p.a)
				before := len(p.view.rows)
				auditor := auditorOf(t, audit.Config{Leases: p.a, Views: []audit.View{changing{
					p.view, func() {
						release(t, p.by, p.leases[0])
						allocate(t, p.by, vip.Request{Owner: owner("X"), Addr: p.ghost})
						release(t, p.by, p.leases[1])
						allocate(t, p.by, vip.Request{Owner: p.leases[1].Owner,
							Addr: p.leases[1].Addr})
					},
				}}})
				report, err := auditor.Check(t.Context())
				require.NoError(t, err)
				require.Empty(t, report.Findings)
				require.Len(t, p.view.rows, before)
			})
		}
	}
}
