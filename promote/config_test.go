package promote_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
)

// TestConfig gives every field that has bad values one, and wants an error that names the field.
func TestConfig(t *testing.T) {
	t.Parallel()
	bad := map[string]func(*promote.Config){
		"Pipeline": func(c *promote.Config) { c.Pipeline = promote.Pipeline{"Test"} },
		"Journal":  func(c *promote.Config) { c.Journal = nil },
		"Archive": func(c *promote.Config) {
			c.Journal = mortalJournal{Journal: c.Journal}
			c.Archive = promote.NewMemArchive()
		},
		"Deployer": func(c *promote.Config) { c.Deployer = nil },
		"Gates":    func(c *promote.Config) { c.Gates = []promote.Gate{nil} },
		"Rollback": func(c *promote.Config) { c.Rollback.Versions = -1 },
		"Breakers": func(c *promote.Config) { c.Breakers = []string{""} },
		"Adopters": func(c *promote.Config) { c.Adopters = []string{"a", ""} },
		"MaxSkew":  func(c *promote.Config) { c.MaxSkew = -1 },
		"Owner":    func(c *promote.Config) { c.Owner = "a\nb" },
		"Deadlines": func(c *promote.Config) {
			c.Deadlines = map[string]time.Duration{"test": -1}
		},
		"Grace": func(c *promote.Config) { c.Grace = -1 },
		"Retry": func(c *promote.Config) { c.Retry = -1 },
	}
	free := []string{"Owners", "Logger", "Now", "Observe"} // every value is good
	for field := range reflect.TypeFor[promote.Config]().Fields() {
		if bad[field.Name] == nil {
			require.Contains(t, free, field.Name)
			continue
		}
		t.Run(field.Name, func(t *testing.T) {
			cfg := promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld()}
			bad[field.Name](&cfg)
			_, err := promote.New(cfg)
			require.ErrorIs(t, err, promote.ErrInvalid)
			require.ErrorContains(t, err, "promote: Config."+field.Name)
		})
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	failure := errors.New("no room")
	w := newWorld()
	var log bytes.Buffer
	p := newPromoter(t, promote.Config{
		Journal: promote.NewMemJournal(), Deployer: w,
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Observe: func(op string, took time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			require.Positive(t, took, op) // by Config.Now, which ticks each time
			if err != nil {
				op += " fails"
				require.ErrorIs(t, err, failure)
			}
			seen = append(seen, op)
		},
	})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	require.NoError(t, p.Check(t.Context(), request("test", "v1")))
	w.setFault(func(context.Context, promote.Deployment) error {
		w.setFault(nil)
		return failure
	})
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.ErrorIs(t, err, failure)
	require.NoError(t, p.Review(t.Context(),
		promote.Review{Target: in("test"), Version: "v1", Actor: "bob"}))
	require.NoError(t, p.Retire(t.Context(),
		promote.RetireRequest{Expect: promote.Any, Target: in("test"), Actor: "bob"}))
	_, err = p.Recover(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{
		"bind", "gate.order", "check", "gate.order", "deployer.deploy fails", "deployer.remove",
		"promote fails",
		"review", "retire", "recover",
	}, seen)
	require.Contains(t, log.String(),
		`level=INFO msg="journal entry" seq=1 kind=bound cluster=web version=v1`)
	require.Contains(t, log.String(),
		`level=WARN msg="journal entry" seq=4 kind=failed op=promote cluster=web environment=test`)
	require.Contains(t, log.String(), `err="no room"`)
}

// TestCancelled wants the context's cause from every method, also when the deployer or a gate
// answers something else.
func TestCancelled(t *testing.T) {
	t.Parallel()
	cause := errors.New("the caller's reason")
	t.Run("before the call", func(t *testing.T) {
		p, w := setup(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, promoteErr := p.Promote(ctx, request("test", "v1"))
		_, rollbackErr := p.Rollback(ctx, promote.RollbackRequest{Expect: promote.Any,
			Target: in("test"),
			Digest: digest(1), Actor: "a"})
		_, recoverErr := p.Recover(ctx)
		_, currentErr := p.Current(ctx)
		_, openErr := p.Open(ctx)
		_, historyErr := p.History(ctx, promote.Target{})
		_, bindingsErr := p.Bindings(ctx, "")
		_, watchErr := p.Watch(ctx, 100)
		_, statusErr := p.Status(ctx, "web-1")
		_, waitErr := p.Wait(ctx, "web-1")
		_, recentErr := p.Recent(ctx, promote.Target{}, 0, 1)
		_, observeErr := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(),
			Deployer: seeing{w}}).Observe(ctx, in("test"))
		_, startErr := p.Start(ctx, request("test", "v1"))
		for name, err := range map[string]error{
			"promote": promoteErr, "rollback": rollbackErr, "recover": recoverErr,
			"current": currentErr, "open": openErr,
			"history": historyErr, "bindings": bindingsErr, "watch": watchErr,
			"recent": recentErr, "status": statusErr, "wait": waitErr,
			"start": startErr, "observe": observeErr,
			"abort": p.Abort(ctx, "web-1", "a", "why"),
			"note":  p.Note(ctx, promote.Note{Target: in("test"), Op: "restart", Actor: "a"}),
			"bind":  p.Bind(ctx, binding("v9", digest(9))),
			"check": p.Check(ctx, request("test", "v1")),
			"retire": p.Retire(ctx, promote.RetireRequest{Expect: promote.Any, Target: in("test"),
				Actor: "a"}),
			"review": p.Review(ctx, promote.Review{Target: in("test"), Version: "v1",
				Actor: "bob"}),
		} {
			require.ErrorIs(t, err, cause, name)
		}
		require.Empty(t, w.snapshot())
	})
	t.Run("in wait", func(t *testing.T) {
		p, w := setup(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		held := make(chan bool)
		w.setFault(func(context.Context, promote.Deployment) error {
			cancel(cause)
			<-held
			return nil
		})
		_, err := p.Promote(ctx, request("test", "v1"))
		require.ErrorIs(t, err, cause)
		close(held)
		ends(t, p, "web-4")
		require.Equal(t, digest(1), w.snapshot()[in("test")], "the change has gone on")
	})
	t.Run("in a gate", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		p, _ := setup(t, gateFunc(func(context.Context, promote.Change) error {
			cancel(cause)
			return errors.New("looked no further")
		}))
		_, err := p.Promote(ctx, request("test", "v1"))
		require.ErrorIs(t, err, cause)
		require.ErrorContains(t, err, "looked no further")
	})
	t.Run("in watch", func(t *testing.T) {
		p, _ := setup(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() {
			_, err := p.Watch(ctx, 3) // setup has bound three versions
			ended <- err
		}()
		cancel(cause)
		require.ErrorIs(t, <-ended, cause)
	})
}

type gateFunc func(context.Context, promote.Change) error

func (gateFunc) Name() string                                        { return "func" }
func (f gateFunc) Check(ctx context.Context, c promote.Change) error { return f(ctx, c) }

// TestChangeEqual changes each field of a Change, and of a Run and a Review in it: a field that
// Equal forgets would let gates be asked about one change while another one starts.
func TestChangeEqual(t *testing.T) {
	t.Parallel()
	fresh := func() promote.Change {
		return promote.Change{Builders: []string{"ci"}, Runs: []promote.Run{{Version: "v1"}},
			Reviews: []promote.Review{{Actor: "bob"}}}
	}
	zero := fresh()
	var fields int
	var walk func(path string, at func(*promote.Change) reflect.Value)
	walk = func(path string, at func(*promote.Change) reflect.Value) {
		c := fresh()
		v := at(&c)
		switch {
		case v.Type() == reflect.TypeFor[time.Time]():
			v.Set(reflect.ValueOf(time.Unix(7, 0)))
		case v.Kind() == reflect.String:
			v.SetString("changed")
		case v.Kind() == reflect.Int:
			v.SetInt(7)
		case v.Kind() == reflect.Bool:
			v.SetBool(true)
		case v.Kind() == reflect.Map:
			v.Set(reflect.ValueOf(map[string]string{"ticket": "T-1"}))
		case v.Kind() == reflect.Slice:
			walk(path+"[0]", func(c *promote.Change) reflect.Value { return at(c).Index(0) })
			v.SetLen(0)
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name,
					func(c *promote.Change) reflect.Value { return at(c).Field(i) })
			}
			return
		default:
			t.Fatalf("%s: kind %s: teach this test and Equal about it", path, v.Kind())
		}
		fields++
		require.Equal(t, path == "Change.Time", zero.Equal(c), path)
	}
	walk("Change", func(c *promote.Change) reflect.Value { return reflect.ValueOf(c).Elem() })
	require.Greater(t, fields, 20)
	same := fresh()
	same.Runs[0].From = time.Time{}.In(time.FixedZone("elsewhere", 3600))
	require.True(t, zero.Equal(same), "the same time in another zone")
}
