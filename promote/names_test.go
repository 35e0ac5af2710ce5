package promote_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/names/namestest"
	"github.com/sluice-deploy/sluice/promote"
)

func TestNames(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p, _ := setup(t)
	invalid := func(t *testing.T, err error) error {
		if err != nil {
			require.ErrorIs(t, err, promote.ErrInvalid)
		}
		return err
	}
	t.Run("bind", func(t *testing.T) {
		namestest.Run(t, namestest.Cluster, func(name string) error {
			b := binding("v1", digest(1))
			b.Cluster = name
			return invalid(t, p.Bind(ctx, b))
		})
		namestest.Run(t, namestest.Version, func(name string) error {
			return invalid(t, p.Bind(ctx, binding(name, digest(1))))
		})
	})
	t.Run("promote", func(t *testing.T) {
		namestest.Run(t, namestest.Task, func(name string) error {
			r := request("test", "v1")
			r.Task = name
			_, err := p.Promote(ctx, r)
			return invalid(t, err)
		}, "empty") // no task
	})
	t.Run("pipeline", func(t *testing.T) {
		namestest.Run(t, namestest.Environment, func(name string) error {
			return invalid(t, promote.Pipeline{name}.Validate())
		})
	})
}

// The journal of an earlier program has names that are refused today.
func TestOldNames(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	journal, w := promote.NewMemJournal(), newWorld()
	old := promote.Target{Cluster: "Hello__Web_", Environment: "test", Task: "_t1"}
	change := promote.Entry{Target: old, Version: "1.0+b", Digest: digest(1),
		Repository: "registry:5000/web", Actor: "ci"}
	for i, e := range []promote.Entry{
		{Kind: promote.Bound, Target: promote.Target{Cluster: old.Cluster}},
		{Kind: promote.Started, Op: promote.OpPromote, Target: old, Change: 2, Generation: 2},
		{Kind: promote.Succeeded, Op: promote.OpPromote, Target: old, Change: 2, Generation: 2},
	} {
		e.Version, e.Digest, e.Repository, e.Actor = change.Version, change.Digest,
			change.Repository, change.Actor
		e.Seq = uint64(i) + 1
		_, err := journal.Append(ctx, e)
		require.NoError(t, err)
	}
	p := newPromoter(t, promote.Config{Journal: journal, Deployer: w})

	current, err := p.Current(ctx)
	require.NoError(t, err)
	require.Len(t, current, 1)
	require.Equal(t, old, current[0].Target)
	bindings, err := p.Bindings(ctx, old.Cluster)
	require.NoError(t, err)
	require.Len(t, bindings, 1)

	again, other := binding("1.0+b", digest(1)), old
	again.Cluster, other.Task = old.Cluster, "_t2"
	require.NoError(t, p.Bind(ctx, again))
	again.Version, again.Digest = "v2", digest(2)
	require.NoError(t, p.Bind(ctx, again), "a cluster that there is gets new versions")
	for _, version := range []string{"1.0+b", "v2"} {
		_, err = p.Promote(ctx, promote.Request{Expect: promote.Any, Target: old, Version: version,
			Actor: "a"})
		require.NoError(t, err)
	}
	d, err := p.Rollback(ctx, promote.RollbackRequest{Expect: promote.Any, Target: old,
		Digest: digest(1), Actor: "a"})
	require.NoError(t, err)
	require.Equal(t, "1.0+b", d.Version)
	require.NoError(t, p.Retire(ctx, promote.RetireRequest{Expect: promote.Any, Target: old,
		Actor: "a"}))
	require.Empty(t, w.snapshot())

	again.Version = "2.0+b"
	require.ErrorContains(t, p.Bind(ctx, again),
		`bind: version "2.0+b": byte 4 is '+': write '_' in its place`)
	_, promoteErr := p.Promote(ctx, promote.Request{Expect: promote.Any, Target: other,
		Version: "v2", Actor: "a"})
	_, rollbackErr := p.Rollback(ctx, promote.RollbackRequest{Expect: promote.Any, Target: other,
		Digest: digest(1),
		Actor:  "a"})
	for _, err := range []error{promoteErr, rollbackErr,
		p.Retire(ctx, promote.RetireRequest{Expect: promote.Any, Target: other, Actor: "a"})} {
		require.ErrorIs(t, err, promote.ErrInvalid, "the journal does not have this task")
		require.ErrorContains(t, err, `task "_t2": byte 1 is '_'`)
	}
}
