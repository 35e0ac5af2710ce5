package promote_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
)

var (
	errKilled = errors.New("killed")
	errBroken = errors.New("v3 does not start")
)

// life ends at a step: of all that a promoter asks its journal and deployer to do, steps happen,
// and one more when lostAnswer, the answer of which does not come back. Nothing happens after that,
// as after kill -9.
type life struct {
	mu         sync.Mutex
	steps      int
	lostAnswer bool
	dead       bool
}

func (l *life) do(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errKilled
	}
	if l.steps == 0 {
		l.dead = true
		if l.lostAnswer {
			_ = f()
		}
		return errKilled
	}
	l.steps--
	return f()
}

func (l *life) died() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

type mortalJournal struct {
	promote.Journal
	*life
}

func (j mortalJournal) Append(ctx context.Context, e promote.Entry) (at uint64,
	err error) {
	err = j.do(func() error {
		at, err = j.Journal.Append(ctx, e)
		return err
	})
	return at, err
}

type mortalDeployer struct {
	*world
	*life
}

func (m mortalDeployer) Deploy(ctx context.Context, d promote.Deployment) error {
	return m.do(func() error {
		err := m.world.Deploy(ctx, d)
		if d.Version == "v3" { // it gets halfway: v3 is there, and does not work
			err = errBroken
		}
		return err
	})
}

func (m mortalDeployer) Remove(ctx context.Context, d promote.Deployment) error {
	return m.do(func() error { return m.world.Remove(ctx, d) })
}

// A promoter is killed before and after each thing that it does outside itself, so is the one that
// recovers after it, and the next one finishes everything: no change is open, each target runs its
// current digest, and every acknowledged change is there.
func TestKilledAtEachStepThenRecovered(t *testing.T) {
	t.Parallel()
	start := func(version string) func(context.Context, *promote.Promoter) error {
		return func(ctx context.Context, p *promote.Promoter) error {
			_, err := p.Promote(ctx, request("test", version))
			return err
		}
	}
	cases := map[string]struct {
		before        []string
		do            func(context.Context, *promote.Promoter) error
		wasThen, then promote.Digest
	}{
		"first deployment":       {nil, start("v1"), "", digest(1)},
		"next deployment":        {[]string{"v1"}, start("v2"), digest(1), digest(2)},
		"failing deployment":     {[]string{"v1"}, start("v3"), digest(1), digest(1)},
		"failing first one":      {nil, start("v3"), "", ""},
		"the same version again": {[]string{"v1"}, start("v1"), digest(1), digest(1)},
		"end of a target": {[]string{"v1"}, func(ctx context.Context, p *promote.Promoter) error {
			return p.Retire(ctx, promote.RetireRequest{Expect: promote.Any, Target: in("test"),
				Actor: "a"})
		}, digest(1), ""},
		"return to what once was": {[]string{"v1", "v2"}, func(ctx context.Context,
			p *promote.Promoter) error {
			_, err := p.Rollback(ctx, promote.RollbackRequest{Expect: promote.Any,
				Target: in("test"), Digest: digest(1),
				Actor: "a"})
			return err
		}, digest(2), digest(1)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kills := 0
			// try lives two lives with a death in each, and a third without one; it returns whether
			// the first two died.
			try := func(first, second int, lostAnswer bool) (firstDied, secondDied bool) {
				journal, w := promote.NewMemJournal(), newWorld()
				live := func(l *life) *promote.Promoter {
					return newPromoter(t, promote.Config{Journal: mortalJournal{journal, l},
						Deployer: mortalDeployer{w, l}})
				}
				forever := &life{steps: 1 << 30}
				p := live(forever)
				for n := 1; n <= 3; n++ {
					require.NoError(t, p.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
				}
				for _, version := range c.before {
					require.NoError(t, start(version)(t.Context(), p))
				}
				one := &life{steps: first, lostAnswer: lostAnswer}
				err := c.do(t.Context(), live(one))
				two := &life{steps: second, lostAnswer: lostAnswer}
				_, recoverErr := live(two).Recover(t.Context())

				p = live(forever)
				_, lastErr := p.Recover(t.Context())
				if lastErr != nil {
					require.ErrorContains(t, lastErr, errBroken.Error())
				}
				open, openErr := p.Open(t.Context())
				require.NoError(t, openErr)
				require.Empty(t, open)
				requireAgrees(t, t.Context(), p, w)
				got := w.snapshot()[in("test")]
				require.Contains(t, []promote.Digest{c.wasThen, c.then}, got)
				if err == nil || recoverErr == nil && !errors.Is(err, errKilled) {
					require.Equal(t, c.then, got)
				}
				if one.dead || two.dead {
					kills++
				}
				return one.dead, two.dead
			}
			for _, lostAnswer := range []bool{false, true} {
				for first, died := 0, true; died; first++ {
					for second, diedToo := 0, true; diedToo; second++ {
						died, diedToo = try(first, second, lostAnswer)
					}
				}
			}
			require.Greater(t, kills, 10)
		})
	}
}

// A promoter that takes over a change in Restoring restores, and does not try the failed deployment
// once more.
func TestKilledWhileItPutsBack(t *testing.T) {
	t.Parallel()
	journal, w := promote.NewMemJournal(), newWorld()
	live := func(steps int) *promote.Promoter {
		l := &life{steps: steps}
		return newPromoter(t, promote.Config{Journal: mortalJournal{journal, l},
			Deployer: mortalDeployer{w, l}})
	}
	p := live(100)
	for _, n := range []int{1, 3} {
		require.NoError(t, p.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	_, err = live(3).Promote(t.Context(), request("test", "v3")) // Started, the deployer, Restoring
	require.ErrorIs(t, err, errKilled)
	require.ErrorContains(t, err, "Recover brings the change to an end")
	require.Equal(t, digest(3), w.snapshot()[in("test")])

	before := w.calls
	ended, err := live(100).Recover(t.Context())
	require.ErrorContains(t, err, errBroken.Error())
	require.Len(t, ended, 1)
	require.Equal(t, promote.Failed, ended[0].Kind)
	require.Equal(t, before+1, w.calls, "the earlier one was deployed, and nothing else")
	requireAgrees(t, t.Context(), p, w)
}

// A promoter is taken for dead, and is not: its late calls do not undo the newer promoter's.
func TestAPausedPromoterIsFencedOff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pause func(w *world, paused, wake chan bool) func(ctx context.Context,
			d promote.Deployment) error
		result error
	}{
		"before it acts": {func(_ *world, paused, wake chan bool) func(context.Context,
			promote.Deployment) error {
			return func(context.Context, promote.Deployment) error {
				close(paused)
				<-wake
				return nil
			}
		}, nil},
		"after it acted": {func(w *world, paused, wake chan bool) func(context.Context,
			promote.Deployment) error {
			return func(_ context.Context, d promote.Deployment) error {
				w.mu.Lock()
				w.runs[d.Target], w.seen[d.Target] = d.Digest, d.Generation
				w.mu.Unlock()
				close(paused)
				<-wake
				return nil
			}
		}, nil},
		"before it fails": {func(_ *world, paused, wake chan bool) func(context.Context,
			promote.Deployment) error {
			return func(context.Context, promote.Deployment) error {
				close(paused)
				<-wake
				return errBroken
			}
		}, errBroken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			journal, w := promote.NewMemJournal(), newWorld()
			slow := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
			fast := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
			for n := 1; n <= 3; n++ {
				require.NoError(t, fast.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
			}
			_, err := slow.Promote(t.Context(), request("test", "v1"))
			require.NoError(t, err)

			paused, wake, ended := make(chan bool), make(chan bool), make(chan error)
			w.setFault(c.pause(w, paused, wake))
			go func() {
				_, err := slow.Promote(t.Context(), request("test", "v2"))
				ended <- err
			}()
			<-paused
			w.setFault(nil)
			done, err := fast.Recover(t.Context())
			require.NoError(t, err)
			require.Len(t, done, 1)
			require.Equal(t, digest(2), done[0].Digest)
			_, err = fast.Promote(t.Context(), request("test", "v3"))
			require.NoError(t, err)

			close(wake)
			err = <-ended
			require.ErrorIs(t, err, promote.ErrFenced)
			if c.result != nil {
				require.ErrorIs(t, err, c.result)
			}
			require.Equal(t, digest(3), w.snapshot()[in("test")])
			requireAgrees(t, t.Context(), slow, w)
		})
	}
}

// A deployer that has seen a higher generation, from another journal say, refuses: the change fails
// and the target is not blocked.
func TestADeployerThatRefusesIsNotAskedToPutBack(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	w.seen[in("test")] = 1000
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.ErrorIs(t, err, promote.ErrFenced)
	require.Empty(t, w.snapshot())
	require.Equal(t, 1, w.calls)
	open, err := p.Open(t.Context())
	require.NoError(t, err)
	require.Empty(t, open)
}

func TestManyPromotersOnOneBoltFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j, err := boltjournal.Open(t.Context(), boltjournal.Config{Path: path})
	require.NoError(t, err)
	raceForTargets(t, j, 8, 10)
	require.NoError(t, j.Close())

	again, err := boltjournal.Open(t.Context(), boltjournal.Config{Path: path})
	require.NoError(t, err)
	defer again.Close()
	p := newPromoter(t, promote.Config{Journal: again, Deployer: newWorld()})
	current, err := p.Current(t.Context())
	require.NoError(t, err)
	require.Len(t, current, 2, "both tasks are there after the file was opened again")
}

// crowded is a journal without room for the entries of a kind.
type crowded struct {
	promote.Journal
	kind promote.Kind
	left atomic.Int32 // how many of them it still refuses
}

func (j *crowded) Append(ctx context.Context, e promote.Entry) (uint64, error) {
	if e.Kind == j.kind && j.left.Add(-1) >= 0 {
		return 0, syscall.ENOSPC
	}
	return j.Journal.Append(ctx, e)
}

// A change that fails while the journal takes no entry stays open: it does not end without the
// earlier deployment being restored, and Recover brings it to its end.
func TestRestoringThatCannotBeWrittenDown(t *testing.T) {
	t.Parallel()
	w := newWorld()
	journal := &crowded{Journal: promote.NewMemJournal(), kind: promote.Restoring}
	p := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
	for n := 1; n <= 2; n++ {
		require.NoError(t, p.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	journal.left.Store(6) // all tries of one outcome
	w.setFault(func(_ context.Context, d promote.Deployment) error {
		if d.Version == "v2" {
			return errBroken
		}
		return nil
	})
	_, err = p.Promote(t.Context(), request("test", "v2"))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, err, errBroken)
	require.ErrorContains(t, err, "Recover brings the change to an end")
	open, err := p.Open(t.Context())
	require.NoError(t, err)
	require.Len(t, open, 1)

	ended, err := p.Recover(t.Context())
	require.ErrorIs(t, err, errBroken)
	require.Len(t, ended, 1)
	s, err := p.Status(t.Context(), open[0].ID())
	require.NoError(t, err)
	require.Equal(t, promote.Undone, s.State)
	require.Empty(t, s.Doubt)
	require.Equal(t, digest(1), w.snapshot()[in("test")])
	requireAgrees(t, t.Context(), p, w)
}
