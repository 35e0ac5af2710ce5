package promote_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/promote"
)

func TestKey(t *testing.T) {
	t.Parallel()
	p, w := setup(t)
	r := request("test", "v1")
	r.Key, r.Expect = "release-7", promote.None
	h := newHold(w)
	ids := make([]promote.ChangeID, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			var err error
			ids[i], err = p.Start(t.Context(), r)
			require.NoError(t, err)
		})
	}
	wg.Wait()
	close(h.release)
	for _, id := range ids {
		require.Equal(t, promote.ChangeID("web-4"), id)
	}
	ends(t, p, "web-4")
	_, err := p.Promote(t.Context(), request("test", "v2"))
	require.NoError(t, err)
	calls := w.calls

	// The request for v1 arrives once more: it neither starts nor downgrades anything.
	d, err := p.Promote(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, digest(1), d.Digest)
	require.Equal(t, calls, w.calls)
	require.Equal(t, digest(2), w.snapshot()[in("test")])
	r.Key = ""
	_, err = p.Promote(t.Context(), r)
	require.ErrorIs(t, err, promote.ErrConflict, "and without a key Expect does not hold")

	other := request("test", "v3")
	other.Key = "release-7"
	_, err = p.Start(t.Context(), other)
	require.ErrorIs(t, err, promote.ErrConflict)
	require.ErrorContains(t, err, "change web-4")
	err = p.Retire(t.Context(), promote.RetireRequest{Target: in("test"), Expect: promote.Any,
		Actor: "a", Key: "release-7"})
	require.ErrorIs(t, err, promote.ErrConflict)
	_, err = p.Rollback(t.Context(), promote.RollbackRequest{Target: in("test"), Actor: "a",
		Expect: promote.Any, Digest: digest(1), Key: string(make([]byte, 200))})
	require.ErrorIs(t, err, promote.ErrInvalid)
}

// A key that comes again with anything else than the request that it was used for is an error, also
// after a restart; a condition of the start is no part of what is asked for.
func TestKeyUsedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld()
	config := promote.Config{Journal: promote.NewMemJournal(), Deployer: w,
		Breakers: []string{"alice"}}
	p := newPromoter(t, config)
	for n := 1; n <= 2; n++ {
		require.NoError(t, p.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	promotion := request("test", "v1")
	promotion.Key, promotion.Reason = "go", "release 7"
	promotion.Facts = map[string]string{"ticket": "T-1", "commit": "c0ffee"}
	first, err := p.Start(t.Context(), promotion)
	require.NoError(t, err)
	ends(t, p, first)
	_, err = p.Promote(t.Context(), request("test", "v2"))
	require.NoError(t, err)
	rollback := promote.RollbackRequest{Target: in("test"), Digest: digest(1), Key: "back",
		Expect: promote.Any, Actor: "alice", Reason: "5xx"}
	back, err := p.StartRollback(t.Context(), rollback)
	require.NoError(t, err)
	ends(t, p, back)
	retirement := promote.RetireRequest{Target: in("test"), Key: "end", Expect: promote.Any,
		Actor: "alice", Reason: "sold"}
	end, err := p.StartRetire(t.Context(), retirement)
	require.NoError(t, err)
	ends(t, p, end)
	calls, before := w.calls, len(kinds(t, p, promote.Target{}))

	type asked struct {
		promotion  promote.Request
		rollback   promote.RollbackRequest
		retirement promote.RetireRequest
	}
	for name, c := range map[string]struct {
		change func(*asked)
		want   string // empty where it is the same request
	}{
		"same": {change: func(*asked) {}},
		"actor written differently": {change: func(a *asked) {
			a.promotion.Actor, a.rollback.Actor, a.retirement.Actor = "Alice ", "ALICE", " alice"
		}},
		"other conditions": {change: func(a *asked) {
			a.promotion.Expect, a.promotion.Override = digest(2), "urgent"
			a.rollback.Expect, a.retirement.Expect = promote.None, digest(1)
		}},
		"other reason": {change: func(a *asked) {
			a.promotion.Reason, a.rollback.Reason, a.retirement.Reason = "release 8", "4xx", "moved"
		}, want: "has the reason"},
		"no reason": {change: func(a *asked) {
			a.promotion.Reason, a.rollback.Reason, a.retirement.Reason = "", "", ""
		}, want: "has the reason"},
		"other actor": {change: func(a *asked) {
			a.promotion.Actor, a.rollback.Actor, a.retirement.Actor = "bob", "bob", "bob"
		}, want: "is one by alice"},
		"other environment": {change: func(a *asked) {
			a.promotion.Target, a.rollback.Target, a.retirement.Target = in("sandbox"),
				in("sandbox"), in("sandbox")
		}, want: "web in test of v1"},
		"key of another operation": {change: func(a *asked) {
			a.promotion.Key, a.rollback.Key, a.retirement.Key = "end", "go", "back"
		}, want: "web in test of v1"},
	} {
		for again, p := range map[string]*promote.Promoter{"": p,
			" after a restart": newPromoter(t, config)} {
			a := asked{promotion, rollback, retirement}
			c.change(&a)
			for op, ask := range map[promote.ChangeID]func() (promote.ChangeID, error){
				first: func() (promote.ChangeID, error) { return p.Start(t.Context(), a.promotion) },
				back: func() (promote.ChangeID, error) {
					return p.StartRollback(t.Context(), a.rollback)
				},
				end: func() (promote.ChangeID, error) {
					return p.StartRetire(t.Context(), a.retirement)
				},
			} {
				where := name + again + " " + string(op)
				id, err := ask()
				if c.want == "" {
					require.NoError(t, err, where)
					require.Equal(t, op, id, where)
					continue
				}
				require.ErrorIs(t, err, promote.ErrConflict, where)
				require.ErrorContains(t, err, c.want, where)
				require.ErrorContains(t, err, "or take another key", where)
				require.Empty(t, id, where)
			}
		}
	}
	for _, facts := range []map[string]string{nil, {"ticket": "T-1"},
		{"ticket": "T-1", "commit": "c0ffef"},
		{"ticket": "T-1", "commit": "c0ffee", "risk": "low"}} {
		r := promotion
		r.Facts = facts
		_, err := p.Start(t.Context(), r)
		require.ErrorIs(t, err, promote.ErrConflict, "%v", facts)
		require.ErrorContains(t, err, "has other facts")
	}
	require.Equal(t, calls, w.calls)
	require.Len(t, kinds(t, p, promote.Target{}), before, "nothing was written")

	// A request that a gate or a conflict refused has used no key.
	r := request("test", "v9")
	r.Key = "later"
	_, err = p.Start(t.Context(), r)
	require.ErrorIs(t, err, promote.ErrUnbound)
	r.Version = "v1"
	_, err = p.Promote(t.Context(), r)
	require.NoError(t, err)
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	keep := promote.QuarantineRequest{Cluster: "web", Digest: digest(1), Actor: "sec",
		Reason: "CVE-1"}
	for _, bad := range []func(*promote.QuarantineRequest){
		func(r *promote.QuarantineRequest) { r.Cluster = "a/b" },
		func(r *promote.QuarantineRequest) { r.Digest = promote.None },
		func(r *promote.QuarantineRequest) { r.Actor = "" },
		func(r *promote.QuarantineRequest) { r.Reason = " " },
	} {
		r := keep
		bad(&r)
		require.ErrorIs(t, p.Quarantine(t.Context(), r), promote.ErrInvalid)
		require.ErrorIs(t, p.Release(t.Context(), r), promote.ErrInvalid)
	}
	for _, version := range []string{"v1", "v2"} {
		_, err := p.Promote(t.Context(), request("test", version))
		require.NoError(t, err)
	}
	for _, cluster := range []string{"web", ""} {
		keep.Cluster = cluster
		require.NoError(t, p.Quarantine(t.Context(), keep))
		_, promoteErr := p.Promote(t.Context(), request("test", "v1"))
		_, rollbackErr := p.Rollback(t.Context(), promote.RollbackRequest{Target: in("test"),
			Expect: promote.Any, Digest: digest(1), Actor: "a"})
		for _, err := range []error{promoteErr, rollbackErr} {
			require.ErrorContains(t, err,
				"quarantine gate: sha256:010101010101 is kept back by sec")
			require.ErrorContains(t, err, "CVE-1: release it first")
		}
		require.NoError(t, p.Release(t.Context(), keep))
		require.NoError(t, p.Release(t.Context(), keep), "once more")
	}
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	require.NoError(t, p.Quarantine(t.Context(), promote.QuarantineRequest{Digest: digest(1),
		Actor: "sec", Reason: "CVE-2"}))
	require.NoError(t, p.Retire(t.Context(), promote.RetireRequest{Target: in("test"),
		Expect: promote.Any, Actor: "a"}), "it can be taken away")
}

func TestFreezeHoldsRetire(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld(),
		Now: func() time.Time { return now }, Gates: []promote.Gate{promote.OrderGate{},
			promote.FreezeGate{Freezes: []promote.Freeze{{Reason: "sale", From: now.Add(time.Hour),
				Until: now.Add(2 * time.Hour)}}}}})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	retire := func() error {
		return p.Retire(t.Context(), promote.RetireRequest{Target: in("test"), Actor: "intern",
			Expect: digest(1)})
	}
	now = now.Add(time.Hour)
	require.ErrorContains(t, retire(), "sale")
	now = now.Add(time.Hour)
	require.NoError(t, retire())
}

// A target that the pipeline no longer has can still be retired.
func TestRetireOutsideThePipeline(t *testing.T) {
	t.Parallel()
	journal, w := promote.NewMemJournal(), newWorld()
	p := newPromoter(t, promote.Config{Journal: journal, Deployer: w})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	task := in("test")
	task.Task = "t1"
	for _, target := range []promote.Target{task, in("sandbox")} {
		_, err := p.Promote(t.Context(), promote.Request{Target: target, Version: "v1",
			Expect: promote.None, Actor: "a"})
		require.NoError(t, err)
	}
	shorter := newPromoter(t, promote.Config{Journal: journal, Deployer: w,
		Pipeline: promote.Pipeline{"production", "test"}})
	for _, target := range []promote.Target{task, in("sandbox")} {
		require.NoError(t, shorter.Retire(t.Context(), promote.RetireRequest{Target: target,
			Expect: digest(1), Actor: "a"}))
	}
	require.Empty(t, w.snapshot())
	require.ErrorIs(t, shorter.Retire(t.Context(), promote.RetireRequest{Target: in("stable"),
		Expect: promote.Any, Actor: "a"}), promote.ErrInvalid)
}

// The holes that a rollback and a name written differently were.
func TestRulesHold(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	rule := promote.ApprovalRule{Count: 2, NotBuilder: true, NotDeployer: true}
	open := func(rule promote.ApprovalRule) (*promote.Promoter, *promote.MemJournal) {
		journal := promote.NewMemJournal()
		return newPromoter(t, promote.Config{Journal: journal, Deployer: newWorld(),
			Gates: []promote.Gate{promote.ApprovalGate{
				Rules: map[string]promote.ApprovalRule{"production": rule}}},
			Breakers: []string{"chief"}, Now: func() time.Time { return now }}), journal
	}
	p, journal := open(rule)
	for n, by := range []string{"mallory", "ci", "ci", "ci"} {
		b := binding(fmt.Sprint("v", n+1), digest(n+1))
		b.Actor = by
		require.NoError(t, p.Bind(t.Context(), b))
	}
	again := binding("v1-again", digest(1))
	require.NoError(t, p.Bind(t.Context(), again))
	review := func(p *promote.Promoter, version string, approve bool, actors ...string) {
		for _, actor := range actors {
			require.NoError(t, p.Review(t.Context(), promote.Review{Target: in("production"),
				Version: version, Approve: approve, Actor: actor}))
		}
	}
	ask := func(version, actor string) error {
		r := request("production", version)
		r.Actor = actor
		_, err := p.Promote(t.Context(), r)
		return err
	}
	back := func(n int) error {
		_, err := p.Rollback(t.Context(), promote.RollbackRequest{Target: in("production"),
			Digest: digest(n), Expect: promote.Any, Actor: "intern", Reason: "5xx"})
		return err
	}

	review(p, "v2", true, "bob", "Bob", " BOB ", "bo\u200bb")
	require.ErrorContains(t, ask("v2", "alice"), "has 1", "one person by three names")
	require.ErrorContains(t, ask("v2", "BOB"), "asks for it")
	review(p, "v1-again", true, "Mallory", "bob")
	require.ErrorContains(t, ask("v1-again", "alice"), "Mallory built it", "whatever the version")
	review(p, "v1-again", true, "carol")
	require.ErrorContains(t, ask("v1", "mallory"), "mallory built v1")
	require.NoError(t, ask("v1", "alice"))
	require.NoError(t, ask("v1", "alice"), "a deployment of the current digest is no news")

	review(p, "v2", true, "carol")
	now = now.Add(25 * time.Hour)
	require.ErrorContains(t, ask("v2", "alice"), "'s is older than 24h0m0s")
	for _, version := range []string{"v2", "v3", "v4"} {
		review(p, version, true, "bob", "carol")
		require.NoError(t, ask(version, "alice"))
	}
	require.ErrorContains(t, back(1), "needs 2 approvals", "three back is judged as a promotion")
	review(p, "v3", false, "bob")
	require.ErrorContains(t, back(3), "bob rejected v3")
	review(p, "v3", true, "bob")
	require.NoError(t, back(3), "the one before")
	require.ErrorContains(t, back(4), "kept back by intern", "a rollback does not go forward")
	require.ErrorContains(t, ask("v4", "alice"), "hold gate")

	// Approvals are of the rules in force.
	review(p, "v2", true, "bob", "carol")
	rule.Approvers = []string{"bob", "carol", "dave"}
	changed := newPromoter(t, promote.Config{Journal: journal, Deployer: newWorld(),
		Gates: []promote.Gate{promote.ApprovalGate{
			Rules: map[string]promote.ApprovalRule{"production": rule}}},
		Breakers: []string{"chief"}, Now: func() time.Time { return now }})
	p = changed
	require.ErrorContains(t, ask("v2", "alice"), "bob's was given under other rules")
	e, err := p.Explain(t.Context(), promote.Request{Target: in("production"), Version: "v2",
		Expect: promote.None, Actor: "alice"})
	require.NoError(t, err)
	require.False(t, e.Passes())
	require.NotNil(t, e.Conflict, "a conflict hides no gate")
	require.Equal(t, []any{"approval", 2, 0, []string{"bob", "carol", "dave"}},
		[]any{e.Gates[0].Gate, e.Gates[0].Need, e.Gates[0].Have, e.Gates[0].Who})

	// Break-glass: by an actor with that right, with a reason that stays in the journal.
	r := request("production", "v2")
	r.Override = "the shop is down"
	_, err = p.Promote(t.Context(), r)
	require.ErrorContains(t, err, "alice may not override gates")
	r.Actor = "Chief"
	require.NoError(t, p.Quarantine(t.Context(), promote.QuarantineRequest{Digest: digest(2),
		Actor: "sec", Reason: "CVE-1"}))
	_, err = p.Promote(t.Context(), r)
	require.ErrorContains(t, err, "quarantine gate")
	require.NoError(t, p.Release(t.Context(), promote.QuarantineRequest{Digest: digest(2),
		Actor: "sec", Reason: "not affected"}))
	id, err := p.Start(t.Context(), r)
	require.NoError(t, err)
	ends(t, p, id)
	history, err := p.History(t.Context(), in("production"))
	require.NoError(t, err)
	note := history[len(history)-2].Note
	require.Contains(t, note,
		"override: the shop is down; not met: approval gate: production needs")
}

func TestExplainSaysWhenItOpens(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld(),
		Now: func() time.Time { return now }, Gates: []promote.Gate{
			promote.SoakGate{Times: map[string]time.Duration{"sandbox": time.Hour}},
			promote.FreezeGate{Freezes: []promote.Freeze{{Reason: "sale", From: now,
				Until: now.Add(3 * time.Hour), Environments: []string{"sandbox"}}}}}})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	explain := func() promote.Explanation {
		e, err := p.Explain(t.Context(), request("sandbox", "v1"))
		require.NoError(t, err)
		return e
	}
	e := explain()
	require.Len(t, e.Gates, 2)
	require.Zero(t, e.Opens, "nobody knows when it is deployed to test")
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	require.Equal(t, now.Add(3*time.Hour), explain().Opens)
	now = now.Add(3 * time.Hour)
	require.True(t, explain().Passes())
	_, err = p.Explain(t.Context(), request("sandbox", "v9"))
	require.ErrorIs(t, err, promote.ErrUnbound)
}

// A clock that is behind the journal neither opens a gate too early nor writes times that go back.
func TestClockBehindTheJournal(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	journal := promote.NewMemJournal()
	at := func(behind time.Duration) *promote.Promoter {
		return newPromoter(t, promote.Config{Journal: journal, Deployer: newWorld(),
			Now: func() time.Time { return now.Add(-behind) }, MaxSkew: time.Minute})
	}
	require.NoError(t, at(0).Bind(t.Context(), binding("v1", digest(1))))
	require.NoError(t, at(time.Minute).Bind(t.Context(), binding("v2", digest(2))))
	err := at(2*time.Hour).Bind(t.Context(), binding("v3", digest(3)))
	require.ErrorIs(t, err, promote.ErrClock)
	require.ErrorContains(t, err, "2h0m0s behind the newest entry")
	history, err := at(0).History(t.Context(), promote.Target{})
	require.NoError(t, err)
	require.Len(t, history, 2)
	require.Equal(t, now, history[1].Time)
}

// Explain asks about later times: a freeze that begins meanwhile and an approval that expires
// count.
func TestExplain(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	asked := promote.Change{Op: promote.OpPromote, Target: in("sandbox"), Version: "v1",
		Digest: digest(1), PreviousEnvironment: "test", Actor: "alice", Time: now,
		Runs: []promote.Run{{Target: in("test"), From: now.Add(-time.Hour)}}}
	soak := promote.SoakGate{Times: map[string]time.Duration{"sandbox": 3 * time.Hour}}
	freeze := promote.FreezeGate{Freezes: []promote.Freeze{{Reason: "sale",
		From: now.Add(time.Hour), Until: now.Add(10 * time.Hour)}}}
	approval := promote.ApprovalGate{Rules: map[string]promote.ApprovalRule{
		"sandbox": {Count: 1, Within: 5 * time.Hour}}}
	review := promote.Review{Target: in("sandbox"), Actor: "bob", Approve: true, Time: now}
	h := time.Hour
	for name, c := range map[string]struct {
		change  func(*promote.Change)
		gates   []promote.Gate
		answers map[string]error
		unmet   []string
		opens   time.Duration // after now; zero where it is not known or open
	}{
		"nothing to ask": {},
		"soaks":          {gates: []promote.Gate{soak}, unmet: []string{"soak"}, opens: 2 * h},
		"soaks into a freeze": {gates: []promote.Gate{soak, freeze}, unmet: []string{"soak"},
			opens: 10 * h},
		"approved until after the soak": {gates: []promote.Gate{soak, approval},
			change: func(c *promote.Change) { c.Reviews = []promote.Review{review} },
			unmet:  []string{"soak"}, opens: 2 * h},
		"approval expires in the freeze": {gates: []promote.Gate{soak, freeze, approval},
			change: func(c *promote.Change) { c.Reviews = []promote.Review{review} },
			unmet:  []string{"soak"}},
		"quarantine": {change: func(c *promote.Change) {
			c.Quarantine = promote.Hold{Actor: "sec", Reason: "CVE-1", Since: now}
		}, gates: []promote.Gate{soak}, unmet: []string{"quarantine", "soak"}},
		"hold": {change: func(c *promote.Change) {
			c.Hold = promote.Hold{Actor: "ops", Reason: "5xx", Since: now}
		}, unmet: []string{"hold"}},
		"a gate with I/O said until when": {gates: []promote.Gate{says("window", nil), soak},
			answers: map[string]error{"window": &promote.Refusal{Reasons: []string{"closed"},
				Until: now.Add(4 * h)}}, unmet: []string{"window", "soak"}, opens: 4 * h},
		"a gate with I/O could not decide": {gates: []promote.Gate{says("registry", nil), soak},
			answers: map[string]error{"registry": fmt.Errorf("away")},
			unmet:   []string{"registry", "soak"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := asked
			if c.change != nil {
				c.change(&change)
			}
			var answers []promote.Answer
			for _, gate := range c.gates {
				answers = append(answers, promote.Answer{Gate: gate, Err: c.answers[gate.Name()]})
			}
			e := promote.Explain(change, nil, answers)
			var unmet []string
			for _, g := range e.Gates {
				unmet = append(unmet, g.Gate)
				require.NotEmpty(t, g.Reasons)
			}
			require.Equal(t, c.unmet, unmet)
			require.Equal(t, change, e.Change)
			require.Equal(t, len(c.unmet) == 0, e.Passes())
			var opens time.Time
			if c.opens > 0 {
				opens = now.Add(c.opens)
			}
			require.Equal(t, opens, e.Opens)
		})
	}
	conflict := &promote.ConflictError{Target: in("sandbox"), InProgress: true}
	e := promote.Explain(asked, conflict, nil)
	require.False(t, e.Passes())
	require.Same(t, conflict, e.Conflict)
}

// Gates read the facts that the request brings.
func TestFacts(t *testing.T) {
	t.Parallel()
	ticket := gateFunc(func(_ context.Context, c promote.Change) error {
		if c.Environment == "sandbox" && c.Facts["ticket"] == "" {
			return &promote.Refusal{Reasons: []string{"no ticket"}}
		}
		return nil
	})
	p, _ := setup(t, ticket)
	r := request("sandbox", "v1")
	_, err := p.Promote(t.Context(), r)
	require.ErrorContains(t, err, "no ticket")
	r.Facts = map[string]string{"ticket": "T-1"}
	e, err := p.Explain(t.Context(), r)
	require.NoError(t, err)
	require.True(t, e.Passes())
	_, err = p.Promote(t.Context(), r)
	require.NoError(t, err)
	r.Facts["ticket"] = "T-2" // the caller's map stays the caller's
	history, err := p.History(t.Context(), in("sandbox"))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"ticket": "T-1"}, history[0].Facts)
	many := map[string]string{}
	for n := range 33 {
		many[fmt.Sprint(n)] = ""
	}
	for _, bad := range []map[string]string{{"": "x"}, {"\xff": "x"}, {"a": "\xff"},
		{"a": string(make([]byte, 1025))}, {string(make([]byte, 65)): ""}, many} {
		r.Facts = bad
		_, err := p.Start(t.Context(), r)
		require.ErrorIs(t, err, promote.ErrInvalid)
		require.ErrorContains(t, err, "facts")
	}
}

// No order of requests by one identity, however it writes its name, brings a digest to an
// environment that needs the approval of another one.
func TestOneIdentityAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: w,
			Breakers: []string{"chief"}, Adopters: []string{"zoë"},
			Gates: []promote.Gate{promote.OrderGate{}, promote.ApprovalGate{
				Rules: map[string]promote.ApprovalRule{"production": {Count: 1},
					"stable": {Count: 1}}}}})
		ctx := context.Background()
		for n := 1; n <= 3; n++ {
			require.NoError(rt, p.Bind(ctx, binding(fmt.Sprint("v", n), digest(n))))
		}
		for range rapid.IntRange(1, 40).Draw(rt, "length") {
			me := rapid.SampledFrom([]string{"zoë", "Zoë", " zoe\u0308", "ZOE\u0308 ", "zo\u200bë",
				"\u2003zoë"}).Draw(rt, "name")
			target := in(rapid.SampledFrom(promote.DefaultPipeline()).Draw(rt, "environment"))
			n := rapid.IntRange(1, 3).Draw(rt, "n")
			version := fmt.Sprint("v", n)
			override := rapid.SampledFrom([]string{"", "urgent"}).Draw(rt, "override")
			switch rapid.IntRange(0, 6).Draw(rt, "command") {
			case 0, 1:
				_, _ = p.Promote(ctx, promote.Request{Target: target, Version: version, Actor: me,
					Expect: promote.Any, Override: override})
			case 2:
				_, _ = p.Rollback(ctx, promote.RollbackRequest{Target: target, Digest: digest(n),
					Expect: promote.Any, Actor: me})
			case 3:
				_ = p.Retire(ctx, promote.RetireRequest{Target: target, Expect: promote.Any,
					Actor: me})
			case 4:
				_ = p.Review(ctx, promote.Review{Target: target, Version: version, Approve: true,
					Actor: me})
			case 5:
				_ = p.Release(ctx, promote.QuarantineRequest{Cluster: "web", Digest: digest(n),
					Actor: me, Reason: "mine"})
			case 6:
				_, _ = p.Adopt(ctx, promote.AdoptRequest{Target: target, Version: version,
					Expect: promote.Any, Actor: me, Reason: "it runs", Override: override})
			}
			require.NotContains(rt, w.snapshot(), in("production"))
			require.NotContains(rt, w.snapshot(), in("stable"))
			current, err := p.Current(ctx)
			require.NoError(rt, err)
			for _, d := range current { // nor as one that is said to run there
				require.NotContains(rt, []string{"production", "stable"}, d.Environment)
			}
		}
	})
}

// What a breaker has brought waits for the approvals that it did without, and gets them afterwards.
func TestOverridden(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	journal := promote.NewMemJournal()
	open := func() *promote.Promoter {
		return newPromoter(t, promote.Config{Journal: journal, Deployer: newWorld(),
			Breakers: []string{"chief"}, Adopters: []string{"chief"},
			Now: func() time.Time { return now },
			Gates: []promote.Gate{promote.ApprovalGate{
				Rules: map[string]promote.ApprovalRule{"production": {Count: 2}}}}})
	}
	p := open()
	owed := func() (list []string) {
		for _, p := range []*promote.Promoter{p, open()} {
			all, err := p.Overridden(t.Context())
			require.NoError(t, err)
			list = nil
			for _, o := range all {
				require.Len(t, o.Missing, 1)
				require.Contains(t, o.Note, "override: payments are down; not met: approval gate")
				list = append(list, fmt.Sprintf("%s %s by %s: %d of %d", o.Change, o.Version,
					o.Breaker, o.Missing[0].Have, o.Missing[0].Need))
			}
		}
		return list
	}
	for n := 1; n <= 3; n++ {
		require.NoError(t, p.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	breaks := func(version string) {
		r := request("production", version)
		r.Actor, r.Override = "chief", "payments are down"
		_, err := p.Promote(t.Context(), r)
		require.NoError(t, err)
	}
	review := func(actor string) {
		require.NoError(t, p.Review(t.Context(), promote.Review{Target: in("production"),
			Version: "v1", Approve: true, Actor: actor}))
	}
	require.Empty(t, owed())
	breaks("v1")
	require.Equal(t, []string{"web-4 v1 by chief: 0 of 2"}, owed())
	again := request("production", "v1")
	_, err := p.Promote(t.Context(), again)
	require.NoError(t, err)
	require.Len(t, owed(), 1, "a restart by deployment gives no approval")
	review("chief")
	review("bob")
	require.Equal(t, []string{"web-4 v1 by chief: 1 of 2"}, owed(), "the breaker's is none")
	review("eve")
	require.Empty(t, owed())
	now = now.Add(48 * time.Hour)
	require.Empty(t, owed(), "they were given in time")
	_, err = p.Promote(t.Context(), again)
	require.NoError(t, err)
	require.Empty(t, owed(), "they are not used up by a deployment of the same digest")

	breaks("v2")
	require.Len(t, owed(), 1)
	_, err = p.Rollback(t.Context(), promote.RollbackRequest{Target: in("production"),
		Digest: digest(1), Expect: promote.Any, Actor: "intern"})
	require.NoError(t, err)
	require.Empty(t, owed(), "it is not current")
	require.NoError(t, p.Retire(t.Context(), promote.RetireRequest{Target: in("production"),
		Expect: promote.Any, Actor: "intern"}))
	_, err = p.Promote(t.Context(), again)
	require.ErrorContains(t, err, "needs 2 approvals of v1 (sha256:010101010101) and has 0")
	_, err = p.Adopt(t.Context(), promote.AdoptRequest{Target: in("production"), Version: "v3",
		Expect: promote.Any, Actor: "chief", Reason: "seen", Override: "payments are down"})
	require.NoError(t, err)
	require.Equal(t, []string{" v3 by chief: 0 of 2"}, owed())
}
