package promote_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
)

// sized is a gate of an embedder that has its settings counted among the rules.
type sized struct {
	gate
	limit int
}

func (g *sized) Policy(promote.Target) any { return g.limit }

// An approval is of one digest, which stands for the configuration in the image, too, and of the
// rules in force: under other rules of the environment it no longer counts, and Explain says why.
// Rules of other environments change nothing about it, and the earlier rules make it count again.
func TestApprovalsUnderOtherRules(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	type setting struct {
		pipeline promote.Pipeline
		rules    map[string]promote.ApprovalRule
		soak     time.Duration
		limit    int
		rollback promote.RollbackRule
	}
	start := func() setting {
		return setting{pipeline: promote.DefaultPipeline(), soak: time.Minute, limit: 5,
			rules: map[string]promote.ApprovalRule{"production": {Count: 2}, "stable": {Count: 1}}}
	}
	for name, c := range map[string]struct {
		change func(*setting)
		counts bool
	}{
		"nothing": {change: func(*setting) {}, counts: true},
		"another environment's rule": {change: func(s *setting) {
			s.rules["stable"] = promote.ApprovalRule{Count: 3}
		}, counts: true},
		"fewer approvals": {change: func(s *setting) {
			s.rules["production"] = promote.ApprovalRule{Count: 1}
		}},
		"builders no more": {change: func(s *setting) {
			s.rules["production"] = promote.ApprovalRule{Count: 2, NotBuilder: true}
		}},
		"longer": {change: func(s *setting) {
			s.rules["production"] = promote.ApprovalRule{Count: 2, Within: 48 * time.Hour}
		}},
		"shorter soak":     {change: func(s *setting) { s.soak = time.Second }},
		"a gate's setting": {change: func(s *setting) { s.limit = 6 }},
		"defaults written out": {change: func(s *setting) {
			s.rollback.Versions = 1
			s.rules["production"] = promote.ApprovalRule{Count: 2, Within: 24 * time.Hour}
		}, counts: true},
		"rollbacks further": {change: func(s *setting) { s.rollback.Versions = 7 }},
		"another pipeline": {change: func(s *setting) {
			s.pipeline = promote.Pipeline{"test", "production", "stable"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			journal := promote.NewMemJournal()
			open := func(s setting) *promote.Promoter {
				return newPromoter(t, promote.Config{Journal: journal, Deployer: newWorld(),
					Pipeline: s.pipeline, Rollback: s.rollback,
					Now: func() time.Time { return now },
					Gates: []promote.Gate{promote.ApprovalGate{Rules: s.rules},
						promote.SoakGate{Times: map[string]time.Duration{"stable": s.soak,
							"production": s.soak}},
						&sized{says("size", nil), s.limit}}})
			}
			p := open(start())
			require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
			for _, actor := range []string{"bob", "carol"} {
				require.NoError(t, p.Review(t.Context(), promote.Review{Target: in("production"),
					Version: "v1", Approve: true, Actor: actor}))
			}
			changed := start()
			c.change(&changed)
			explain := func(p *promote.Promoter, version string) *promote.GateRefusal {
				e, err := p.Explain(t.Context(), request("production", version))
				require.NoError(t, err)
				for _, g := range e.Gates {
					if g.Gate == "approval" {
						return &g
					}
				}
				return nil
			}
			next := open(changed)
			approval := explain(next, "v1")
			if c.counts {
				require.Nil(t, approval)
				require.NoError(t, next.Bind(t.Context(), binding("v2", digest(2))))
				require.ErrorContains(t, explain(next, "v2"), "and has 0", "another digest")
				return
			}
			require.NotNil(t, approval)
			require.Nil(t, explain(open(start()), "v1"))
			require.Equal(t, []int{changed.rules["production"].Count, 0},
				[]int{approval.Need, approval.Have})
			require.Contains(t, approval.Error(), "bob's was given under other rules")
			require.Contains(t, approval.Error(), "carol's was given under other rules")
		})
	}
}
