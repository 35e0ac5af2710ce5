package promote_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/promote"
)

// oracle computes a promoter's answer in the plainest way.
type oracle struct {
	bound map[string]promote.Digest // cluster/version
	runs  map[promote.Target]promote.Digest
	lived map[string]bool             // cluster/environment/digest
	held  map[string][]promote.Target // cluster/digest: where it was rolled back
}

// keptBack reports whether a rollback at t, or in an environment before it, has replaced d.
func (o *oracle) keptBack(t promote.Target, d promote.Digest) bool {
	pipeline := promote.DefaultPipeline()
	for _, at := range o.held[t.Cluster+"/"+string(d)] {
		if at == t || pipeline.Index(at.Environment) < pipeline.Index(t.Environment) {
			return true
		}
	}
	return false
}

func (o *oracle) living(t promote.Target, d promote.Digest) string {
	return fmt.Sprint(t.Cluster, "/", t.Environment, "/", d)
}

func (o *oracle) expected(t promote.Target, expect promote.Digest) bool {
	is, ok := o.runs[t]
	if !ok {
		is = promote.None
	}
	return expect == promote.Any || expect == is
}

func (o *oracle) set(t promote.Target, d promote.Digest) {
	o.runs[t] = d
	o.lived[o.living(t, d)] = true
}

// Any order of operations by two promoters on one journal, with a deployer that sometimes fails,
// agrees with the oracle.
func TestAgainstOracle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		broken := errors.New("broken")
		journal, w := promote.NewMemJournal(), newWorld()
		promoters := []*promote.Promoter{
			newPromoter(t, promote.Config{Journal: journal, Deployer: w}),
			newPromoter(t, promote.Config{Journal: journal, Deployer: w}),
		}
		o := oracle{bound: map[string]promote.Digest{}, runs: map[promote.Target]promote.Digest{},
			lived: map[string]bool{}, held: map[string][]promote.Target{}}
		pipeline := promote.DefaultPipeline()

		digests := rapid.Map(rapid.IntRange(1, 3), digest)
		targets := rapid.Custom(func(rt *rapid.T) promote.Target {
			target := promote.Target{Cluster: rapid.SampledFrom([]string{"web", "api"}).Draw(rt,
				"cluster"),
				Environment: rapid.SampledFrom(pipeline[:3]).Draw(rt, "environment")}
			if target.Environment == "test" {
				target.Task = rapid.SampledFrom([]string{"", "t1"}).Draw(rt, "task")
			}
			return target
		})
		expects := rapid.OneOf(rapid.Just(promote.Any), rapid.Just(promote.Any),
			rapid.Just(promote.None), digests)
		versions := rapid.SampledFrom([]string{"v1", "v2", "v3", "v4"})
		one := func(rt *rapid.T) *promote.Promoter {
			return rapid.SampledFrom(promoters).Draw(rt, "promoter")
		}
		// fail makes the deployer refuse the first call, and restore the earlier deployment with
		// the second.
		fail := func(rt *rapid.T) bool {
			fails := rapid.IntRange(0, 4).Draw(rt, "fails") == 0
			left := 0
			if fails {
				left = 1
			}
			w.setFault(func(context.Context, promote.Deployment) error {
				if left--; left >= 0 {
					return broken
				}
				return nil
			})
			return fails
		}

		rt.Repeat(map[string]func(*rapid.T){
			"bind": func(rt *rapid.T) {
				cluster, version, d := rapid.SampledFrom([]string{"web", "api"}).Draw(rt,
					"cluster"), versions.Draw(rt, "version"), digests.Draw(rt, "digest")
				b := binding(version, d)
				b.Cluster = cluster
				err := one(rt).Bind(ctx, b)
				if was, ok := o.bound[cluster+"/"+version]; ok && was != d {
					require.ErrorIs(rt, err, promote.ErrRebound)
					return
				}
				require.NoError(rt, err)
				o.bound[cluster+"/"+version] = d
			},
			"promote": func(rt *rapid.T) {
				r := promote.Request{Target: targets.Draw(rt, "target"), Version: versions.Draw(rt,
					"version"), Expect: expects.Draw(rt, "expect"), Actor: "a"}
				p, fails := one(rt), fail(rt)
				checkErr := p.Check(ctx, r)
				got, err := p.Promote(ctx, r)
				d, bound := o.bound[r.Cluster+"/"+r.Version]
				before := r.Target
				before.Environment = pipeline.Previous(r.Environment)
				var refused *promote.RefusedError
				switch {
				case !bound:
					require.ErrorIs(rt, err, promote.ErrUnbound)
				case !o.expected(r.Target, r.Expect):
					require.ErrorIs(rt, err, promote.ErrConflict)
				case o.keptBack(r.Target, d):
					require.ErrorAs(rt, err, &refused)
				case before.Environment != "" && !o.lived[o.living(before, d)]:
					require.ErrorAs(rt, err, &refused)
				default:
					require.NoError(rt, checkErr)
					if fails {
						require.ErrorIs(rt, err, broken)
						return
					}
					require.NoError(rt, err)
					require.Equal(rt, d, got.Digest)
					o.set(r.Target, d)
					return
				}
				require.EqualError(rt, checkErr, err.Error())
			},
			"roll back": func(rt *rapid.T) {
				r := promote.RollbackRequest{Target: targets.Draw(rt, "target"),
					Digest: digests.Draw(rt, "digest"), Expect: expects.Draw(rt, "expect"),
					Actor: "a"}
				p, fails := one(rt), fail(rt)
				got, err := p.Rollback(ctx, r)
				var refused *promote.RefusedError
				switch {
				case !o.expected(r.Target, r.Expect):
					require.ErrorIs(rt, err, promote.ErrConflict)
				case !o.lived[o.living(r.Target, r.Digest)], o.keptBack(r.Target, r.Digest):
					require.ErrorAs(rt, err, &refused)
				case fails:
					require.ErrorIs(rt, err, broken)
				default:
					require.NoError(rt, err)
					require.Equal(rt, r.Digest, got.Digest)
					require.Equal(rt, r.Digest, o.bound[r.Cluster+"/"+got.Version])
					if was, ok := o.runs[r.Target]; ok && was != r.Digest {
						key := r.Cluster + "/" + string(was)
						o.held[key] = append(o.held[key], r.Target)
					}
					o.set(r.Target, r.Digest)
				}
			},
			"release": func(rt *rapid.T) {
				r := promote.QuarantineRequest{Digest: digests.Draw(rt, "digest"), Actor: "a",
					Cluster: rapid.SampledFrom([]string{"web", "api"}).Draw(rt, "cluster"),
					Reason:  "looked at"}
				require.NoError(rt, one(rt).Release(ctx, r))
				delete(o.held, r.Cluster+"/"+string(r.Digest))
			},
			"retire": func(rt *rapid.T) {
				r := promote.RetireRequest{Target: targets.Draw(rt, "target"),
					Expect: expects.Draw(rt, "expect"), Actor: "a"}
				p, fails := one(rt), fail(rt)
				err := p.Retire(ctx, r)
				_, there := o.runs[r.Target]
				switch {
				case !there:
					require.NoError(rt, err)
				case !o.expected(r.Target, r.Expect):
					require.ErrorIs(rt, err, promote.ErrConflict)
				case fails:
					require.ErrorIs(rt, err, broken)
				default:
					require.NoError(rt, err)
					delete(o.runs, r.Target)
				}
			},
			"": func(rt *rapid.T) {
				require.Equal(rt, o.runs, w.snapshot())
				for _, p := range promoters {
					requireAgrees(rt, ctx, p, w)
				}
				// A fresh promoter reads the same state from the journal that the old ones hold in
				// memory.
				var answers [][]promote.Deployment
				for _, p := range append(slices.Clone(promoters),
					newPromoter(t, promote.Config{Journal: journal, Deployer: w})) {
					current, err := p.Current(ctx)
					require.NoError(rt, err)
					answers = append(answers, current)
				}
				require.Equal(rt, answers[0], answers[1])
				require.Equal(rt, answers[0], answers[2])
			},
		})
	})
}
