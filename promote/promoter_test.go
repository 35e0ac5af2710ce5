package promote_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/journaltest"
)

func Example() {
	ctx := context.Background()
	p, _ := promote.New(promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld()})
	_, _ = p.Recover(ctx)

	_ = p.Bind(ctx, binding("v2", digest(2)))
	_, err := p.Promote(ctx, request("sandbox", "v2"))
	fmt.Println(err)
	for _, environment := range promote.DefaultPipeline() {
		_, _ = p.Promote(ctx, request(environment, "v2"))
	}
	current, _ := p.Current(ctx)
	for _, d := range current {
		fmt.Println(d.Target, d.Version, d.Digest.Short())
	}
	// Output:
	// promote web in sandbox v2 is refused; order gate: web v2 (sha256:020202020202) has never been live in test: deploy it there first
	// web in test v2 sha256:020202020202
	// web in sandbox v2 sha256:020202020202
	// web in production v2 sha256:020202020202
	// web in stable v2 sha256:020202020202
}

func TestImportsTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/promote", "net/http", "os/exec")
}

func TestMemJournal(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(*testing.T) promote.Journal { return promote.NewMemJournal() })
	journaltest.RunTrimmer(t, func(*testing.T) promote.Trimmer { return promote.NewMemJournal() })
}

func TestNewReportsEveryProblemAtOnce(t *testing.T) {
	t.Parallel()
	_, err := promote.New(promote.Config{Pipeline: promote.Pipeline{"test", "", "test"}, Grace: -1})
	for _, want := range []string{
		`promote: Config.Pipeline: environment "": is empty`, `"test" stands in it twice: invalid`,
		"promote: Config.Journal: nil", "promote: Config.Deployer: nil", "promote: Config.Grace: " +
			"-1ns: want 0 (default 1m0s) or more: invalid",
	} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorIs(t, err, promote.ErrInvalid)
	_, err = promote.New(promote.Config{Pipeline: promote.Pipeline{},
		Journal: promote.NewMemJournal(), Deployer: newWorld()})
	require.ErrorContains(t, err, "name at least one")
}

func TestInvalidInputChangesNothing(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	ask := func(change func(*promote.Request)) error {
		r := request("test", "v1")
		change(&r)
		_, err := p.Promote(t.Context(), r)
		return err
	}
	bind := func(change func(*promote.Binding)) error {
		b := binding("v9", digest(9))
		change(&b)
		return p.Bind(t.Context(), b)
	}
	for want, err := range map[string]error{
		`environment "prod": the pipeline has test, sandbox, production, stable`: ask(
			func(r *promote.Request) {
				r.Environment = "prod"
			}),
		`cluster "a/b"`: ask(func(r *promote.Request) { r.Cluster = "a/b" }),
		`only test runs tasks side by side`: ask(func(r *promote.Request) {
			r.Environment, r.Task = "sandbox", "t1"
		}),
		`task "-t"`:                        ask(func(r *promote.Request) { r.Task = "-t" }),
		`version "v 1"`:                    ask(func(r *promote.Request) { r.Version = "v 1" }),
		`promote: expect: digest "latest"`: ask(func(r *promote.Request) { r.Expect = "latest" }),
		`actor ""`:                         ask(func(r *promote.Request) { r.Actor = "" }),
		`actor "a\nb"`:                     ask(func(r *promote.Request) { r.Actor = "a\nb" }),
		`reason of 5000 bytes`: ask(func(r *promote.Request) {
			r.Reason = strings.Repeat("x", 5000)
		}),
		`digest "sha256:ABC"`: bind(func(b *promote.Binding) {
			b.Digest = "sha256:ABC"
		}),
		`repository "web:v1"`: bind(func(b *promote.Binding) {
			b.Repository = "web:v1"
		}),
		`repository "https://user:pw@r/web"`: bind(func(b *promote.Binding) {
			b.Repository = "https://user:pw@r/web"
		}),
		`repository "registry:5000/web@sha"`: bind(func(b *promote.Binding) {
			b.Repository = "registry:5000/web@sha"
		}),
		`version ""`: bind(func(b *promote.Binding) { b.Version = "" }),
		"digest \"none\"": func() error {
			_, err := p.Rollback(t.Context(), promote.RollbackRequest{Expect: promote.Any,
				Target: in("test"),
				Digest: promote.None, Actor: "a"})
			return err
		}(),
		"retire: environment \"\"": p.Retire(t.Context(),
			promote.RetireRequest{Expect: promote.Any, Target: promote.Target{Cluster: "web"},
				Actor: "a"}),
		"promote: environment \"x\":": p.Check(t.Context(), request("x", "v1")),
	} {
		require.ErrorIs(t, err, promote.ErrInvalid, want)
		require.ErrorContains(t, err, want)
	}
	history, err := p.History(t.Context(), promote.Target{})
	require.NoError(t, err)
	require.Len(t, history, 3, "only the bindings of setup")
	require.Empty(t, w.snapshot())
}

func TestAVersionIsBoundOnceForEver(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))), "the same again")

	err := p.Bind(t.Context(), binding("v1", digest(7)))
	require.ErrorIs(t, err, promote.ErrRebound)
	var rebound *promote.ReboundError
	require.ErrorAs(t, err, &rebound)
	require.Equal(t, digest(1), rebound.Bound)
	require.Equal(t, digest(7), rebound.Asked)
	require.ErrorContains(t, err, "give the new image a new version name")

	list, err := p.Bindings(t.Context(), "web")
	require.NoError(t, err)
	require.Len(t, list, 3)
	require.Equal(t, []string{"v1", "v2", "v3"}, []string{list[0].Version, list[1].Version,
		list[2].Version})
	require.False(t, list[0].Time.IsZero())

	_, err = p.Promote(t.Context(), request("test", "v4"))
	require.ErrorIs(t, err, promote.ErrUnbound)
}

func TestTheDigestIsTheSameEverywhereAndTasksRunSideBySide(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	for task, version := range map[string]string{"t2": "v2", "t3": "v3"} {
		r := request("test", version)
		r.Task = task
		_, err := p.Promote(t.Context(), r)
		require.NoError(t, err)
	}
	for _, environment := range []string{"sandbox", "production", "stable"} {
		d, err := p.Promote(t.Context(), request(environment, "v2"))
		require.NoError(t, err)
		require.Equal(t, digest(2), d.Digest)
		require.Equal(t, "registry:5000/web@"+string(digest(2)), d.Image())
		require.False(t, d.Since.IsZero())
	}
	current, err := p.Current(t.Context())
	require.NoError(t, err)
	var table []string
	for _, d := range current {
		table = append(table, fmt.Sprint(d.Target, " ", d.Version))
	}
	require.Equal(t, []string{"web in test for task t2 v2", "web in test for task t3 v3",
		"web in sandbox v2", "web in production v2", "web in stable v2"}, table)
	requireAgrees(t, t.Context(), p, w)
}

func TestExpect(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	ask := func(version string, expect promote.Digest) error {
		r := request("test", version)
		r.Expect = expect
		_, err := p.Promote(t.Context(), r)
		return err
	}
	require.ErrorContains(t, ask("v1", digest(3)), "nothing is current, not sha256:030303030303 "+
		"as expected")
	require.NoError(t, ask("v1", promote.None))
	require.NoError(t, ask("v2", digest(1)))
	err := ask("v3", digest(1))
	var conflict *promote.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.ErrorIs(t, err, promote.ErrConflict)
	require.False(t, conflict.InProgress)
	require.Equal(t, "alice", conflict.Actor)
	require.Equal(t, "v2", conflict.Version)
	require.Equal(t, digest(2), conflict.Digest)
	require.ErrorContains(t, err, "current is v2 (sha256:020202020202), deployed by alice at "+
		"2026-01-02T")
	require.Error(t, ask("v3", promote.None))
	require.ErrorIs(t, ask("v3", ""), promote.ErrInvalid)
	require.NoError(t, ask("v3", promote.Any))
	requireAgrees(t, t.Context(), p, w)
}

// Two people at once: the deployer holds the first one, so that the second one surely comes in
// between.
func TestTheSecondOfTwoIsToldWhoAndWhat(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	inside, leave := make(chan bool), make(chan bool)
	w.setFault(func(context.Context, promote.Deployment) error {
		close(inside)
		<-leave
		return nil
	})
	first := make(chan error)
	go func() {
		_, err := p.Promote(t.Context(), request("test", "v1"))
		first <- err
	}()
	<-inside
	r := request("test", "v2")
	r.Actor = "bob"
	_, err := p.Promote(t.Context(), r)
	var conflict *promote.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.True(t, conflict.InProgress)
	require.Equal(t, []any{"alice", "v1", digest(1), promote.OpPromote},
		[]any{conflict.Actor, conflict.Version, conflict.Digest, conflict.Op})
	require.False(t, conflict.Since.IsZero())
	require.ErrorContains(t, err, "web in test: alice is deploying v1 (sha256:010101010101) "+
		"since 2026-01-02T")
	require.ErrorIs(t, p.Retire(t.Context(), promote.RetireRequest{Expect: promote.Any,
		Target: in("test"),
		Actor:  "bob"}), promote.ErrConflict)

	open, err := p.Open(t.Context())
	require.NoError(t, err)
	require.Len(t, open, 1)
	ended, err := p.Recover(t.Context())
	require.NoError(t, err)
	require.Empty(t, ended, "the promoter is at work on it itself")
	close(leave)
	require.NoError(t, <-first)
	requireAgrees(t, t.Context(), p, w)
}

func TestAFailedDeployLeavesTheEarlierDigest(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	boom := errors.New("no such host")
	failing := func(_ context.Context, d promote.Deployment) error {
		if d.Version == "v2" {
			return boom
		}
		return nil
	}
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	w.setFault(failing)
	_, err = p.Promote(t.Context(), request("test", "v2"))
	require.ErrorIs(t, err, boom)
	var failed *promote.DeployError
	require.ErrorAs(t, err, &failed)
	require.Empty(t, failed.Doubt)
	require.Equal(t, digest(1), w.snapshot()[in("test")])
	requireAgrees(t, t.Context(), p, w)

	history, err := p.History(t.Context(), in("test"))
	require.NoError(t, err)
	var kinds []promote.Kind
	for _, e := range history {
		kinds = append(kinds, e.Kind)
	}
	require.Equal(t, []promote.Kind{promote.Started, promote.Succeeded, promote.Started,
		promote.Restoring, promote.Failed}, kinds)
	for _, e := range history[3:] {
		require.Equal(t, "no such host", e.Error)
		require.Equal(t, digest(1), e.Previous)
		require.Equal(t, history[2].Seq, e.Change)
	}
	current, err := p.Current(t.Context())
	require.NoError(t, err)
	require.Equal(t, history[3].Seq, current[0].Generation, "it was put back under a generation "+
		"of its own")

	_, err = p.Promote(t.Context(), request("sandbox", "v2"))
	require.ErrorContains(t, err, "never been live in test", "a failed deploy does not open the "+
		"next environment")
}

func TestWhatCannotBePutBackIsInDoubtUntilTheNextSuccess(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	w.setFault(func(context.Context, promote.Deployment) error {
		return errors.New("host is down")
	})
	_, err = p.Promote(t.Context(), request("test", "v2"))
	require.ErrorContains(t, err, "what runs now is uncertain: put back v1 "+
		"(sha256:010101010101): host is down")
	current, err := p.Current(t.Context())
	require.NoError(t, err)
	require.Equal(t, digest(1), current[0].Digest)
	require.Contains(t, current[0].Doubt, "host is down")

	w.setFault(nil)
	_, err = p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	current, err = p.Current(t.Context())
	require.NoError(t, err)
	require.Empty(t, current[0].Doubt)
}

func TestRollback(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	back := func(n int) (promote.Deployment, error) {
		return p.Rollback(t.Context(), promote.RollbackRequest{Expect: promote.Any,
			Target: in("sandbox"),
			Digest: digest(n), Actor: "bob", Reason: "5xx"})
	}
	for _, version := range []string{"v1", "v2"} {
		for _, environment := range []string{"test", "sandbox"} {
			_, err := p.Promote(t.Context(), request(environment, version))
			require.NoError(t, err)
		}
	}
	_, err := p.Promote(t.Context(), request("test", "v3"))
	require.NoError(t, err)

	_, err = back(3)
	var refused *promote.RefusedError
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "sha256:030303030303 was never live in sandbox: promote it, or "+
		"roll back to one of: v2 (sha256:020202020202), v1 (sha256:010101010101)")

	d, err := back(1)
	require.NoError(t, err)
	require.Equal(t, "v1", d.Version)
	requireAgrees(t, t.Context(), p, w)
	_, err = back(2)
	require.ErrorContains(t, err, "hold gate: sha256:020202020202 is kept back by bob")
	require.ErrorContains(t, err, "rolled back in sandbox: 5xx: release it first")
	require.NoError(t, p.Release(t.Context(), promote.QuarantineRequest{Cluster: "web",
		Digest: digest(2), Actor: "bob", Reason: "it was the database"}))
	d, err = back(2)
	require.NoError(t, err)
	require.Equal(t, "v2", d.Version)

	history, err := p.History(t.Context(), in("sandbox"))
	require.NoError(t, err)
	last := history[len(history)-1]
	require.Equal(t, []any{promote.OpRollback, promote.Succeeded, "bob", "5xx", digest(1)},
		[]any{last.Op, last.Kind, last.Actor, last.Reason, last.Previous})
}

func TestRetire(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	target := promote.Target{Cluster: "web", Environment: "test", Task: "t1"}
	retire := func(expect promote.Digest) error {
		return p.Retire(t.Context(), promote.RetireRequest{Target: target, Expect: expect,
			Actor: "alice", Reason: "tested"})
	}
	require.NoError(t, retire(promote.Any), "nothing there")
	_, err := p.Promote(t.Context(), promote.Request{Expect: promote.Any, Target: target,
		Version: "v1", Actor: "alice"})
	require.NoError(t, err)
	require.ErrorIs(t, retire(digest(2)), promote.ErrConflict)
	w.setFault(func(_ context.Context, d promote.Deployment) error {
		return errors.New("host is down")
	})
	require.ErrorContains(t, retire(digest(1)), "host is down")
	w.setFault(nil)
	require.NoError(t, retire(digest(1)))
	require.NoError(t, retire(digest(1)), "again: it is retired already")
	require.Empty(t, w.snapshot())
	requireAgrees(t, t.Context(), p, w)
	_, err = p.Promote(t.Context(), request("sandbox", "v1"))
	require.NoError(t, err, "it has been live in test")
}

// A first deployment that failed, and whose remains could not be removed, is removed by Retire.
func TestRetireOfRemains(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	w.setFault(func(context.Context, promote.Deployment) error {
		return errors.New("host is down")
	})
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.ErrorContains(t, err, "uncertain")
	w.setFault(nil)
	before := w.calls
	require.NoError(t, p.Retire(t.Context(), promote.RetireRequest{Expect: promote.Any,
		Target: in("test"),
		Actor:  "alice"}))
	require.Equal(t, before+1, w.calls)
}

func TestWatchFollowsTheJournal(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	var after uint64
	seen := make(chan promote.Entry)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(seen)
		for {
			entries, err := p.Watch(ctx, after)
			if err != nil {
				return
			}
			for _, e := range entries {
				after = e.Seq
				seen <- e
			}
		}
	}()
	for n := 1; n <= 3; n++ {
		require.Equal(t, fmt.Sprint("v", n), (<-seen).Version)
	}
	_, err := p.Promote(t.Context(), request("test", "v2"))
	require.NoError(t, err)
	require.Equal(t, promote.Started, (<-seen).Kind)
	require.Equal(t, promote.Succeeded, (<-seen).Kind)
	cancel()
	_, more := <-seen
	require.False(t, more)
}

func TestCancelledContextChangesNothing(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, promoteErr := p.Promote(ctx, request("test", "v1"))
	_, rollbackErr := p.Rollback(ctx, promote.RollbackRequest{Expect: promote.Any,
		Target: in("test"), Digest: digest(1),
		Actor: "a"})
	_, recoverErr := p.Recover(ctx)
	_, currentErr := p.Current(ctx)
	_, watchErr := p.Watch(ctx, 100)
	for _, err := range []error{promoteErr, rollbackErr, recoverErr, currentErr, watchErr,
		p.Check(ctx, request("test", "v1")), p.Bind(ctx, binding("v9", digest(9)))} {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Empty(t, w.snapshot())
}

// A journal that was replaced by an older copy must not be tried without end.
func TestJournalThatWentBackInTime(t *testing.T) {
	t.Parallel()
	j := &swapped{Journal: promote.NewMemJournal()}
	p := newPromoter(t, promote.Config{Journal: j, Deployer: newWorld()})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	j.Journal = promote.NewMemJournal()
	err := p.Bind(t.Context(), binding("v2", digest(2)))
	require.ErrorIs(t, err, promote.ErrSetBack)
	require.ErrorContains(t, err, "was it replaced by an older copy?")
}

type swapped struct{ promote.Journal }

// Every promoter races for every target. Exactly the changes that the journal calls succeeded were
// won, none overlap, and the world is as the journal says.
func raceForTargets(t *testing.T, j promote.Journal, promoters, rounds int) {
	w := newWorld()
	newOne := func() *promote.Promoter {
		return newPromoter(t, promote.Config{Journal: j, Deployer: w, Now: time.Now})
	}
	for n := 1; n <= 3; n++ {
		require.NoError(t, newOne().Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	var won, lost sync.Map
	var wg sync.WaitGroup
	for i := range promoters {
		p := newOne()
		wg.Go(func() {
			for round := range rounds {
				id := fmt.Sprintf("%d/%d", i, round)
				r := request("test", fmt.Sprint("v", 1+(i+round)%3))
				r.Task, r.Actor = fmt.Sprint("t", round%2), id
				_, err := p.Promote(t.Context(), r)
				var conflict *promote.ConflictError
				switch {
				case err == nil:
					won.Store(id, true)
				case errors.As(err, &conflict) && conflict.Actor != "" && conflict.Actor != id:
					lost.Store(id, true)
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	p := newOne()
	history, err := p.History(t.Context(), promote.Target{Cluster: "web", Environment: "test"})
	require.NoError(t, err)
	open := map[promote.Target]string{}
	for _, e := range history {
		switch e.Kind {
		case promote.Started:
			require.Empty(t, open[e.Target])
			open[e.Target] = e.Actor
		case promote.Succeeded:
			require.Equal(t, open[e.Target], e.Actor)
			delete(open, e.Target)
			_, ok := won.LoadAndDelete(e.Actor)
			require.True(t, ok, "%s succeeded and was not told", e.Actor)
		}
	}
	won.Range(func(id, _ any) bool { t.Errorf("%s was told that it won", id); return true })
	require.Empty(t, open)
	requireAgrees(t, t.Context(), p, w)
}

func TestManyPromotersOnOneMemoryJournal(t *testing.T) {
	t.Parallel()
	raceForTargets(t, promote.NewMemJournal(), 16, 30)
}
