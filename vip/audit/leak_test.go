package audit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

func checker(t testing.TB, a *vip.Allocator, c *clock, cfg audit.LeakConfig) *audit.LeakChecker {
	t.Helper()
	cfg.Leases, cfg.Now = a, c.Now
	checker, err := audit.NewLeakChecker(cfg)
	require.NoError(t, err)
	return checker
}

func TestLeaks(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.0/28"))
	gone := map[string]bool{}
	var fault error
	var calls []string
	leaks := checker(t, a, c, audit.LeakConfig{
		Grace: 10 * time.Minute,
		Alive: func(_ context.Context, l vip.Lease) (bool, error) {
			return !gone[l.Owner.Task], fault
		},
		Observe: func(op string, _ time.Duration, err error) {
			calls = append(calls, fmt.Sprint(op, " ", err == nil))
		},
	})
	stays := allocate(t, a, vip.Request{Owner: owner("T1")})
	leaked := allocate(t, a, vip.Request{Owner: owner("T2")})
	check := func() []audit.Leak {
		t.Helper()
		found, err := leaks.Check(t.Context())
		require.NoError(t, err)
		return found
	}
	require.Empty(t, check())
	gone["T1"], gone["T2"] = true, true
	require.Len(t, check(), 2)
	require.Len(t, leaks.Suspects(), 2)
	gone["T1"] = false
	c.Add(5 * time.Minute)
	require.Len(t, check(), 1)
	c.Add(5 * time.Minute)
	gone["T1"] = true
	fault = errors.New("orchestrator is away")
	_, err := leaks.Check(t.Context())
	require.ErrorIs(t, err, fault)
	require.Equal(t, uint64(2), leased(a), "an unknown answer ends nothing")
	fault = nil
	found := check()
	require.Len(t, found, 2)
	require.False(t, found[0].Confirmed, "T1 was back in between")
	require.True(t, found[1].Confirmed)
	l, err := a.Get(t.Context(), leaked.ID)
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, l.State)
	require.Equal(t, "leaked: its owner is gone", l.Reason)
	_, err = a.Renew(t.Context(), stays.ID, 0)
	require.NoError(t, err)
	require.Equal(t, []string{"check leaks true", "check leaks true", "check leaks true",
		"check leaks false", "check leaks true"}, calls)
}

// An owner that calls the allocator while Alive is asked about it keeps its lease.
func TestLeaksOwnerReturns(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(context.Context, *vip.Allocator, vip.Lease) error{
		"renews": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Renew(ctx, l.ID, 0)
			return err
		},
		"binds": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			_, err := a.Bind(ctx, l.ID, nil)
			return err
		},
		"allocates again": func(ctx context.Context, a *vip.Allocator, l vip.Lease) error {
			again, err := a.Allocate(ctx, vip.Request{Owner: l.Owner})
			if again.ID != l.ID {
				return fmt.Errorf("another lease: %s", again.ID)
			}
			return err
		},
	} {
		// Forever looks the same after a renewal
		for _, ttl := range []time.Duration{24 * time.Hour, vip.Forever} {
			t.Run(fmt.Sprint(name, " ", ttl), func(t *testing.T) {
				t.Parallel()
				c := newClock()
				a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.0/28"))
				heard := false
				leaks := checker(t, a, c, audit.LeakConfig{
					Grace: time.Minute,
					Alive: func(ctx context.Context, l vip.Lease) (bool, error) {
						if heard {
							return false, call(ctx, a, l)
						}
						return false, nil
					},
				})
				allocate(t, a, vip.Request{Owner: owner("T1"), TTL: ttl})
				check := func() audit.Leak {
					c.Add(time.Hour)
					found, err := leaks.Check(t.Context())
					require.NoError(t, err)
					return found[0]
				}
				check()
				heard = true
				require.False(t, check().Confirmed)
				require.Equal(t, uint64(1), leased(a))
				heard = false
				if name == "allocates again" {
					require.False(t, check().Confirmed, "the grace begins again")
					require.Equal(t, c.Now(), leaks.Suspects()[0].Since)
				}
				require.True(t, check().Confirmed)
				require.Empty(t, leaks.Suspects())
			})
		}
	}
}

func TestLeaksForgetEndedLeases(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.0/28"))
	leaks := checker(t, a, c, audit.LeakConfig{
		Alive: func(context.Context, vip.Lease) (bool, error) { return false, nil },
	})
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	found, err := leaks.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, l.ID, found[0].Lease.ID)
	release(t, a, l)
	require.Empty(t, leaks.Suspects())
	found, err = leaks.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, found)
}

func TestLeaksRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(),
			Pools: []vip.Pool{pool(t, "10.0.0.1")}})
		require.NoError(t, err)
		leaks, err := audit.NewLeakChecker(audit.LeakConfig{
			Leases: a, Grace: 3 * time.Minute,
			Alive: func(context.Context, vip.Lease) (bool, error) { return false, nil },
		})
		require.NoError(t, err)
		allocate(t, a, vip.Request{Owner: owner("T1")})
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() { ended <- leaks.Run(ctx) }()
		time.Sleep(2*time.Minute + time.Second)
		require.Equal(t, uint64(1), leased(a))
		time.Sleep(time.Minute)
		require.Zero(t, leased(a))
		why := errors.New("the program ends")
		cancel(why)
		require.Equal(t, why, <-ended)
	})
}

func TestLeaksCause(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.1"))
	allocate(t, a, vip.Request{Owner: owner("T1")})
	why := errors.New("the program ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	leaks := checker(t, a, c, audit.LeakConfig{Alive: func(context.Context, vip.Lease) (bool,
		error) {
		cancel(why)
		return false, nil
	}})
	_, err := leaks.Check(ctx)
	require.ErrorIs(t, err, why)
	require.Empty(t, leaks.Suspects(), "the answer came after the end")
}

func TestNewLeakChecker(t *testing.T) {
	t.Parallel()
	_, err := audit.NewLeakChecker(audit.LeakConfig{Interval: -1})
	require.ErrorIs(t, err, vip.ErrInvalid)
	for _, field := range []string{"LeakConfig.Leases", "LeakConfig.Alive", "LeakConfig.Interval"} {
		require.ErrorContains(t, err, field)
	}
}

// An Alive that fails for most owners and says of all others that they are gone is no small share.
func TestLeaksHoldUnknownOwners(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.0/24"))
	leasedTo(t, a, 100)
	away := errors.New("no leader")
	leaks := checker(t, a, c, audit.LeakConfig{
		Grace: time.Minute,
		Alive: func(_ context.Context, l vip.Lease) (bool, error) {
			if l.Addr.As4()[3] > 10 {
				return false, away
			}
			return false, nil
		},
	})
	for range 2 {
		_, err := leaks.Check(t.Context())
		require.ErrorIs(t, err, away)
		require.ErrorIs(t, err, audit.ErrHeld)
		require.ErrorContains(t, err, "10 of 10 leases")
		c.Add(time.Hour)
	}
	require.Equal(t, uint64(100), leased(a))
}

// The two leases of a pair have one owner, and end together.
func TestLeaksOfAPair(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		v6    func() (bool, error)
		ended int
	}{
		"gone":      {func() (bool, error) { return false, nil }, 2},
		"alive":     {func() (bool, error) { return true, nil }, 0},
		"not known": {func() (bool, error) { return false, errors.New("no leader") }, 0},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := newClock()
			other := pool(t, "fd00::1-fd00::9")
			other.Name = "six"
			a := allocator(t, vip.NewMemStore(), c, vip.Config{},
				pool(t, "10.0.0.1-10.0.0.9"), other)
			_, _, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T1")})
			require.NoError(t, err)
			leaks := checker(t, a, c, audit.LeakConfig{
				Grace: time.Minute,
				Alive: func(_ context.Context, l vip.Lease) (bool, error) {
					if l.Addr.Is6() {
						return test.v6()
					}
					return false, nil
				},
			})
			_, _ = leaks.Check(t.Context())
			c.Add(time.Hour)
			found, _ := leaks.Check(t.Context())
			confirmed := 0
			for _, l := range found {
				if l.Confirmed {
					confirmed++
				}
			}
			require.Equal(t, test.ended, confirmed)
			require.Len(t, a.List(vip.Query{States: []vip.State{vip.Leased}}), 2-test.ended)
		})
	}
}
