package viphttp_test

import (
	"context"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

// routes is a View that can be repaired: tasks by address.
type routes map[netip.Addr]string

func (routes) Name() string { return "nginx" }

func (r routes) Observe(context.Context) (all []audit.Observation, err error) {
	for ip, task := range r {
		all = append(all, audit.Observation{Addr: ip, Task: task})
	}
	return all, nil
}

func (r routes) Repair(_ context.Context, f audit.Finding) error {
	delete(r, f.Addr)
	if f.Lease != nil {
		r[f.Addr] = f.Lease.Owner.Task
	}
	return nil
}

// Over HTTP nothing is changed unless asked for, no more than the limit unless that is allowed, and
// never an address of others, in pools of both families and any size.
func TestAuditOfSpoiltTruth(t *testing.T) {
	t.Parallel()
	foreign := routes{
		mustAddr("192.0.2.80"): "theirs", mustAddr("2001:db8::80"): "theirs",
		mustAddr("10.0.0.0"): "network", mustAddr("fd00::"): "router",
		mustAddr("fe80::1%eth0"): "zone",
	}
	type spoilt struct {
		spoil   func(served, leases routes)
		empty   bool // another store, which is empty
		changes int
		held    string // in the reason; empty when the repair is made at once
	}
	for name, test := range map[string]spoilt{
		"whole": {spoil: func(routes, routes) {}},
		"view lacks two": {spoil: func(served, leases routes) {
			for _, ip := range sorted(leases)[:2] {
				delete(served, ip)
			}
		}, changes: 2},
		"view has a half": {spoil: func(served, leases routes) {
			for _, ip := range sorted(leases)[:10] {
				delete(served, ip)
			}
		}, changes: 10, held: "it lacks 10 of 20 leases, at most 3 are added at once"},
		"view is empty": {spoil: func(served, leases routes) {
			for ip := range leases {
				delete(served, ip)
			}
		}, changes: 20, held: "it lacks 20 of 20 leases"},
		"view is of others": {spoil: func(served, leases routes) {
			for ip := range leases {
				served[ip] = "another"
			}
		}, changes: 20, held: "20 of its 20 addresses would be taken away or changed, at most 3"},
		"store is empty": {spoil: func(routes, routes) {}, empty: true, changes: 20,
			held: "the store has no record of any address, and the view uses 20"},
	} {
		for _, ranges := range []string{"10.0.0.0/24", "10.0.0.0/8", "fd00::/64", "fd00::/120"} {
			t.Run(name+"/"+ranges, func(t *testing.T) {
				t.Parallel()
				p, err := vip.ParsePool("p", ranges)
				require.NoError(t, err)
				open := func() *vip.Allocator {
					a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(),
						Pools: []vip.Pool{p}})
					require.NoError(t, err)
					return a
				}
				a, leases := open(), routes{}
				for i := range 20 {
					l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{
						Task: fmt.Sprint("T", i)}})
					require.NoError(t, err)
					leases[l.Addr] = l.Owner.Task
				}
				served := maps.Clone(leases)
				maps.Copy(served, foreign)
				test.spoil(served, leases)
				want := maps.Clone(leases)
				if test.empty {
					a, want = open(), routes{}
				}
				maps.Copy(want, foreign)
				auditor, err := audit.New(audit.Config{Leases: a, Views: []audit.View{served}})
				require.NoError(t, err)
				handler, err := viphttp.New(viphttp.Config{Leases: a, Audit: auditor})
				require.NoError(t, err)
				s := httptest.NewServer(handler)
				t.Cleanup(s.Close)

				before := maps.Clone(served)
				for _, ask := range [][2]string{{"GET", ""}, {"POST", "{}"}} {
					code, body := call(t, ask[0], s.URL+"/audit", ask[1])
					require.Equal(t, 200, code)
					require.Len(t, body["findings"], test.changes)
					require.Equal(t, map[string]any{"nginx": float64(len(foreign))},
						body["foreign"])
					require.Equal(t, before, served, "dry run")
					if test.held == "" {
						require.NotContains(t, body, "held")
						continue
					}
					held := body["held"].([]any)[0].(map[string]any)
					require.Contains(t, held["reason"], test.held)
					require.Equal(t, float64(test.changes), held["changes"])
				}
				apply := `{"apply":true}`
				if test.held != "" {
					for _, allow := range []int{0, -1, test.changes - 1} {
						code, body := call(t, "POST", s.URL+"/audit",
							fmt.Sprintf(`{"apply":true,"allow":{"nginx":%d}}`, allow))
						require.Equal(t, 422, code)
						require.Contains(t, body["detail"], test.held)
						require.Contains(t, body["detail"],
							fmt.Sprintf("allow %d changes", test.changes))
						require.Equal(t, before, served, "held")
					}
					apply = fmt.Sprintf(`{"apply":true,"allow":{"nginx":%d}}`, test.changes)
				}
				code, body := call(t, "POST", s.URL+"/audit", apply)
				require.Equal(t, 200, code)
				require.Equal(t, float64(test.changes), body["repaired"])
				require.Equal(t, want, served)
			})
		}
	}
}

func sorted(r routes) []netip.Addr { return slices.SortedFunc(maps.Keys(r), netip.Addr.Compare) }
