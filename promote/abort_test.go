package promote_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
)

// halted is a change that is held in a state: v2 in test, where v1 runs.
type halted struct {
	journal *promote.MemJournal
	world   *world
	own     *promote.Promoter // carries the change out
	other   *promote.Promoter
	id      promote.ChangeID
	release chan bool // closed to let the deployer go on
}

// halt holds a new change in a state: with an empty failure while v2 is deployed, else while v1 is
// put back after it. The deployer is deaf: it does not hear that its context has ended.
func halt(t *testing.T, failure, unavailable error) *halted {
	t.Helper()
	h := &halted{journal: promote.NewMemJournal(), world: newWorld()}
	config := promote.Config{Journal: h.journal, Deployer: h.world, Grace: time.Minute}
	h.own, h.other = newPromoter(t, config), newPromoter(t, config)
	for n := 1; n <= 2; n++ {
		require.NoError(t, h.own.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	_, err := h.own.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	held := newHold(h.world)
	held.deaf, h.release = true, held.release
	if failure != nil || unavailable != nil {
		h.world.setFault(func(ctx context.Context, d promote.Deployment) error {
			if unavailable != nil && ctx.Err() == nil {
				select {
				case held.entered <- d:
				default:
				}
				return unavailable
			}
			if failure != nil && d.Version == "v2" {
				return failure
			}
			if unavailable != nil {
				return context.Cause(ctx)
			}
			return held.fault(ctx, d)
		})
	}
	h.id, err = h.own.Start(t.Context(), request("test", "v2"))
	require.NoError(t, err)
	<-held.entered
	return h
}

// An abort in each state that a change can be in, by another actor at another promoter: empty
// actors and reasons change nothing, the first abort counts, a second one of the same change does
// nothing, and one after the end is a conflict that changes nothing either.
func TestAbortInEachState(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		failure, unavailable error
		first                string // an earlier abort
		state                promote.State
		by                   string // the abort that counts
	}{
		"deploying": {state: promote.Deploying, by: "bob"},
		"deploying, waiting": {state: promote.Deploying, by: "bob",
			unavailable: fmt.Errorf("refused: %w", promote.ErrUnavailable)},
		"stopping":     {state: promote.Stopping, first: "zoe", by: "zoe"},
		"putting back": {state: promote.PuttingBack, by: "bob", failure: errBroken},
		"giving up":    {state: promote.GivingUp, first: "zoe", by: "zoe", failure: errBroken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := halt(t, c.failure, c.unavailable)
			if c.first != "" {
				require.NoError(t, h.other.Abort(t.Context(), h.id, c.first, "no more"))
			}
			now := state(t, h.own, h.id, c.state)
			before := len(kinds(t, h.other, in("test")))
			for _, err := range []error{h.other.Abort(t.Context(), h.id, "", "why"),
				h.other.Abort(t.Context(), h.id, "bob", ""),
				h.other.Abort(t.Context(), h.id, "bob", " \t"),
				h.other.Abort(t.Context(), h.id, " ", " ")} {
				require.ErrorIs(t, err, promote.ErrInvalid)
			}
			if c.unavailable == nil { // else the journal goes on meanwhile
				require.Len(t, kinds(t, h.other, in("test")), before)
			}
			again, err := h.own.Status(t.Context(), h.id)
			require.NoError(t, err)
			require.Equal(t, now.AbortedBy, again.AbortedBy)

			for range 2 { // twice, and once more by its own promoter
				require.NoError(t, h.other.Abort(t.Context(), h.id, "bob", "no more"))
			}
			if c.unavailable == nil {
				require.NoError(t, h.own.Abort(t.Context(), h.id, "carol", "me too"))
			} else { // the deployer was not at work: v1 is being put back, which goes on
				state(t, h.own, h.id, promote.PuttingBack)
				require.NoError(t, h.own.Abort(t.Context(), h.id, "Bob", "no more"))
				h.world.setFault(nil)
			}
			close(h.release)
			_, err = h.own.Wait(t.Context(), h.id)
			require.Error(t, err)
			for _, p := range []*promote.Promoter{h.own, h.other} {
				s := state(t, p, h.id, promote.Undone)
				require.Equal(t, []string{"alice", c.by, "no more"},
					[]string{s.Actor, s.AbortedBy, s.AbortReason})
				require.Empty(t, s.Doubt, "v1 runs: the deployer says so")
				requireLate(t, p, h.id)
			}
			aborts := 0
			for _, kind := range kinds(t, h.other, in("test")) {
				if kind == promote.Aborting {
					aborts++
				}
			}
			require.Equal(t, 1, aborts, "the journal says it once")
			h.world.setFault(nil)
			d, err := h.other.Promote(t.Context(), request("test", "v2"))
			require.NoError(t, err, "the target is free")
			require.Empty(t, d.Doubt)
			requireAgrees(t, t.Context(), h.own, h.world)
		})
	}
	t.Run("done", func(t *testing.T) {
		t.Parallel()
		h := halt(t, nil, nil)
		close(h.release)
		require.Equal(t, digest(2), ends(t, h.own, h.id).Digest)
		requireLate(t, h.own, h.id)
		requireLate(t, h.other, h.id)
		require.Equal(t, digest(2), h.world.snapshot()[in("test")])
	})
}

// requireLate aborts a change that has ended: it is refused each time, and the change stays as it
// is.
func requireLate(t *testing.T, p *promote.Promoter, id promote.ChangeID) {
	t.Helper()
	before, err := p.Status(t.Context(), id)
	require.NoError(t, err)
	entries := len(kinds(t, p, in("test")))
	for range 2 {
		err := p.Abort(t.Context(), id, "dave", "late")
		require.ErrorIs(t, err, promote.ErrConflict)
		require.ErrorContains(t, err, "it has ended at")
		require.ErrorContains(t, err, "roll back instead")
	}
	require.ErrorIs(t, p.Abort(t.Context(), id, "dave", ""), promote.ErrInvalid)
	after, err := p.Status(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Len(t, kinds(t, p, in("test")), entries)
}

// An abort that is sent twice does not give up the restoring; one with a reason of its own does.
func TestAbortGivesUpRestoring(t *testing.T) {
	t.Parallel()
	h := halt(t, nil, fmt.Errorf("refused: %w", promote.ErrUnavailable))
	require.NoError(t, h.other.Abort(t.Context(), h.id, "bob", "wrong build"))
	state(t, h.own, h.id, promote.PuttingBack)
	for range 3 {
		require.NoError(t, h.other.Abort(t.Context(), h.id, "bob", "wrong build"))
	}
	require.Equal(t, promote.PuttingBack, state(t, h.own, h.id, promote.PuttingBack).State)
	require.NoError(t, h.other.Abort(t.Context(), h.id, "bob", "the host is gone"))
	_, err := h.own.Wait(t.Context(), h.id)
	require.ErrorContains(t, err, "what runs now is uncertain")
	s := state(t, h.other, h.id, promote.Undone)
	require.Equal(t, "the host is gone", s.AbortReason)
	require.Contains(t, s.Doubt, "aborted by bob: the host is gone")
}
