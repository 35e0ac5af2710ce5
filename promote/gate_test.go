package promote_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
)

// carries is a ConfigSource of one answer.
type carries struct {
	config promote.Configuration
	err    error
}

func (c carries) Configuration(context.Context, string, promote.Digest) (promote.Configuration,
	error) {
	return c.config, c.err
}

func TestConfigGate(t *testing.T) {
	t.Parallel()
	files := func(files ...string) promote.Configuration {
		return promote.Configuration{Environments: map[string][]string{"production": files,
			"test": {"a"}}, Required: []string{"a", "b"}}
	}
	unread := files("b")
	unread.Unread = "layer 1 was not looked into"
	for name, c := range map[string]struct {
		source carries
		change promote.Change
		want   string // empty: it passes
	}{
		"all there": {source: carries{config: files("a", "b", "c")}},
		"one missing": {source: carries{config: files("b")}, want: "lacks configuration files " +
			"for production: missing a: add the files"},
		"both missing":   {source: carries{config: files()}, want: "missing a, b"},
		"no production":  {source: carries{config: promote.Configuration{Environments: map[string][]string{"test": {}, "sandbox": {}}}}, want: "carries no configuration for production, only for sandbox, test"},
		"nothing at all": {want: "carries no configuration for any environment"},
		"not sure":       {source: carries{config: unread}, want: "(layer 1 was not looked into)"},
		"registry down": {source: carries{err: errors.New("connection refused")},
			want: "configuration of r/web@" + string(digest(1)) + ": connection refused"},
		"rollback": {source: carries{err: errors.New("connection refused")},
			change: promote.Change{Op: promote.OpRollback, Fast: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.change.Target, c.change.Version, c.change.Digest,
				c.change.Repository = in("production"), "v1", digest(1), "r/web"
			err := promote.ConfigGate{Source: c.source}.Check(t.Context(), c.change)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestParseConfiguration(t *testing.T) {
	t.Parallel()
	c, err := promote.ParseConfiguration([]byte(
		`{"version":1,"environments":{"test":{"files":["b","a"]},"stable":{}}}`))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, c.Required, "nothing declared: the union")
	present, missing := c.Missing("stable")
	require.True(t, present)
	require.Equal(t, []string{"a", "b"}, missing)
	for _, bad := range []string{``, `null`, `[]`, `{}`, `{"version":2}`,
		`{"version":1,"required":["/etc/a"]}`,
		`{"version":1,"required":["../a"]}`,
		`{"version":1,"environments":{"test":{"files":["a//b"]}}}`,
		`{"version":1,"required":[""]}`} {
		_, err := promote.ParseConfiguration([]byte(bad))
		require.ErrorIs(t, err, promote.ErrInvalid, bad)
	}
}

func FuzzParseConfiguration(f *testing.F) {
	f.Add([]byte(
		`{"version":1,"environments":{"test":{"files":["etc/a"]}},"required":["etc/a","etc/b"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := promote.ParseConfiguration(data)
		if err != nil {
			return
		}
		for environment := range c.Environments {
			present, missing := c.Missing(environment)
			if !present || len(missing) > len(c.Required) {
				t.Errorf("%s: present %t, %d of %d missing", environment, present, len(missing),
					len(c.Required))
			}
		}
	})
}

func FuzzParseDigest(f *testing.F) {
	f.Add(string(digest(1)))
	f.Add("sha256:\xff")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := promote.ParseDigest(s); err == nil && (string(d) != s || len(s) != 71) {
			t.Errorf("%q became %q", s, d)
		}
	})
}

// gate is a Gate out of a function.
type gate struct {
	name  string
	check func(context.Context, promote.Change) error
}

func (g gate) Name() string                                      { return g.name }
func (g gate) Check(ctx context.Context, c promote.Change) error { return g.check(ctx, c) }
func says(name string, err error) gate {
	return gate{name, func(context.Context, promote.Change) error { return err }}
}
func listens(f func(promote.Change)) gate {
	return gate{"ear", func(_ context.Context, c promote.Change) error { f(c); return nil }}
}

func TestEveryGateAnswers(t *testing.T) {
	t.Parallel()
	down := errors.New("connection refused")
	p, w := setup(t, says("yes", nil), says("no", &promote.Refusal{Reasons: []string{"one", "two"},
		Missing: []string{"x"}}), says("down", down))
	_, err := p.Promote(t.Context(), request("stable", "v1"))
	var refused *promote.RefusedError
	require.ErrorAs(t, err, &refused)
	require.ErrorIs(t, err, down)
	require.EqualError(t, err, "promote web in stable v1 is refused; no gate: one, and two; down "+
		"gate: could not be decided: connection refused")
	require.Equal(t, []string{"x"}, refused.Gates[0].Missing)
	require.EqualError(t, p.Check(t.Context(), request("stable", "v1")), err.Error())
	require.Empty(t, w.snapshot())
}

func TestGatesAreToldWhatTheJournalSays(t *testing.T) {
	t.Parallel()
	var told promote.Change
	p, _ := setup(t, listens(func(c promote.Change) { told = c }))
	for _, version := range []string{"v1", "v2", "v1"} {
		_, err := p.Promote(t.Context(), request("test", version))
		require.NoError(t, err)
	}
	r := request("sandbox", "v1")
	r.Reason = "release"
	require.NoError(t, p.Check(t.Context(), r))
	require.Len(t, told.Runs, 2)
	require.Equal(t, in("test"), told.Runs[0].Target)
	require.False(t, told.Runs[0].Until.IsZero())
	require.True(t, told.Runs[1].Until.IsZero(), "still live")
	require.True(t, told.Runs[1].From.After(told.Runs[0].Until))
	require.True(t, told.Time.After(told.Runs[1].From))
	require.Equal(t, []any{promote.OpPromote, "test", "alice", "release", promote.Digest("")},
		[]any{told.Op, told.PreviousEnvironment, told.Actor, told.Reason, told.Current})
}

// The facts that a gate got are outdated when the change would start: it is asked again.
func TestGatesAreAskedAgainWhenTheFactsChange(t *testing.T) {
	t.Parallel()
	var p *promote.Promoter
	var w *world
	asked := 0
	p, w = setup(t, listens(func(c promote.Change) {
		if c.Environment != "sandbox" {
			return
		}
		if asked++; asked == 1 {
			_, err := p.Promote(t.Context(), request("test", "v1"))
			require.NoError(t, err)
		}
	}))
	_, err := p.Promote(t.Context(), request("sandbox", "v1"))
	require.NoError(t, err)
	require.Equal(t, 2, asked)
	requireAgrees(t, t.Context(), p, w)
}

// careful is a gate that says what it reads.
type careful struct {
	gate
	reads promote.Reads
}

func (g careful) Reads() promote.Reads { return g.reads }

// Many tasks with one version begin at once: a gate is asked once a task, and one that does not say
// what it reads once more for each task that came between.
func TestGatesAreAskedOnceATask(t *testing.T) {
	t.Parallel()
	const tasks = 50
	var asked, slow atomic.Int64
	counts := func(n *atomic.Int64) gate {
		return listens(func(promote.Change) {
			n.Add(1)
			runtime.Gosched()
		})
	}
	all := promote.ReadsBuilders | promote.ReadsReviews | promote.ReadsRunsBefore |
		promote.ReadsHistory
	p, _ := setup(t, careful{counts(&asked), all}, counts(&slow))
	var wg sync.WaitGroup
	for n := range tasks {
		wg.Go(func() {
			r := request("test", "v1")
			r.Task, r.Expect = fmt.Sprint("t", n), promote.None
			_, err := p.Promote(t.Context(), r)
			require.NoError(t, err)
		})
	}
	wg.Wait()
	require.EqualValues(t, tasks, asked.Load())
	require.GreaterOrEqual(t, slow.Load(), asked.Load())
}

// A quarantine that comes while the gates are asked holds, and asks no gate once more.
func TestQuarantineWhileTheGatesAreAsked(t *testing.T) {
	t.Parallel()
	var p *promote.Promoter
	asked := 0
	var w *world
	p, w = setup(t, listens(func(promote.Change) {
		asked++
		require.NoError(t, p.Quarantine(t.Context(), promote.QuarantineRequest{Digest: digest(1),
			Actor: "sec", Reason: "CVE-1"}))
	}))
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.ErrorContains(t, err, "quarantine gate")
	require.Equal(t, 1, asked)
	require.Empty(t, w.snapshot())
}

// Another writer is faster while the gates are asked.
func TestConflictWhileTheGatesAreAsked(t *testing.T) {
	t.Parallel()
	var p *promote.Promoter
	asked := 0
	p, _ = setup(t, listens(func(promote.Change) {
		if asked++; asked == 1 {
			r := request("test", "v2")
			r.Actor = "bob"
			_, err := p.Promote(t.Context(), r)
			require.NoError(t, err)
		}
	}))
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.ErrorIs(t, err, promote.ErrConflict)
	require.ErrorContains(t, err, "current is v2 (sha256:020202020202), deployed by bob")
	require.ErrorContains(t, err, "not none as expected")
}
