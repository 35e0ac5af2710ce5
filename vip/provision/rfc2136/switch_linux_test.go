package rfc2136_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/bind"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/provision/rfc2136"
)

// health is the answer of a site.
type health struct {
	up  bool
	err error
}

func (h *health) site(target string) rfc2136.Site {
	return rfc2136.Site{Target: target, Healthy: func(context.Context) (bool, error) {
		return h.up, h.err
	}}
}

func TestSwitch(t *testing.T) {
	t.Parallel()
	s := bind.Start(t,
		bind.Zone{Name: zone, Records: "else CNAME other.example.\nhost A 192.0.2.1"})
	a, b := &health{up: true}, &health{up: true}
	open := func(name string) *rfc2136.Switch {
		w, err := rfc2136.NewSwitch(rfc2136.SwitchConfig{
			DNS: config(s), Name: name, Sites: []rfc2136.Site{a.site("lvs-a.example"),
				b.site("LVS-b.example.")}, Interval: time.Minute,
		})
		require.NoError(t, err)
		return w
	}
	w := open("www")
	leads := func(want string, checks int) {
		t.Helper()
		var got string
		for range checks {
			var err error
			got, err = w.Check(t.Context())
			require.NoError(t, err)
		}
		require.Equal(t, want, got)
		require.Equal(t, []string{want}, names(t, s, zone)["www"])
	}
	leads("lvs-a.example.", 1)
	a.up = false
	leads("lvs-a.example.", 2) // one check more
	leads("lvs-b.example.", 1)
	a.up = true
	leads("lvs-b.example.", 2)
	a.up = false
	leads("lvs-b.example.", 1) // it begins to count again
	a.up = true
	leads("lvs-b.example.", 2)
	leads("lvs-a.example.", 1)

	a.err = errors.New("no answer from the monitor")
	for range 5 { // not known is not failed
		got, err := w.Check(t.Context())
		require.ErrorIs(t, err, a.err)
		require.Equal(t, "lvs-a.example.", got)
	}
	a.up, a.err, b.up = false, nil, false
	leads("lvs-a.example.", 5) // nowhere to go

	w = open("www") // after a restart
	b.up = true
	leads("lvs-b.example.", 1)

	for _, name := range []string{"else", "host"} {
		_, err := open(name).Check(t.Context())
		require.ErrorIs(t, err, rfc2136.ErrForeign)
	}
	require.Equal(t, []string{"other.example."}, names(t, s, zone)["else"])
	require.Equal(t, []string{"192.0.2.1"}, names(t, s, zone)["host"])
}

// A wildcard in the zone answers for names that do not exist: they are made beside it.
func TestWildcardsInTheZone(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct{ records, leads string }{
		"none":              {"", ""},
		"CNAME elsewhere":   {"* CNAME other.example.", ""},
		"CNAME to site":     {"* CNAME a.example.", "a.example."},
		"CNAME to own text": {"* CNAME text\ntext TXT \"v=spf1 -all\"", ""},
		"TXT":               {"* TXT \"v=spf1 -all\"", ""},
		"two TXT":           {"* TXT \"v=spf1 -all\"\n* TXT \"second\"", ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := bind.Start(t, bind.Zone{Name: zone, Records: test.records})
			a, b := &health{up: true}, &health{up: true}
			w, err := rfc2136.NewSwitch(rfc2136.SwitchConfig{
				DNS: config(s), Name: "www", Checks: 1,
				Sites: []rfc2136.Site{a.site("a.example"), b.site("b.example")},
			})
			require.NoError(t, err)
			got, err := w.Check(t.Context())
			require.NoError(t, err)
			require.Equal(t, "a.example.", got)
			if test.leads == "" {
				require.Equal(t, []string{"a.example."}, names(t, s, zone)["www"])
			}
			a.up = false
			got, err = w.Check(t.Context())
			require.NoError(t, err)
			require.Equal(t, "b.example.", got)
			require.Equal(t, []string{"b.example."}, names(t, s, zone)["www"])

			d := driver(t, config(s))
			for range 2 {
				_, err = d.ApplyLeases(t.Context(), []vip.Lease{lease("t-1", "10.0.0.1")})
				require.NoError(t, err)
				require.Equal(t, []string{"10.0.0.1"}, names(t, s, zone)["t-1"])
				d = driver(t, config(s))
			}
		})
	}
}

// While the server is away, or refuses, the name stays, and the next check switches it.
func TestSwitchServerAway(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	way := startNetwork(t, s.Addr)
	cfg := config(s)
	cfg.Server = way.addr
	a, b := &health{up: true}, &health{up: true}
	open := func(cfg rfc2136.Config) *rfc2136.Switch {
		w, err := rfc2136.NewSwitch(rfc2136.SwitchConfig{
			DNS: cfg, Name: "www", Checks: 1,
			Sites: []rfc2136.Site{a.site("a.example"), b.site("b.example")},
		})
		require.NoError(t, err)
		return w
	}
	w := open(cfg)
	_, err := w.Check(t.Context())
	require.NoError(t, err)
	a.up = false
	refused := cfg
	refused.Key.Secret = "b3RoZXI="
	_, err = open(refused).Check(t.Context())
	require.ErrorIs(t, err, rfc2136.ErrTSIG)

	// an update that is held up until the site is healthy again; later it is put right
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	way.whenHeld(cancel)
	way.holdUpdates(true)
	_, err = w.Check(ctx)
	require.ErrorIs(t, err, context.Canceled)
	way.holdUpdates(false)
	require.Equal(t, []string{"a.example."}, names(t, s, zone)["www"])
	a.up = true
	_, err = w.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"NOERROR"}, way.arrive(t))
	got, err := w.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, "a.example.", got)
	require.Equal(t, []string{"a.example."}, names(t, s, zone)["www"])
}

func TestSwitchRuns(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	a, b := &health{}, &health{up: true}
	w, err := rfc2136.NewSwitch(rfc2136.SwitchConfig{
		DNS: config(s), Name: "www.test.example.", Sites: []rfc2136.Site{a.site("a.example"),
			b.site("b.example")},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	testbed.Poll(t, "the name", func() error {
		if len(names(t, s, zone)["www"]) == 0 {
			return errors.New("none yet")
		}
		return nil
	})
	why := errors.New("the program ends")
	cancel(why)
	require.Equal(t, why, <-ended)
	require.Equal(t, []string{"b.example."}, names(t, s, zone)["www"], "the name stays")
}

func TestNewSwitchRejectsBadConfig(t *testing.T) {
	t.Parallel()
	_, err := rfc2136.NewSwitch(rfc2136.SwitchConfig{Interval: -1, Checks: -1,
		Sites: []rfc2136.Site{{Target: ""}}})
	require.ErrorIs(t, err, vip.ErrInvalid)
	for _, says := range []string{"Config.Server", "SwitchConfig.Name", "SwitchConfig.Sites: 1",
		"target", "Healthy", "Interval", "Checks"} {
		require.ErrorContains(t, err, says)
	}
}
