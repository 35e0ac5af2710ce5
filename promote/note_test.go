package promote_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/promote"
)

func TestNote(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	note := promote.Note{Target: in("test"), Op: "restart", Actor: "ann", Reason: "instance web-1"}
	require.NoError(t, p.Note(t.Context(), note))
	note.Error = strings.Repeat("x", 5000)
	require.NoError(t, p.Note(t.Context(), note))
	note.Target = in("stable") // where nothing is current
	require.NoError(t, p.Note(t.Context(), note))

	notes, err := p.Recent(t.Context(), promote.Target{Environment: "test"}, 0, 2)
	require.NoError(t, err)
	require.Len(t, notes, 2)
	require.Len(t, notes[0].Error, 4096)
	require.Equal(t, promote.Noted, notes[1].Kind)
	require.Equal(t, promote.Op("restart"), notes[1].Op)
	require.Equal(t, "v1", notes[1].Version)
	require.Equal(t, digest(1), notes[1].Digest)
	require.Equal(t, "ann", notes[1].Actor)
	requireAgrees(t, t.Context(), p, w)

	w.setFault(func(ctx context.Context, _ promote.Deployment) error { // in the middle of a change
		note.Target = in("test")
		return p.Note(ctx, note)
	})
	_, err = p.Promote(t.Context(), request("test", "v2"))
	require.NoError(t, err)
	requireAgrees(t, t.Context(), p, w)

	before, err := p.History(t.Context(), promote.Target{})
	require.NoError(t, err)
	for _, bad := range []promote.Note{
		{}, {Target: in("test"), Op: "restart"}, {Target: in("moon"), Op: "restart", Actor: "ann"},
		{Target: in("test"), Op: promote.OpRetire, Actor: "ann"},
		{Target: in("test"), Op: "Re start", Actor: "ann"},
		{Target: in("test"), Op: "restart", Actor: "ann\n"},
		{Target: promote.Target{Environment: "test"}, Op: "restart", Actor: "ann"},
	} {
		require.ErrorIs(t, p.Note(t.Context(), bad), promote.ErrInvalid, "%+v", bad)
	}
	after, err := p.History(t.Context(), promote.Target{})
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// TestRecent holds Recent against History.
func TestRecent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld()})
		clusters, environments := []string{"web", "api", "db"}, []string{"test", "stable"}
		for range rapid.IntRange(0, 20).Draw(rt, "entries") {
			require.NoError(rt, p.Note(t.Context(), promote.Note{Op: "restart", Actor: "ann",
				Target: promote.Target{
					Cluster:     rapid.SampledFrom(clusters).Draw(rt, "cluster"),
					Environment: rapid.SampledFrom(environments).Draw(rt, "environment"),
				}}))
		}
		at := promote.Target{
			Cluster:     rapid.SampledFrom(append(clusters, "", "nobody")).Draw(rt, "of"),
			Environment: rapid.SampledFrom(append(environments, "")).Draw(rt, "in"),
		}
		before, n := rapid.Uint64Range(0, 22).Draw(rt, "before"), rapid.IntRange(0, 22).Draw(rt,
			"n")
		history, err := p.History(t.Context(), at)
		require.NoError(rt, err)
		var want []uint64
		for i := len(history) - 1; i >= 0 && len(want) < n; i-- {
			if before == 0 || history[i].At < before {
				want = append(want, history[i].At)
			}
		}
		recent, err := p.Recent(t.Context(), at, before, n)
		require.NoError(rt, err)
		var got []uint64
		for _, e := range recent {
			got = append(got, e.At)
		}
		require.Equal(rt, want, got, fmt.Sprint(at, before, n))
	})
	p, _ := setup(t)
	_, err := p.Recent(t.Context(), promote.Target{}, 0, -1)
	require.ErrorIs(t, err, promote.ErrInvalid)
}
