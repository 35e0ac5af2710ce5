package rollout_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/promote/rollout/rollouttest"
)

func TestMemSwitch(t *testing.T) {
	t.Parallel()
	rollouttest.Run(t, rollouttest.Harness{
		Switch: func(*testing.T) rollouttest.SwitchHarness {
			s := &rollouttest.MemSwitch{}
			return rollouttest.SwitchHarness{Switch: s, Target: targets(),
				Crash: func(*testing.T) rollout.Switch { return s }}
		},
	})
}

func TestStepsConfig(t *testing.T) {
	t.Parallel()
	good := rollout.StepsConfig{Switch: &rollouttest.MemSwitch{}}
	_, err := rollout.NewSteps(good)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		change func(*rollout.StepsConfig)
		want   string
	}{
		"no switch": {func(c *rollout.StepsConfig) { c.Switch = nil }, "StepsConfig.Switch: nil"},
		"not growing": {func(c *rollout.StepsConfig) {
			c.Shares = []rollout.Share{50_000, 50_000, rollout.All}
		}, "StepsConfig.Shares: 5 % as number 2: want more than 5 %"},
		"not whole": {func(c *rollout.StepsConfig) { c.Shares = []rollout.Share{50_000} },
			"StepsConfig.Shares: 5 % is the last: want 100 %"},
		"negative pause": {func(c *rollout.StepsConfig) { c.Pause = -1 }, "StepsConfig.Pause"},
		"negative limit": {func(c *rollout.StepsConfig) { c.Limit = -1 }, "StepsConfig.Limit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
			tc.change(&cfg)
			_, err := rollout.NewSteps(cfg)
			require.ErrorIs(t, err, promote.ErrInvalid)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// grey is a grey release whose events and checks are written down.
type grey struct {
	*rollout.Steps
	sw     *rollouttest.MemSwitch
	events []string
	check  func(context.Context, rollout.Passed) error
}

func newGrey(t *testing.T, pause time.Duration) *grey {
	g := &grey{sw: &rollouttest.MemSwitch{}}
	var err error
	g.Steps, err = rollout.NewSteps(rollout.StepsConfig{
		Switch: g.sw, Pause: pause,
		Check: func(ctx context.Context, p rollout.Passed) error {
			if g.check == nil {
				return nil
			}
			return g.check(ctx, p)
		},
		Events: func(e rollout.Event) { g.events = append(g.events, string(e.Kind)+" "+e.Detail) },
	})
	require.NoError(t, err)
	return g
}

func (g *grey) share(t *testing.T) rollout.Share {
	share, err := g.sw.Get(context.Background(), web)
	require.NoError(t, err)
	return share
}

func TestSteps(t *testing.T) {
	t.Parallel()
	g := newGrey(t, time.Millisecond)
	var checked []rollout.Share
	g.check = func(_ context.Context, p rollout.Passed) error {
		checked = append(checked, p.Share)
		require.Equal(t, p.Share, g.share(t))
		return nil
	}
	require.NoError(t, g.Run(t.Context(), web, 7))
	require.Equal(t, []rollout.Share{10_000, 50_000, 200_000, rollout.All}, checked)
	require.Equal(t, []string{"switched 1 %", "checked 1 %", "switched 5 %", "checked 5 %",
		"switched 20 %", "checked 20 %", "switched 100 %", "checked 100 %"}, g.events)
	require.NoError(t, g.Back(t.Context(), web))
	require.Zero(t, g.share(t))
}

func TestStepsGoBack(t *testing.T) {
	t.Parallel()
	refused := errors.New("5 % errors, the baseline has 0.1 %")
	for name, tc := range map[string]struct {
		prepare func(g *grey, cancel context.CancelCauseFunc)
		at      rollout.Share
	}{
		"a check refuses": {func(g *grey, _ context.CancelCauseFunc) {
			g.check = func(_ context.Context, p rollout.Passed) error {
				if p.Share == 200_000 {
					return refused
				}
				return nil
			}
		}, 200_000},
		"the caller gives up": {func(g *grey, cancel context.CancelCauseFunc) {
			g.check = func(ctx context.Context, _ rollout.Passed) error {
				cancel(refused)
				<-ctx.Done()
				return ctx.Err()
			}
		}, 10_000},
		"the switch fails": {func(g *grey, _ context.CancelCauseFunc) {
			g.sw.Fault = func(share rollout.Share, done bool) error {
				if share == 50_000 && done {
					return refused
				}
				return nil
			}
		}, 50_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGrey(t, 0)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			tc.prepare(g, cancel)
			err := g.Run(ctx, web, 7)
			require.ErrorIs(t, err, refused)
			var failed *rollout.StepError
			require.ErrorAs(t, err, &failed)
			require.Equal(t, tc.at, failed.Share)
			require.NoError(t, failed.Back)
			require.Zero(t, g.share(t))
			require.Equal(t, []string{"back " + tc.at.String(), "switched 0 %"},
				g.events[len(g.events)-2:])
		})
	}
}

// A way back that fails is said beside the reason for it: the share is uncertain.
func TestStepsCannotGoBack(t *testing.T) {
	t.Parallel()
	g := newGrey(t, 0)
	refused, away := errors.New("5 % errors"), errors.New("connection refused")
	g.check = func(context.Context, rollout.Passed) error { return refused }
	g.sw.Fault = func(share rollout.Share, _ bool) error {
		if share == 0 {
			return away
		}
		return nil
	}
	err := g.Run(t.Context(), web, 7)
	require.ErrorIs(t, err, refused)
	require.ErrorIs(t, err, away)
	require.ErrorContains(t, err, "the share is uncertain")
	require.Equal(t, rollout.Share(10_000), g.share(t))
}

// A release that a crash has cut off goes on with the share that is in force, never with less.
func TestStepsAfterACrash(t *testing.T) {
	t.Parallel()
	for actions := range 8 { // a Set has two places to crash at
		g := newGrey(t, 0)
		crashed := errors.New("the process was killed")
		left := actions
		ctx, cancel := context.WithCancelCause(t.Context())
		g.sw.Fault = func(rollout.Share, bool) error {
			if left--; left < 0 {
				cancel(crashed)
				return crashed
			}
			return nil
		}
		require.ErrorIs(t, g.Run(ctx, web, 7), crashed)
		g.sw.Fault, g.events = nil, nil
		before := g.share(t)
		lowest := rollout.All
		g.check = func(_ context.Context, p rollout.Passed) error {
			lowest = min(lowest, p.Share)
			return nil
		}
		require.NoError(t, g.Run(t.Context(), web, 7))
		require.Equal(t, max(before, 10_000), lowest)
		require.Equal(t, rollout.All, g.share(t))
	}
}
