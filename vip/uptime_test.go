package vip_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// machine has a clock that may jump, and a time since its start that does not.
type machine struct {
	*clock
	boot string
	up   time.Duration
}

func newMachine(boot string) *machine { return &machine{clock: newClock(), boot: boot} }

func (m *machine) uptime() (string, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boot, m.up
}

// pass lets time pass.
func (m *machine) pass(d time.Duration) {
	m.Add(d)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.up += d
}

// reboot starts the machine again.
func (m *machine) reboot(boot string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boot, m.up = boot, 20*time.Second
}

func (m *machine) open(t testing.TB, store vip.Store, cfg vip.Config,
	pools ...vip.Pool) *vip.Allocator {
	t.Helper()
	cfg.Uptime = m.uptime
	return allocator(t, store, m.clock, cfg, pools...)
}

// rests requires that the only address of the pool rests for exactly so long.
func (m *machine) rests(t *testing.T, a *vip.Allocator, left time.Duration) {
	t.Helper()
	m.pass(left - time.Second)
	require.NoError(t, a.Sweep(t.Context()))
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("other")})
	require.ErrorIs(t, err, vip.ErrExhausted)
	m.pass(time.Second)
	require.NoError(t, a.Sweep(t.Context()))
	allocate(t, a, vip.Request{Owner: owner("other")})
	conserved(t, a)
}

// A clock that jumps by an hour, while the process runs or between two, neither shortens nor
// lengthens a cool-down.
func TestCoolDownIsElapsedTime(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 0, 400 * 24 * time.Hour,
		-400 * 24 * time.Hour, time.Minute, -time.Minute} {
		for name, ends := range map[string]func(*testing.T, *machine, *vip.Allocator, vip.Lease){
			"released": func(t *testing.T, _ *machine, a *vip.Allocator, l vip.Lease) {
				release(t, a, l)
			},
			"expired": func(t *testing.T, m *machine, a *vip.Allocator, l vip.Lease) {
				m.pass(24 * time.Hour)
				require.NoError(t, a.Sweep(t.Context()))
			},
			"quarantined": func(t *testing.T, _ *machine, a *vip.Allocator, l vip.Lease) {
				_, err := a.Quarantine(t.Context(), l.Addr, "bad", vip.DefaultCoolDown)
				require.NoError(t, err)
			},
			"restored": func(t *testing.T, _ *machine, a *vip.Allocator, l vip.Lease) {
				_, err := a.Quarantine(t.Context(), l.Addr, "bad", 0)
				require.NoError(t, err)
				_, err = a.Restore(t.Context(), l.Addr, "good")
				require.NoError(t, err)
			},
		} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s_jump_%s_restart_%t", name, jump, restart),
					func(t *testing.T) {
						t.Parallel()
						m, store := newMachine("first"), vip.NewMemStore()
						p := pool(t, "p", "10.0.0.1")
						a := m.open(t, store, vip.Config{}, p)
						ends(t, m, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
						m.pass(30 * time.Second)
						m.Add(jump)
						if restart {
							a = m.open(t, store, vip.Config{}, p)
						}
						m.rests(t, a, 100*time.Second)
					})
			}
		}
	}
}

// Both before and after the restart the clock jumps, there and back.
func TestCoolDownOverManyJumps(t *testing.T) {
	t.Parallel()
	m, store := newMachine("first"), vip.NewMemStore()
	p := pool(t, "p", "10.0.0.1")
	a := m.open(t, store, vip.Config{}, p)
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
	for _, jump := range []time.Duration{time.Hour, -2 * time.Hour, time.Hour, -time.Hour} {
		m.Add(jump)
		m.pass(10 * time.Second)
		require.NoError(t, a.Sweep(t.Context()))
		a = m.open(t, store, vip.Config{}, p)
		m.Add(-jump)
		m.pass(10 * time.Second)
		require.NoError(t, a.Sweep(t.Context()))
		_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T2")})
		require.ErrorIs(t, err, vip.ErrExhausted)
	}
	m.rests(t, a, 50*time.Second)
}

// After a restart of the machine the rest begins again, whatever the clock says; what had rested
// before, as a later record of that start shows, is free at once.
func TestCoolDownOverAReboot(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{0, time.Hour, -time.Hour} {
		t.Run(fmt.Sprint("jump ", jump), func(t *testing.T) {
			t.Parallel()
			m, store := newMachine("first"), vip.NewMemStore()
			p := pool(t, "p", "10.0.0.1-10.0.0.3")
			a := m.open(t, store, vip.Config{}, p)
			early := allocate(t, a, vip.Request{Owner: owner("T1")})
			late := allocate(t, a, vip.Request{Owner: owner("T2")})
			last := allocate(t, a, vip.Request{Owner: owner("T3")})
			release(t, a, early)
			m.pass(100 * time.Second)
			release(t, a, late)
			m.pass(30 * time.Second)
			release(t, a, last)
			m.pass(10 * time.Minute) // unknown to the records
			m.reboot("second")
			m.Add(jump)
			a = m.open(t, store, vip.Config{}, p)
			require.Equal(t, early.Addr, allocate(t, a, vip.Request{Owner: owner("T4")}).Addr)
			m.pass(vip.DefaultCoolDown - time.Second)
			require.NoError(t, a.Sweep(t.Context()))
			_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T5")})
			require.ErrorIs(t, err, vip.ErrExhausted)
			m.pass(time.Second)
			for _, task := range []string{"T5", "T6"} {
				require.Contains(t, []netip.Addr{late.Addr, last.Addr},
					allocate(t, a, vip.Request{Owner: owner(task)}).Addr)
			}
		})
	}
}

// A second allocator on another machine lets an address rest from when it saw the end, and its own
// restart begins no rest again that it has begun.
func TestCoolDownOnAnotherMachine(t *testing.T) {
	t.Parallel()
	one, two := newMachine("one"), newMachine("two")
	two.up = 1000 * time.Hour
	store := vip.NewMemStore()
	p := pool(t, "p", "10.0.0.1")
	a := one.open(t, vip.Shared(store), vip.Config{}, p)
	b := two.open(t, vip.Shared(store), vip.Config{}, p)
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	release(t, a, l)
	two.Add(3 * time.Hour) // its clock is wrong
	require.NoError(t, b.Sweep(t.Context()))
	two.pass(129 * time.Second)
	require.NoError(t, b.Sweep(t.Context()))
	_, err := b.Allocate(t.Context(), vip.Request{Owner: owner("T2")})
	require.ErrorIs(t, err, vip.ErrExhausted)
	require.NoError(t, b.SetPools(t.Context(), []vip.Pool{p, pool(t, "q", "10.0.1.1")}))
	two.pass(time.Second)
	require.Equal(t, l.Addr, allocate(t, b, vip.Request{Owner: owner("T2"), Pool: "p"}).Addr)
}

// The owner gets its address back while it rests, and a shorter cool-down counts at once.
func TestCoolDownMeasuredIsCut(t *testing.T) {
	t.Parallel()
	m, store := newMachine("first"), vip.NewMemStore()
	p := pool(t, "p", "10.0.0.1")
	a := m.open(t, store, vip.Config{}, p)
	l := release(t, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
	m.Add(-time.Hour)
	l = release(t, a, allocate(t, a, vip.Request{Owner: owner("T1"), Addr: l.Addr}))
	require.Equal(t, m.Now().Add(vip.DefaultCoolDown), l.CoolUntil)
	p.CoolDown = 20 * time.Second
	require.NoError(t, a.SetPools(t.Context(), []vip.Pool{p}))
	m.rests(t, a, 20*time.Second)
}

// What a reader sees is by the clock of now.
func TestCoolUntilFollowsTheClock(t *testing.T) {
	t.Parallel()
	m, store := newMachine("first"), vip.NewMemStore()
	p := pool(t, "p", "10.0.0.1")
	a := m.open(t, store, vip.Config{}, p)
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
	m.Add(time.Hour)
	require.NoError(t, a.Sweep(t.Context()))
	want := m.Now().Add(vip.DefaultCoolDown)
	require.Equal(t, want, a.List(vip.Query{})[0].CoolUntil)
	a = m.open(t, store, vip.Config{}, p)
	require.Equal(t, want, a.List(vip.Query{})[0].CoolUntil)
	var full *vip.ExhaustedError
	_, err := a.Allocate(context.Background(), vip.Request{Owner: owner("T2")})
	require.ErrorAs(t, err, &full)
	require.Equal(t, want, full.Soonest)
}

// With the clock of the machine and its uptime, as in production.
func TestCoolDownOfThisMachine(t *testing.T) {
	t.Parallel()
	store := vip.NewMemStore()
	p := pool(t, "p", "10.0.0.1")
	p.CoolDown = time.Millisecond
	a, err := vip.Open(t.Context(), vip.Config{Store: store, Pools: []vip.Pool{p}})
	require.NoError(t, err)
	release(t, a, allocate(t, a, vip.Request{Owner: owner("T1")}))
	a, err = vip.Open(t.Context(), vip.Config{Store: store, Pools: []vip.Pool{p}})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T2")})
		return err == nil
	}, time.Minute, time.Millisecond)
}
