package promote_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/gatetest"
)

// files is a ConfigSource for one image.
type files map[string][]string

func (f files) Configuration(ctx context.Context, _ string,
	_ promote.Digest) (promote.Configuration, error) {
	if ctx.Err() != nil {
		return promote.Configuration{}, context.Cause(ctx)
	}
	c := promote.Configuration{Environments: f}
	c.Required = c.Union()
	return c, nil
}

// TestGates holds every gate of this package to the contract.
func TestGates(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) // a Friday
	to := func(environment, previous string) promote.Change {
		return promote.Change{
			Op: promote.OpPromote, Target: in(environment), Version: "v1", Digest: digest(1),
			Repository:          "registry:5000/web",
			PreviousEnvironment: previous, Actor: "alice", Time: now, Builders: []string{"ci"},
		}
	}
	live := to("sandbox", "test")
	live.Runs = []promote.Run{{Target: in("test"), Version: "v1", From: now.Add(-2 * time.Hour)}}
	short := live
	short.Runs = []promote.Run{{Target: in("test"), Version: "v1", From: now.Add(-time.Minute)}}
	approved := live
	approved.Reviews = []promote.Review{{Target: in("sandbox"), Version: "v1", Approve: true,
		Actor: "bob", Time: now}}
	rejected := live
	rejected.Reviews = []promote.Review{{Target: in("sandbox"), Version: "v1", Actor: "bob",
		Reason: "slow", Time: now}}
	back := to("sandbox", "test")
	back.Op, back.Fast = promote.OpRollback, true
	for name, h := range map[string]gatetest.Harness{
		"order": {
			Gate: promote.OrderGate{},
			Pass: map[string]promote.Change{"first environment": to("test", ""),
				"live before": live, "rollback": back},
			Refuse: map[string]promote.Change{"never live before": to("sandbox", "test")},
		},
		"config": {
			Gate: promote.ConfigGate{Source: files{"test": {"etc/a"}, "sandbox": {"etc/a"},
				"stable": {}}},
			Pass: map[string]promote.Change{"all files": to("sandbox", "test"), "rollback": back},
			Refuse: map[string]promote.Change{"no environment": to("production", "sandbox"),
				"a file is missing": to("stable", "production")},
		},
		"approval": {
			Gate: promote.ApprovalGate{Rules: map[string]promote.ApprovalRule{"sandbox": {Count: 1}}},
			Pass: map[string]promote.Change{"no rule": to("test", ""), "approved": approved,
				"rollback": back},
			Refuse: map[string]promote.Change{"no review": live, "rejected": rejected},
		},
		"soak": {
			Gate: promote.SoakGate{Times: map[string]time.Duration{"sandbox": time.Hour}},
			Pass: map[string]promote.Change{"long enough": live, "no rule": to("test", ""),
				"rollback": back},
			Refuse: map[string]promote.Change{"not long enough": short,
				"never": to("sandbox", "test")},
		},
		"freeze": {
			Gate: promote.FreezeGate{Freezes: []promote.Freeze{{Reason: "weekend",
				Environments: []string{"sandbox"},
				Days:         []time.Weekday{time.Friday}, Length: 64 * time.Hour}}},
			Pass: map[string]promote.Change{"other environment": to("test", ""),
				"rollback": back},
			Refuse: map[string]promote.Change{"on Friday": live},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gatetest.Run(t, func(*testing.T) gatetest.Harness { return h })
		})
	}
}
