package vip_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// hidden is in everything that the other owner's lease says of itself.
const hidden = "hidden"

// No error that an owner gets names another's lease, its task, or anything that it has: in any
// state of the address, by any call.
func TestErrorsNameNoOtherLease(t *testing.T) {
	t.Parallel()
	at := addr("10.0.0.1")
	drain := func(context.Context, vip.Lease) (bool, error) { return false, nil }
	for _, c := range []struct {
		state vip.State
		cfg   vip.Config
		reach func(t *testing.T, a *vip.Allocator, l vip.Lease) error
	}{
		{vip.Leased, vip.Config{}, func(*testing.T, *vip.Allocator, vip.Lease) error { return nil }},
		{vip.Draining, vip.Config{Drained: drain},
			func(t *testing.T, a *vip.Allocator, l vip.Lease) error {
				_, err := a.Release(t.Context(), l.ID, hidden)
				return err
			}},
		{vip.Cooling, vip.Config{}, func(t *testing.T, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Release(t.Context(), l.ID, hidden)
			return err
		}},
		{vip.Quarantined, vip.Config{}, func(t *testing.T, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Quarantine(t.Context(), l.Addr, "answers nothing", 0)
			return err
		}},
	} {
		t.Run(c.state.String(), func(t *testing.T) {
			t.Parallel()
			clk := newClock()
			cfg := c.cfg
			cfg.Store, cfg.Now = vip.NewMemStore(), clk.Now
			cfg.Pools = []vip.Pool{{Name: "p", Ranges: []vip.Range{{First: at, Last: at}},
				Quotas: map[string]int{"none": 0}}}
			a, err := vip.Open(t.Context(), cfg)
			require.NoError(t, err)
			l, err := a.Allocate(t.Context(), vip.Request{RequestID: hidden, Owner: vip.Owner{
				Task: hidden, Team: hidden, Overrides: map[string]string{hidden: hidden}}})
			require.NoError(t, err)
			l, err = a.Bind(t.Context(), l.ID, []vip.Instance{{ID: hidden, Cluster: hidden,
				Version: hidden, Addr: netip.MustParseAddrPort("192.0.2.77:80")}})
			require.NoError(t, err)
			require.NoError(t, c.reach(t, a, l))
			guess := l.ID[:len(l.ID)-1] + string(l.ID[len(l.ID)-1]^1)

			mine := vip.Request{Owner: vip.Owner{Task: "mine"}}
			with := func(edit func(*vip.Request)) vip.Request {
				r := mine
				edit(&r)
				return r
			}
			soon, stop := context.WithTimeout(t.Context(), time.Millisecond)
			defer stop()
			allocate := func(ctx context.Context, r vip.Request) error {
				_, err := a.Allocate(ctx, r)
				return err
			}
			_, together := a.AllocateN(t.Context(), mine, 2)
			_, _, dual := a.AllocateDual(t.Context(), mine)
			_, renew := a.Renew(t.Context(), guess, 0)
			_, bind := a.Bind(t.Context(), guess, nil)
			_, release := a.Release(t.Context(), guess, "")
			_, get := a.Get(t.Context(), guess)
			for call, err := range map[string]error{
				"any address": allocate(t.Context(), mine),
				"by name":     allocate(t.Context(), with(func(r *vip.Request) { r.Addr = at })),
				"4in6": allocate(t.Context(), with(func(r *vip.Request) {
					r.Addr = addr("::ffff:10.0.0.1")
				})),
				"by pool":  allocate(t.Context(), with(func(r *vip.Request) { r.Pool = "p" })),
				"waits":    allocate(soon, with(func(r *vip.Request) { r.Wait = true })),
				"quota":    allocate(t.Context(), with(func(r *vip.Request) { r.Owner.Team = "none" })),
				"together": together, "dual": dual,
				"renew": renew, "bind": bind, "release": release, "get": get,
			} {
				require.Error(t, err, call)
				shown := err.Error()
				for e := err; e != nil; {
					data, _ := json.Marshal(e)
					shown += fmt.Sprintf("\n%+v %s", e, data)
					u, ok := e.(interface{ Unwrap() error })
					if !ok {
						break
					}
					e = u.Unwrap()
				}
				for _, secret := range []string{hidden, l.ID, "192.0.2.77"} {
					require.NotContains(t, shown, secret, call)
				}
			}
		})
	}
}
