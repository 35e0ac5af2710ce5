package promote_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/gatetest"
)

// perHour is a Traffic of so many requests in each hour; a negative one is not known.
type perHour int

func (n perHour) Requests(ctx context.Context, _ promote.Target, _ promote.Digest, from,
	until time.Time) (uint64, error) {
	if n < 0 || ctx.Err() != nil {
		return 0, errors.Join(errors.New("metrics are away"), context.Cause(ctx))
	}
	return uint64(until.Sub(from)/time.Hour) * uint64(n), nil
}

func TestTrafficGate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	after := func(runs ...promote.Run) promote.Change {
		return promote.Change{Op: promote.OpPromote, Target: in("production"), Version: "v1",
			Digest: digest(1), PreviousEnvironment: "sandbox", Time: now, Runs: runs}
	}
	run := func(environment string, from, until int) promote.Run {
		r := promote.Run{Target: in(environment), From: now.Add(time.Duration(from) * time.Hour)}
		if until < 0 {
			r.Until = now.Add(time.Duration(until) * time.Hour)
		}
		return r
	}
	gate := promote.TrafficGate{Source: perHour(100),
		Requests: map[string]uint64{"production": 500}}
	back := after()
	back.Op, back.Fast = promote.OpRollback, true
	other := after()
	other.Environment = "sandbox"
	gatetest.Run(t, func(*testing.T) gatetest.Harness {
		return gatetest.Harness{Gate: gate,
			Pass: map[string]promote.Change{"live": after(run("sandbox", -5, 0)),
				"two runs":      after(run("sandbox", -9, -6), run("sandbox", -2, 0)),
				"fast rollback": back, "no rule": other},
			Refuse: map[string]promote.Change{"too few": after(run("sandbox", -4, 0)),
				"elsewhere": after(run("test", -9, 0)), "never": after(),
				"over": after(run("sandbox", -9, -6))},
		}
	})
	err := gate.Check(t.Context(), after(run("sandbox", -4, 0)))
	require.EqualError(t, err, "web v1 (sha256:010101010101) has answered 400 of 500 requests in "+
		"sandbox: wait for more")
	err = gate.Check(t.Context(), after(run("sandbox", -9, -6)))
	require.ErrorContains(t, err, "300 of 500 requests in sandbox: it is not live there now")
	away := promote.TrafficGate{Source: perHour(-1), Requests: gate.Requests}
	var refusal *promote.Refusal
	err = away.Check(t.Context(), after(run("sandbox", -4, 0)))
	require.ErrorContains(t, err, "metrics are away")
	require.False(t, errors.As(err, &refusal), "unknown is no refusal")
	err = promote.TrafficGate{Requests: map[string]uint64{"test": 1, "stable": 0, "x": 1}}.Validate(
		promote.DefaultPipeline())
	for _, want := range []string{"Source: nil", `environment "x"`, `Requests["test"]: 1`,
		`Requests["stable"]: 0`} {
		require.ErrorContains(t, err, want)
	}
}
