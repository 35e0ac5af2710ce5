package promote_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
)

// ends waits for the end of a change and returns its deployment.
func ends(t *testing.T, p *promote.Promoter, id promote.ChangeID) promote.Deployment {
	t.Helper()
	d, err := p.Wait(t.Context(), id)
	require.NoError(t, err)
	return d
}

// hold is a fault that holds calls until release is closed or, unless deaf, their context ends.
type hold struct {
	entered chan promote.Deployment
	release chan bool
	deaf    bool
}

func newHold(w *world) *hold {
	h := &hold{entered: make(chan promote.Deployment, 10), release: make(chan bool)}
	w.setFault(h.fault)
	return h
}

func (h *hold) fault(ctx context.Context, d promote.Deployment) error {
	h.entered <- d
	done := ctx.Done()
	if h.deaf {
		done = nil
	}
	select {
	case <-h.release:
		return nil
	case <-done:
		return context.Cause(ctx)
	}
}

// state waits until the journal has the change in a state.
func state(t *testing.T, p *promote.Promoter, id promote.ChangeID,
	want promote.State) promote.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for after := uint64(0); ; {
		s, err := p.Status(ctx, id)
		require.NoError(t, err)
		if s.State == want {
			return s
		}
		entries, err := p.Watch(ctx, after)
		require.NoError(t, err, "the change is %s, not %s", s.State, want)
		after = entries[len(entries)-1].At
	}
}

func kinds(t *testing.T, p *promote.Promoter, target promote.Target) []promote.Kind {
	t.Helper()
	history, err := p.History(t.Context(), target)
	require.NoError(t, err)
	var list []promote.Kind
	for _, e := range history {
		list = append(list, e.Kind)
	}
	return list
}

func TestStart(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	h := newHold(w)
	ctx, cancel := context.WithCancel(t.Context())
	id, err := p.Start(ctx, request("test", "v1"))
	require.NoError(t, err)
	require.Equal(t, promote.ChangeID("web-4"), id)
	<-h.entered
	cancel() // the caller has gone
	s, err := p.Status(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, promote.Deploying, s.State)
	require.False(t, s.State.Ended())
	require.Equal(t, []any{id, promote.OpPromote, "v1", "alice", in("test")},
		[]any{s.ID, s.Op, s.Version, s.Actor, s.Target})

	close(h.release)
	d := ends(t, p, id)
	require.Equal(t, digest(1), d.Digest)
	require.Equal(t, d, ends(t, p, id), "the journal keeps the outcome")
	s = state(t, p, id, promote.Done)
	require.True(t, s.State.Ended())
	require.Equal(t, d.Since, s.Ended)

	w.setFault(nil)
	back, err := p.StartRollback(t.Context(), promote.RollbackRequest{Expect: promote.Any,
		Target: in("test"),
		Digest: digest(1), Actor: "a"})
	require.NoError(t, err)
	require.Equal(t, digest(1), ends(t, p, back).Digest)
	end, err := p.StartRetire(t.Context(), promote.RetireRequest{Expect: promote.Any,
		Target: in("test"), Actor: "a"})
	require.NoError(t, err)
	require.Zero(t, ends(t, p, end))
	require.Zero(t, ends(t, p, end), "the journal keeps the outcome")
	none, err := p.StartRetire(t.Context(), promote.RetireRequest{Expect: promote.Any,
		Target: in("test"), Actor: "a"})
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestUnknownChange(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	for id, want := range map[promote.ChangeID]error{
		"": promote.ErrInvalid, "web": promote.ErrInvalid, "-1": promote.ErrInvalid,
		"web-x": promote.ErrInvalid, "web-0": promote.ErrInvalid, "web--1": promote.ErrNotFound,
		"web-1": promote.ErrNotFound, "api-1": promote.ErrNotFound, "web-99": promote.ErrNotFound,
	} {
		_, err := p.Status(t.Context(), id)
		require.ErrorIs(t, err, want, "status %s", id)
		_, err = p.Wait(t.Context(), id)
		require.ErrorIs(t, err, want, "wait %s", id)
		require.ErrorIs(t, p.Abort(t.Context(), id, "bob", "wrong"), want, "abort %s", id)
	}
	for _, err := range []error{p.Abort(t.Context(), "web-4", "", "why"),
		p.Abort(t.Context(), "web-4", "bob", " ")} {
		require.ErrorIs(t, err, promote.ErrInvalid)
	}
}

// An abort works through every promoter on the journal, also through one that is not at work.
func TestAbort(t *testing.T) {
	t.Parallel()
	journal, w := promote.NewMemJournal(), newWorld()
	p := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
	other := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
	for n, version := range []string{"v1", "v2"} {
		require.NoError(t, p.Bind(t.Context(), binding(version, digest(n+1))))
	}
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	for name, by := range map[string]*promote.Promoter{"its own": p, "another": other} {
		h := newHold(w)
		id, err := p.Start(t.Context(), request("test", "v2"))
		require.NoError(t, err, name)
		<-h.entered
		w.setFault(nil)
		require.NoError(t, by.Abort(t.Context(), id, "bob", "wrong build"), name)
		_, err = p.Wait(t.Context(), id)
		require.ErrorIs(t, err, promote.ErrAborted, name)
		var abort *promote.AbortError
		require.ErrorAs(t, err, &abort, name)
		require.Equal(t, promote.AbortError{Actor: "bob", Reason: "wrong build"}, *abort, name)
		require.Equal(t, digest(1), w.snapshot()[in("test")], name)
		requireAgrees(t, t.Context(), p, w)

		_, err = other.Wait(t.Context(), id)
		require.ErrorIs(t, err, promote.ErrAborted, name)
		s := state(t, other, id, promote.Undone)
		require.Equal(t, []string{"alice", "bob", "wrong build", ""},
			[]string{s.Actor, s.AbortedBy, s.AbortReason, s.Doubt}, name)
		err = by.Abort(t.Context(), id, "carol", "late")
		require.ErrorIs(t, err, promote.ErrConflict, name)
		require.ErrorContains(t, err, "it has ended at", name)
	}
}

// An abort comes into the journal before the deployer's success: the change does not succeed.
func TestAbortBeforeSuccess(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	h := newHold(w)
	h.deaf = true
	id, err := p.Start(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	<-h.entered
	require.NoError(t, p.Abort(t.Context(), id, "bob", "wrong build"))
	require.NoError(t, p.Abort(t.Context(), id, "carol", "me too"), "a second abort says the same")
	close(h.release)
	_, err = p.Wait(t.Context(), id)
	require.ErrorIs(t, err, promote.ErrAborted)
	require.Empty(t, w.snapshot())
	require.Equal(t, []promote.Kind{promote.Started, promote.Aborting, promote.Restoring,
		promote.Failed}, kinds(t, p, in("test")))
}

// An abort of a change that is being put back ends it, and leaves the target uncertain.
func TestAbortWhilePutBack(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	h := newHold(w)
	w.setFault(func(ctx context.Context, d promote.Deployment) error {
		if d.Version == "v2" {
			return errBroken
		}
		return h.fault(ctx, d)
	})
	id, err := p.Start(t.Context(), request("test", "v2"))
	require.NoError(t, err)
	<-h.entered
	state(t, p, id, promote.PuttingBack)
	require.NoError(t, p.Abort(t.Context(), id, "bob", "the host is gone"))
	_, err = p.Wait(t.Context(), id)
	require.ErrorContains(t, err, errBroken.Error()) // a late Wait has only the text
	require.ErrorContains(t, err, "what runs now is uncertain")
	require.Contains(t, state(t, p, id, promote.Undone).Doubt, "aborted by bob: the host is gone")
	w.setFault(nil)
	_, err = p.Promote(t.Context(), request("test", "v3"))
	require.NoError(t, err)
}

// A deployer that ignores its context holds its target until the deadline and the grace are over.
func TestHangingDeployer(t *testing.T) {
	t.Parallel()
	w := newWorld()
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: w,
		Deadlines: map[string]time.Duration{"test": time.Millisecond}, Grace: time.Millisecond})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	h := newHold(w)
	h.deaf = true
	defer close(h.release)
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.ErrorIs(t, err, promote.ErrDeadline)
	require.ErrorContains(t, err, "did not return within 1ms")
	require.ErrorContains(t, err, "what runs now is uncertain")
	open, err := p.Open(t.Context())
	require.NoError(t, err)
	require.Empty(t, open)
	s, err := p.Status(t.Context(), "web-2")
	require.NoError(t, err)
	_, err = p.Wait(t.Context(), s.ID)
	require.ErrorIs(t, err, promote.ErrDeadline, "also from the journal")
}

// A deployer that cannot be asked is asked again: the change stays open, and the journal says once
// why it waits.
func TestUnavailableDeployer(t *testing.T) {
	t.Parallel()
	away := func(left int) func(context.Context, promote.Deployment) error {
		return func(context.Context, promote.Deployment) error {
			if left--; left >= 0 {
				return errors.Join(errors.New("connection refused"), promote.ErrUnavailable)
			}
			return nil
		}
	}
	t.Run("in a deployment", func(t *testing.T) {
		p, w := setup(t)
		w.setFault(away(20))
		_, err := p.Promote(t.Context(), request("test", "v1"))
		require.NoError(t, err)
		require.Equal(t, []promote.Kind{promote.Started, promote.Waiting, promote.Succeeded},
			kinds(t, p, in("test")))
		requireAgrees(t, t.Context(), p, w)
	})
	t.Run("while it is put back", func(t *testing.T) {
		p, w := setup(t)
		_, err := p.Promote(t.Context(), request("test", "v1"))
		require.NoError(t, err)
		again := away(20)
		w.setFault(func(ctx context.Context, d promote.Deployment) error {
			if d.Version == "v2" {
				return errBroken
			}
			return again(ctx, d)
		})
		_, err = p.Promote(t.Context(), request("test", "v2"))
		require.ErrorIs(t, err, errBroken)
		require.NotContains(t, err.Error(), "uncertain")
		requireAgrees(t, t.Context(), p, w)
	})
	t.Run("at recovery", func(t *testing.T) {
		journal, w := promote.NewMemJournal(), newWorld()
		p := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
		require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
		dead := newPromoter(t, promote.Config{Deployer: w,
			Journal: mortalJournal{journal, &life{steps: 1}}})
		_, err := dead.Promote(t.Context(), request("test", "v1"))
		require.ErrorIs(t, err, errKilled)
		w.setFault(away(20))
		ended, err := p.Recover(t.Context())
		require.NoError(t, err)
		require.Equal(t, promote.Succeeded, ended[0].Kind)
		require.Equal(t, []promote.Kind{promote.Started, promote.Resumed, promote.Waiting,
			promote.Succeeded}, kinds(t, p, in("test")))
	})
	t.Run("until an abort", func(t *testing.T) {
		p, w := setup(t)
		w.setFault(away(1 << 30))
		id, err := p.Start(t.Context(), request("test", "v1"))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = p.Watch(ctx, 4)
		require.NoError(t, err)
		s, err := p.Status(ctx, id)
		require.NoError(t, err)
		require.Contains(t, s.Waiting, "connection refused")
		require.NoError(t, p.Abort(ctx, id, "bob", "not today"))
		state(t, p, id, promote.PuttingBack)
		require.NoError(t, p.Abort(ctx, id, "bob", "not at all"))
		_, err = p.Wait(ctx, id)
		require.ErrorIs(t, err, promote.ErrAborted)
		require.ErrorContains(t, err, "what runs now is uncertain")
	})
}

// Close ends the deployer's calls and leaves the changes open for the next promoter.
func TestClose(t *testing.T) {
	t.Parallel()
	journal, w := promote.NewMemJournal(), newWorld()
	p := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	h := newHold(w)
	id, err := p.Start(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	<-h.entered
	waited := make(chan error)
	go func() {
		_, err := p.Wait(t.Context(), id)
		waited <- err
	}()
	require.NoError(t, p.Close(t.Context()))
	require.ErrorIs(t, <-waited, promote.ErrClosed)
	_, err = p.Promote(t.Context(), request("test", "v1"))
	require.ErrorIs(t, err, promote.ErrClosed)
	_, err = p.Recover(t.Context())
	require.ErrorIs(t, err, promote.ErrClosed)
	require.NoError(t, p.Close(t.Context()))

	w.setFault(nil)
	next := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
	ended, err := next.Recover(t.Context())
	require.NoError(t, err)
	require.Len(t, ended, 1)
	require.Equal(t, digest(1), ends(t, next, id).Digest)
}

// A promoter dies after the abort is in the journal: the one that takes over restores.
func TestKilledAfterAbort(t *testing.T) {
	t.Parallel()
	journal, w := promote.NewMemJournal(), newWorld()
	p := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
	for n, version := range []string{"v1", "v2"} {
		require.NoError(t, p.Bind(t.Context(), binding(version, digest(n+1))))
	}
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	dead := newPromoter(t, promote.Config{Deployer: w,
		Journal: mortalJournal{journal, &life{steps: 1}}})
	_, err = dead.Promote(t.Context(), request("test", "v2"))
	require.ErrorIs(t, err, errKilled)
	open, err := p.Open(t.Context())
	require.NoError(t, err)
	require.Len(t, open, 1)
	id := open[0].ID()
	require.Equal(t, digest(2), w.snapshot()[in("test")], "it got as far as that")

	require.NoError(t, p.Abort(t.Context(), id, "bob", "wrong build"))
	_, err = p.Recover(t.Context())
	require.ErrorIs(t, err, promote.ErrAborted)
	require.Equal(t, digest(1), w.snapshot()[in("test")])
	requireAgrees(t, t.Context(), p, w)
}
