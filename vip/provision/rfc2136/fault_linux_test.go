package rfc2136_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/bind"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/provision/rfc2136"
)

// fault befalls BIND at one request.
type fault struct {
	name     string
	opcode   int  // of the request
	before   int  // requests of that opcode that pass before it
	answered bool // BIND has done what it was asked, and its answer is lost
	strike   func()
	mend     func()
}

// faults are a stopped and a killed BIND, at each of the requests of one call: so many queries
// (transfers included) and updates.
func faults(s *bind.Server, queries, updates int) (all []fault) {
	for _, request := range []struct {
		name      string
		opcode, n int
	}{{"query", dns.OpcodeQuery, queries}, {"update", dns.OpcodeUpdate, updates}} {
		for before := range request.n {
			for _, answered := range []bool{false, true} {
				at := "before"
				if answered {
					at = "after"
				}
				name := fmt.Sprintf(" %s %s %d", at, request.name, before+1)
				f := fault{opcode: request.opcode, before: before, answered: answered}
				f.name, f.strike, f.mend = "stopped"+name, s.Process.Pause, s.Process.Resume
				all = append(all, f)
				f.name, f.strike, f.mend = "killed"+name, s.Process.Kill, s.Process.Start
				all = append(all, f)
			}
		}
	}
	return all
}

// await lets f strike at the request that it is for.
func (n *network) await(f fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting, n.struck = &f, make(chan struct{})
}

// strike makes f happen.
func (n *network) strike(f *fault) {
	f.strike()
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.struck)
}

// meets returns the fault that waits for this request, nil for none.
func (n *network) meets(request []byte) *fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.waiting
	switch {
	case f == nil || opcode(request) != f.opcode:
		return nil
	case f.before > 0:
		f.before--
		return nil
	}
	n.waiting = nil
	return f
}

// done is closed when the fault that was awaited last has struck.
func (n *network) done() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.struck
}

// strikes repeats call until the fault has struck in it, and requires that the call has failed with
// an error that says no more than it knows.
func (n *network) strikes(t *testing.T, call func() error) {
	t.Helper()
	var err error
	testbed.Poll(t, "the fault", func() error {
		err = call()
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.waiting != nil {
			return errors.New("it has not struck")
		}
		return nil
	})
	<-n.done()
	require.Error(t, err)
	for _, certain := range []error{rfc2136.ErrRefused, rfc2136.ErrForeign, rfc2136.ErrFenced,
		rfc2136.ErrTSIG, context.Canceled} {
		require.NotErrorIs(t, err, certain)
	}
}

// A BIND that is stopped or killed at any request of a call is an error of that call. No name is
// lost by it, and the next call after it is back puts all right.
func TestServerFailsDuringApply(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone, Records: "host A 192.0.2.1"})
	way := startNetwork(t, s.Addr)
	cfg := config(s)
	cfg.Server, cfg.Timeout = way.addr, 400*time.Millisecond
	one, was := lease("t-1", "10.0.0.1"), ""
	// of the fence, its change, a transfer and the change of the name
	for i, f := range faults(s, 2, 2) {
		t.Run(f.name, func(t *testing.T) {
			d := driver(t, cfg)
			want := fmt.Sprint("10.0.1.", i)
			apply := func() error {
				aside, err := d.ApplyLeases(t.Context(), []vip.Lease{one, lease("t-2", want)})
				require.Empty(t, aside)
				return err
			}
			if i == 0 {
				testbed.Poll(t, "first update", apply)
				was, want = want, "10.0.2.1"
				d = driver(t, cfg)
			}
			way.await(f)
			way.strikes(t, apply)
			f.mend()
			found := names(t, s, zone)
			require.Equal(t, []string{"10.0.0.1"}, found["t-1"])
			require.Len(t, found["t-2"], 1)
			require.Contains(t, []string{was, want}, found["t-2"][0])
			testbed.Poll(t, "update after the fault", apply)
			require.Equal(t, map[string][]string{"t-1": {"10.0.0.1"}, "t-2": {want},
				"host": {"192.0.2.1"}}, names(t, s, zone))
			was = want
		})
	}
}

// So it is with a switch: the name leads to one of the sites at any time.
func TestServerFailsDuringSwitch(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	way := startNetwork(t, s.Addr)
	cfg := config(s)
	cfg.Server, cfg.Timeout = way.addr, 400*time.Millisecond
	a, b := &health{up: true}, &health{up: true}
	w, err := rfc2136.NewSwitch(rfc2136.SwitchConfig{DNS: cfg, Name: "www", Checks: 1,
		Interval: time.Minute, Sites: []rfc2136.Site{a.site("a.example"), b.site("b.example")}})
	require.NoError(t, err)
	leads := ""
	check := func() error {
		var err error
		leads, err = w.Check(t.Context())
		return err
	}
	testbed.Poll(t, "first check", check)
	for _, f := range faults(s, 1, 1) {
		t.Run(f.name, func(t *testing.T) {
			a.up = !a.up
			want := "b.example."
			if a.up {
				want = "a.example."
			}
			way.await(f)
			way.strikes(t, check)
			f.mend()
			found := names(t, s, zone)["www"]
			require.Len(t, found, 1)
			require.Contains(t, []string{"a.example.", "b.example."}, found[0])
			testbed.Poll(t, "check after the fault", check)
			require.Equal(t, want, leads)
			require.Equal(t, []string{want}, names(t, s, zone)["www"])
		})
	}
}

// A BIND that is slow is waited for up to Config.Timeout: here it is stopped when the request comes,
// and goes on while the call waits.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	way := startNetwork(t, s.Addr)
	cfg := config(s)
	cfg.Server = way.addr // its Timeout is a minute
	a, b := &health{up: true}, &health{up: true}
	w, err := rfc2136.NewSwitch(rfc2136.SwitchConfig{DNS: cfg, Name: "www", Checks: 1,
		Interval: time.Minute, Sites: []rfc2136.Site{a.site("a.example"), b.site("b.example")}})
	require.NoError(t, err)
	d := driver(t, cfg)
	for i, f := range faults(s, 1, 1) {
		if f.answered || strings.HasPrefix(f.name, "killed") {
			continue
		}
		pause := f.strike
		f.strike = func() {
			pause()
			time.AfterFunc(50*time.Millisecond, f.mend)
		}
		t.Run("stopped for a moment"+strings.TrimPrefix(f.name, "stopped"), func(t *testing.T) {
			way.await(f)
			one := lease("t-1", fmt.Sprint("10.0.0.", i+1))
			_, err := d.ApplyLeases(t.Context(), []vip.Lease{one})
			require.NoError(t, err)
			way.await(f)
			a.up = !a.up
			got, err := w.Check(t.Context())
			require.NoError(t, err)
			<-way.done()
			require.Equal(t, map[string][]string{"t-1": {one.Addr.String()}, "www": {got}},
				names(t, s, zone))
		})
	}
}

// A BIND that begins to refuse updates, as after a change of its configuration, is ErrRefused; the
// names stay, and follow when it lets the key update again.
func TestServerBeginsToRefuse(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	a, b := &health{up: true}, &health{up: true}
	w, err := rfc2136.NewSwitch(rfc2136.SwitchConfig{DNS: config(s), Name: "www", Checks: 1,
		Interval: time.Minute, Sites: []rfc2136.Site{a.site("a.example"), b.site("b.example")}})
	require.NoError(t, err)
	d := driver(t, config(s))
	apply := func(addr string) error {
		_, err := d.ApplyLeases(t.Context(), []vip.Lease{lease("t-1", addr)})
		return err
	}
	_, err = w.Check(t.Context())
	require.NoError(t, err)
	require.NoError(t, apply("10.0.0.1"))
	before := names(t, s, zone)

	file := filepath.Join(s.Process.Dir(), "named.conf")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	allowed := fmt.Sprintf("allow-update { key %q; };", bind.KeyName)
	require.Contains(t, string(text), allowed)
	configure := func(conf string) {
		s.Process.Stop()
		require.NoError(t, os.WriteFile(file, []byte(conf), 0o600))
		s.Process.Start()
	}
	configure(strings.Replace(string(text), allowed, "allow-update { none; };", 1))
	a.up = false
	for range 2 {
		leads, err := w.Check(t.Context())
		require.ErrorIs(t, err, rfc2136.ErrRefused)
		require.Equal(t, "a.example.", leads)
		require.ErrorIs(t, apply("10.0.0.2"), rfc2136.ErrRefused)
		require.Equal(t, before, names(t, s, zone))
	}
	configure(string(text))
	leads, err := w.Check(t.Context())
	require.NoError(t, errors.Join(err, apply("10.0.0.2")))
	require.Equal(t, "b.example.", leads)
	require.Equal(t, map[string][]string{"t-1": {"10.0.0.2"}, "www": {"b.example."}},
		names(t, s, zone))
}
