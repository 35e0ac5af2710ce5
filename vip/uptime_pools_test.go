package vip_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// takenFor requires that no other owner gets one of the addresses for exactly so long.
func (m *machine) takenFor(t *testing.T, a *vip.Allocator, left time.Duration, all []vip.Lease) {
	t.Helper()
	ask := func(i int) (vip.Lease, error) {
		return a.Allocate(t.Context(), vip.Request{Owner: owner(fmt.Sprint("other", i)),
			Addr: all[i].Addr})
	}
	for _, wait := range []time.Duration{0, left - time.Second} {
		m.pass(wait)
		require.NoError(t, a.Sweep(t.Context()))
		for i, l := range all {
			_, err := ask(i)
			require.ErrorIs(t, err, vip.ErrTaken, "%s after %s", l.Addr, wait)
		}
	}
	m.pass(time.Second)
	require.NoError(t, a.Sweep(t.Context()))
	for i, l := range all {
		next, err := ask(i)
		require.NoError(t, err)
		require.Greater(t, next.Generation, l.Generation)
		_, err = a.Renew(t.Context(), l.ID, 0)
		require.ErrorIs(t, err, vip.ErrFenced)
	}
	conserved(t, a)
}

// Elapsed time measures the cool-down in pools of every size, of groups and pairs, also when the
// clock is an hour back or a year ahead before or after a restart. On another start of the machine
// the cool-down begins again.
func TestCoolDownOfAnyPool(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	one := func(t *testing.T, a *vip.Allocator) []vip.Lease {
		return []vip.Lease{allocate(t, a, vip.Request{Owner: owner("T1")})}
	}
	three := func(t *testing.T, a *vip.Allocator) []vip.Lease {
		all, err := a.AllocateN(t.Context(), vip.Request{Owner: owner("T1")}, 3)
		require.NoError(t, err)
		return all
	}
	two := func(t *testing.T, a *vip.Allocator) []vip.Lease {
		v4, v6, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T1")})
		require.NoError(t, err)
		return []vip.Lease{v4, v6}
	}
	for name, test := range map[string]struct {
		pools []string
		lease func(*testing.T, *vip.Allocator) []vip.Lease
	}{
		"/8": {[]string{"10.0.0.0/8"}, one}, "/64": {[]string{"fd00::/64"}, one},
		"group of a /8":  {[]string{"10.0.0.0/8"}, three},
		"group of a /28": {[]string{"10.0.0.0/28"}, three},
		"pair":           {[]string{"10.0.0.0/28", "fd00::/124"}, two},
		"pair of a /8":   {[]string{"10.0.0.0/8", "fd00::/64"}, two},
	} {
		for _, jump := range []time.Duration{0, time.Hour, -time.Hour, year, -year} {
			for _, restart := range []string{"no", "same boot", "another boot"} {
				for _, after := range []bool{false, true} {
					for _, shared := range []bool{false, true} {
						t.Run(fmt.Sprintf("%s/jump_%s/%s/after_%t/shared_%t", name, jump, restart,
							after, shared), func(t *testing.T) {
							t.Parallel()
							m, store := newMachine("first"), sharedIf(shared, vip.NewMemStore())
							var pools []vip.Pool
							for i, ranges := range test.pools {
								pools = append(pools, pool(t, fmt.Sprint("p", i), ranges))
							}
							a := m.open(t, store, vip.Config{}, pools...)
							all := test.lease(t, a)
							for _, l := range all {
								release(t, a, l)
							}
							m.pass(30 * time.Second)
							left := vip.DefaultCoolDown - 30*time.Second
							if !after {
								m.Add(jump)
							}
							if restart == "another boot" {
								m.reboot("second")
								left = vip.DefaultCoolDown
							}
							if restart != "no" {
								a = m.open(t, store, vip.Config{}, pools...)
							}
							if after {
								m.Add(jump)
							}
							m.takenFor(t, a, left, all)
						})
					}
				}
			}
		}
	}
}

// A live lease survives a restart with a clock that was put back or a little ahead, and its owner
// has the same address again after one that was put a year ahead.
func TestLeaseOverAJumpAndRestart(t *testing.T) {
	t.Parallel()
	for _, ranges := range []string{"10.0.0.0/28", "10.0.0.0/8", "fd00::/64"} {
		for _, jump := range []time.Duration{-time.Hour, time.Hour, 365 * 24 * time.Hour} {
			for _, boot := range []string{"first", "second"} {
				t.Run(fmt.Sprintf("%s/%s/%s", ranges, jump, boot), func(t *testing.T) {
					t.Parallel()
					m, store := newMachine("first"), vip.NewMemStore()
					p := pool(t, "p", ranges)
					a := m.open(t, store, vip.Config{}, p)
					l := allocate(t, a, vip.Request{Owner: owner("T1")})
					m.Add(jump)
					if boot != m.boot {
						m.reboot(boot)
					}
					a = m.open(t, store, vip.Config{}, p)
					require.NoError(t, a.Sweep(t.Context()))
					again := allocate(t, a, vip.Request{Owner: owner("T1")})
					require.Equal(t, l.Addr, again.Addr)
					require.Equal(t, jump < 24*time.Hour, l.ID == again.ID)
					others := map[netip.Addr]bool{l.Addr: true}
					for i := range 10 {
						o := allocate(t, a, vip.Request{Owner: owner(fmt.Sprint("other", i))})
						require.False(t, others[o.Addr])
						others[o.Addr] = true
					}
					conserved(t, a)
				})
			}
		}
	}
}
