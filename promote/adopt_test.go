package promote_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
)

// finding is a world that is an Observer: it finds the instances of the test.
type finding struct {
	*world
	seen promote.Observation
	err  error
}

func (f *finding) Observe(context.Context, promote.Target) (promote.Observation, error) {
	return f.seen, f.err
}

func adoption(environment, version string) promote.AdoptRequest {
	return promote.AdoptRequest{Target: in(environment), Version: version, Expect: promote.None,
		Actor: "carol", Reason: "it answers with v1"}
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	w := newWorld()
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: w,
		Adopters: []string{"carol"}})
	for n, version := range []string{"v1", "v2"} {
		require.NoError(t, p.Bind(t.Context(), binding(version, digest(n+1))))
	}
	t.Run("request is checked", func(t *testing.T) {
		for _, bad := range []func(*promote.AdoptRequest){
			func(r *promote.AdoptRequest) { r.Environment = "tset" },
			func(r *promote.AdoptRequest) { r.Version = "" },
			func(r *promote.AdoptRequest) { r.Expect = "" },
			func(r *promote.AdoptRequest) { r.Actor = "" },
			func(r *promote.AdoptRequest) { r.Reason = "\t" },
			func(r *promote.AdoptRequest) { r.Override = string(make([]byte, 5000)) },
		} {
			r := adoption("test", "v1")
			bad(&r)
			_, err := p.Adopt(t.Context(), r)
			require.ErrorIs(t, err, promote.ErrInvalid)
		}
		_, err := p.Adopt(t.Context(), adoption("test", "v9"))
		require.ErrorIs(t, err, promote.ErrUnbound)
		r := adoption("test", "v1")
		r.Expect = digest(2)
		_, err = p.Adopt(t.Context(), r)
		require.ErrorIs(t, err, promote.ErrConflict)
		r = adoption("test", "v1")
		r.Actor = "intern"
		_, err = p.Adopt(t.Context(), r)
		var refused *promote.RefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, []string{"carol"}, refused.Gates[0].Who)
	})
	t.Run("digest is current and nothing was deployed", func(t *testing.T) {
		for _, environment := range []string{"test", "production"} { // no order: it runs there
			d, err := p.Adopt(t.Context(), adoption(environment, "v1"))
			require.NoError(t, err)
			require.Equal(t, digest(1), d.Digest)
			require.Equal(t, "registry:5000/web", d.Repository)
			require.Equal(t, "carol", d.Actor)
			require.False(t, d.Since.IsZero())
		}
		require.Empty(t, w.snapshot())
		before, err := p.History(t.Context(), promote.Target{})
		require.NoError(t, err)
		r := adoption("test", "v1")
		r.Expect = digest(1)
		_, err = p.Adopt(t.Context(), r)
		require.NoError(t, err)
		after, err := p.History(t.Context(), promote.Target{})
		require.NoError(t, err)
		require.Equal(t, before, after, "once more does nothing")
		last := after[len(after)-1]
		require.Equal(t, promote.Adopted, last.Kind)
		require.Equal(t, 2, last.Needs)
	})
	t.Run("promotion replaces it and a failed one restores it", func(t *testing.T) {
		failure := errors.New("no room")
		fails := 1
		w.setFault(func(context.Context, promote.Deployment) error {
			if fails--; fails >= 0 {
				return failure
			}
			return nil
		})
		_, err := p.Promote(t.Context(), request("test", "v2"))
		require.ErrorIs(t, err, failure)
		require.Equal(t, digest(1), w.snapshot()[in("test")])
		_, err = p.Promote(t.Context(), request("test", "v2"))
		require.NoError(t, err)
		_, err = p.Promote(t.Context(), request("sandbox", "v1"))
		require.NoError(t, err, "it has been live in test")
		_, err = p.Rollback(t.Context(), promote.RollbackRequest{Target: in("test"),
			Digest: digest(1), Expect: digest(2), Actor: "alice"})
		require.NoError(t, err)
		r := adoption("test", "v2")
		r.Expect = digest(1)
		_, err = p.Adopt(t.Context(), r)
		require.ErrorContains(t, err, "hold gate")
		require.NoError(t, p.Quarantine(t.Context(), promote.QuarantineRequest{Cluster: "web",
			Digest: digest(2), Actor: "sec", Reason: "CVE-1"}))
		r.Target = in("stable")
		r.Expect = promote.None
		_, err = p.Adopt(t.Context(), r)
		require.ErrorContains(t, err, "quarantine gate")
	})
}

// A target that a failed change has left uncertain is certain again once an adopter has looked.
func TestAdoptEndsDoubt(t *testing.T) {
	t.Parallel()
	w := newWorld()
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: w,
		Adopters: []string{"carol"}})
	for n, version := range []string{"v1", "v2"} {
		require.NoError(t, p.Bind(t.Context(), binding(version, digest(n+1))))
	}
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	w.setFault(func(context.Context, promote.Deployment) error { return errors.New("cut off") })
	_, err = p.Promote(t.Context(), request("test", "v2"))
	require.ErrorContains(t, err, "uncertain")
	w.setFault(nil)
	for _, version := range []string{"v1", "v2"} {
		r := adoption("test", version)
		r.Expect = digest(1)
		d, err := p.Adopt(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, version, d.Version)
		require.Empty(t, d.Doubt)
	}
	_, err = p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err, "its generation is above all that the deployer has seen")
}

// Approvals are asked for, a freeze and a soak are not, and a breaker overrides.
func TestAdoptAsksTheGates(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld(),
		Adopters: []string{"carol", "ci"}, Breakers: []string{"ci"},
		Now: func() time.Time { return now },
		Gates: []promote.Gate{promote.OrderGate{},
			promote.SoakGate{Times: map[string]time.Duration{"production": time.Hour}},
			promote.FreezeGate{Freezes: []promote.Freeze{{Reason: "sale", From: now,
				Until: now.Add(time.Hour)}}},
			promote.ApprovalGate{Rules: map[string]promote.ApprovalRule{"production": {Count: 1,
				NotDeployer: true}}}}})
	for n, version := range []string{"v1", "v2"} {
		require.NoError(t, p.Bind(t.Context(), binding(version, digest(n+1))))
	}
	_, err := p.Adopt(t.Context(), adoption("sandbox", "v1"))
	require.NoError(t, err, "no approvals are needed there")
	r := adoption("production", "v1")
	_, err = p.Adopt(t.Context(), r)
	require.ErrorContains(t, err, "approval gate: production needs 1 approvals")
	require.NotContains(t, err.Error(), "freeze")
	review := promote.Review{Target: in("production"), Version: "v1", Approve: true}
	for _, review.Actor = range []string{"carol", "bob"} {
		_, err = p.Adopt(t.Context(), r)
		require.Error(t, err)
		require.NoError(t, p.Review(t.Context(), review))
	}
	_, err = p.Adopt(t.Context(), r)
	require.NoError(t, err)

	r = adoption("production", "v2")
	r.Expect, r.Actor = digest(1), "ci"
	_, err = p.Adopt(t.Context(), r)
	require.ErrorContains(t, err, "ci built v2")
	r.Override = "the old tool deployed it"
	_, err = p.Adopt(t.Context(), r)
	require.NoError(t, err)
	all, err := p.History(t.Context(), in("production"))
	require.NoError(t, err)
	require.Contains(t, all[len(all)-1].Note, "override: the old tool deployed it; not met: "+
		"approval gate")
}

func TestAdoptObserves(t *testing.T) {
	t.Parallel()
	w := &finding{world: newWorld()}
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: w,
		Adopters: []string{"carol"}})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	w.err = promote.ErrUnavailable
	_, err := p.Adopt(t.Context(), adoption("test", "v1"))
	require.ErrorIs(t, err, promote.ErrUnavailable)
	w.err = nil
	for text, seen := range map[string]promote.Observation{
		"no single digest":          {Instances: 2},
		"finds sha256:020202020202": {Digest: digest(2), Instances: 1},
	} {
		w.seen = seen
		_, err = p.Adopt(t.Context(), adoption("test", "v1"))
		require.ErrorIs(t, err, promote.ErrConflict)
		require.ErrorContains(t, err, text)
	}
	for environment, seen := range map[string]promote.Observation{
		"test":    {Digest: digest(1), Instances: 1},
		"sandbox": {Digest: promote.None},
	} {
		w.seen = seen
		_, err = p.Adopt(t.Context(), adoption(environment, "v1"))
		require.NoError(t, err, environment)
	}
	current, err := p.Current(t.Context())
	require.NoError(t, err)
	require.Len(t, current, 2)
}
