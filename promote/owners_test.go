package promote_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/promote"
)

func TestMemOwners(t *testing.T) {
	t.Parallel()
	o := promote.NewMemOwners()
	tenure, err := o.Join(t.Context(), "a")
	require.NoError(t, err)
	again, err := o.Join(t.Context(), "a")
	require.NoError(t, err)
	require.ErrorIs(t, context.Cause(tenure), promote.ErrFenced)
	lives, err := o.Lives(t.Context(), "a")
	require.NoError(t, err)
	require.True(t, lives)
	require.NoError(t, o.Leave(t.Context(), "a"))
	require.NoError(t, o.Leave(t.Context(), "a"), "once more")
	require.ErrorIs(t, context.Cause(again), promote.ErrClosed)
	lives, err = o.Lives(t.Context(), "a")
	require.NoError(t, err)
	require.False(t, lives)

	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, joinErr := o.Join(ctx, "a")
	_, livesErr := o.Lives(ctx, "a")
	for _, err := range []error{joinErr, livesErr, o.Leave(ctx, "a")} {
		require.ErrorIs(t, err, cause)
	}
}

// pair returns two promoters on one journal and one deployer, with v1 to v3 of web bound.
func pair(t *testing.T, o promote.Owners) (a, b *promote.Promoter, w *world) {
	t.Helper()
	journal := promote.NewMemJournal()
	w = newWorld()
	a = newPromoter(t, promote.Config{Journal: journal, Deployer: w, Owner: "a", Owners: o})
	b = newPromoter(t, promote.Config{Journal: journal, Deployer: w, Owner: "b", Owners: o})
	for n := 1; n <= 3; n++ {
		require.NoError(t, a.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	return a, b, w
}

func TestRecoverLeavesLivingOwners(t *testing.T) {
	t.Parallel()
	o := promote.NewMemOwners()
	a, b, w := pair(t, o)
	h := newHold(w)
	id, err := a.Start(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	<-h.entered
	for range 3 {
		ended, err := b.Recover(t.Context())
		require.NoError(t, err)
		require.Empty(t, ended)
	}
	s, err := b.Status(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "a", s.Owner)
	close(h.release)
	require.Equal(t, digest(1), ends(t, b, id).Digest)
	require.Equal(t, []promote.Kind{promote.Started, promote.Succeeded}, kinds(t, a, in("test")))
}

// An owner that loses its tenure stops before another one goes on.
func TestLostTenure(t *testing.T) {
	t.Parallel()
	o := promote.NewMemOwners()
	a, b, w := pair(t, o)
	h := newHold(w)
	id, err := a.Start(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	<-h.entered
	w.setFault(nil)
	waited := make(chan error)
	go func() {
		_, err := a.Wait(t.Context(), id)
		waited <- err
	}()
	require.NoError(t, o.Leave(t.Context(), "a"))
	ended, err := b.Recover(t.Context())
	require.NoError(t, err)
	require.Len(t, ended, 1)
	require.Equal(t, promote.Succeeded, ended[0].Kind)
	// a hears of its lost tenure, or of b's entry first, or its Wait has followed the journal.
	if err := <-waited; err != nil && !errors.Is(err, promote.ErrFenced) {
		require.ErrorIs(t, err, promote.ErrClosed)
		require.ErrorContains(t, err, "stays open for the next Recover")
	}
	_, err = a.Promote(t.Context(), request("test", "v2"))
	require.NoError(t, err, "a joins again")
	requireAgrees(t, t.Context(), b, w)
}

// unknownOwners does not know the living owners.
type unknownOwners struct{ *promote.MemOwners }

func (unknownOwners) Lives(context.Context, string) (bool, error) { return false, errBroken }

func TestRecoverWithoutKnowingWhoLives(t *testing.T) {
	t.Parallel()
	a, b, w := pair(t, unknownOwners{promote.NewMemOwners()})
	h := newHold(w)
	id, err := a.Start(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	<-h.entered
	ended, err := b.Recover(t.Context())
	require.ErrorIs(t, err, errBroken)
	require.ErrorContains(t, err, "does its owner a live?")
	require.Empty(t, ended)
	close(h.release)
	ends(t, b, id)
}

// alone is a deployer that notices two calls at work on one target at once.
type alone struct {
	*world
	at       atomic.Int32
	overlaps atomic.Int32
}

func (a *alone) Deploy(ctx context.Context, d promote.Deployment) error {
	if a.at.Add(1) > 1 {
		a.overlaps.Add(1)
	}
	defer a.at.Add(-1)
	return a.world.Deploy(ctx, d)
}

// Two promoters share a journal, and one of them dies at a random step of each rollout: no two
// calls of the deployer overlap, no caller of the living one is fenced off, and every rollout ends.
func TestOneOfTwoKilledAtRandom(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(16, 3))
	journal, owners := promote.NewMemJournal(), promote.NewMemOwners()
	w := &alone{world: newWorld()}
	living := func(name string, l *life) *promote.Promoter {
		return newPromoter(t, promote.Config{Journal: mortalJournal{journal, l}, Owner: name,
			Deployer: dying{w, l}, Owners: owners})
	}
	survivor := living("survivor", &life{steps: 1 << 30})
	for n := 1; n <= 3; n++ {
		require.NoError(t, survivor.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	taken := 0
	for round := range soak.Count(5, 50) {
		name := fmt.Sprint("mortal", round)
		l := &life{steps: random.IntN(4), lostAnswer: random.IntN(2) == 0}
		mortal := living(name, l)
		version := fmt.Sprint("v", round%3+1)
		ended := make(chan error)
		go func() {
			_, err := mortal.Promote(t.Context(), request("test", version))
			ended <- err
		}()
		_, err := survivor.Recover(t.Context()) // beside the living one
		require.NoError(t, err)
		err = <-ended
		if l.died() {
			require.NoError(t, owners.Leave(t.Context(), name))
		} else {
			require.NoError(t, err)
			require.NoError(t, mortal.Close(t.Context()))
		}
		again, err := survivor.Recover(t.Context())
		require.NoError(t, err)
		taken += len(again)
		open, err := survivor.Open(t.Context())
		require.NoError(t, err)
		require.Empty(t, open)
		requireAgrees(t, t.Context(), survivor, w.world)
	}
	require.Zero(t, w.overlaps.Load())
	require.Positive(t, taken)
}

// dying ends with its process.
type dying struct {
	*alone
	*life
}

func (d dying) Deploy(ctx context.Context, to promote.Deployment) error {
	return d.do(func() error { return d.alone.Deploy(ctx, to) })
}

func (d dying) Remove(ctx context.Context, to promote.Deployment) error {
	return d.do(func() error { return d.alone.Remove(ctx, to) })
}

// seeing is a world that can be observed.
type seeing struct{ *world }

func (s seeing) Observe(ctx context.Context, t promote.Target) (promote.Observation, error) {
	if ctx.Err() != nil {
		return promote.Observation{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := promote.Observation{Digest: promote.None, Generation: s.seen[t]}
	if d, ok := s.runs[t]; ok {
		o.Digest, o.Instances, o.Ready = d, 1, 1
	}
	return o, nil
}

// A journal that was restored from a backup has lower generations than those that the deployer has
// seen: the next deployment names that, and succeeds.
func TestJournalRestoredFromABackup(t *testing.T) {
	t.Parallel()
	w := seeing{newWorld()}
	copies := [2]*promote.MemJournal{promote.NewMemJournal(), promote.NewMemJournal()}
	for i, journal := range copies {
		p := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
		for n := 1; n <= 3; n++ {
			require.NoError(t, p.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
		}
		if i == 1 { // the backup ends here
			break
		}
		for n := range 21 {
			_, err := p.Promote(t.Context(), request("test", fmt.Sprint("v", n%3+1)))
			require.NoError(t, err)
		}
	}
	p := newPromoter(t, promote.Config{Journal: copies[1], Deployer: w})
	drift, err := p.Observe(t.Context(), in("test"))
	require.NoError(t, err)
	require.Equal(t, []any{promote.None, digest(3), 1, 1},
		[]any{drift.Current, drift.Digest, drift.Instances, drift.Ready})
	require.Len(t, drift.Differences, 2)
	require.Contains(t, drift.Differences[0], "the journal has none, and sha256:030303030303 runs")
	require.Contains(t, drift.Differences[1], "restored from an older copy")

	newest := w.newest(in("test"))
	d, err := p.Promote(t.Context(), request("test", "v2"))
	require.NoError(t, err)
	require.Equal(t, newest+1, d.Generation)
	history, err := p.History(t.Context(), in("test"))
	require.NoError(t, err)
	require.Equal(t, promote.Resumed, history[1].Kind)
	require.Contains(t, history[1].Note, "with sha256:030303030303 was deployed")
	_, err = p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err, "generations go on from there")
	drift, err = p.Observe(t.Context(), in("test"))
	require.NoError(t, err)
	require.Empty(t, drift.Differences)
	requireAgrees(t, t.Context(), p, w.world)
}

func TestObserveWithoutAnObserver(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	_, err := p.Observe(t.Context(), in("test"))
	require.ErrorIs(t, err, promote.ErrInvalid)
}
