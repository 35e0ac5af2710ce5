package builds_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/source"
)

// branch is a fetcher whose source has other content each time it is asked, unless the request is
// pinned: a branch that moves.
type branch struct {
	mu    sync.Mutex
	moves int
	// lies makes it give the newest content to a pinned request, too.
	lies bool
}

func (b *branch) Fetch(_ context.Context, r source.Request) (source.Identity, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moves++
	commit := r.Pinned.ID
	if commit == "" || b.lies {
		commit = strings.Repeat(string(rune('a'+b.moves-1)), 40)
	}
	if r.Secrets["token"] != "t0ken" {
		return source.Identity{}, source.Fail(r, builder.ReasonSourceDenied,
			errors.New("no token"), "give one")
	}
	return source.Identity{Kind: source.KindGit, ID: commit, Files: 1, Bytes: 1},
		os.WriteFile(filepath.Join(r.Dir, "commit"), []byte(commit), 0o644)
}

// fetches lets builds fetch with f, and returns the directory of their spool.
func fetches(t *testing.T, f source.Fetcher) (func(*builds.Config), string) {
	t.Helper()
	dir := t.TempDir()
	spool, err := source.Open(t.Context(), source.Config{Dir: dir, Fetcher: f})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, spool.Close()) })
	return func(c *builds.Config) {
		c.Context = builds.FetchFrom(spool)
		c.Secrets = func(context.Context, string) (string, error) { return "t0ken", nil }
	}, dir
}

func fromBranch(id string) builds.Order {
	o := order(id)
	o.Source.Git = &source.Git{URL: "https://example.com/a.git", Ref: "main", Secret: "token"}
	o.Attempts = 3
	return o
}

// TestRetryGetsTheSameSource: the branch moves between the attempts, whether one fails or its
// process dies, and each of them builds the first commit.
func TestRetryGetsTheSameSource(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	first := strings.Repeat("a", 40)
	var built []string
	tries := engine(func(_ context.Context, r builder.Request) (builder.Result, error) {
		commit, err := fs.ReadFile(r.Context, "commit")
		built = append(built, string(commit))
		if err == nil && len(built) < 3 {
			err = errors.New("the registry is away")
		}
		return builder.Result{Digest: "sha256:1"}, err
	})
	git, dir := fetches(t, &branch{})
	b := open(t, m, "one", tries, git)
	_, err := b.Submit(t.Context(), fromBranch("a"))
	require.NoError(t, err)
	run(t, b)
	got := wait(t, b, "a")
	require.Equal(t, builds.StateSucceeded, got.State, "%+v", got.Failure)
	require.Equal(t, []string{first, first, first}, built)
	require.Equal(t, &source.Identity{Kind: source.KindGit, ID: first, Files: 1, Bytes: 1},
		got.Identity)
	text, _ := logOf(t, b, "a")
	require.Equal(t, 3, strings.Count(text, "git commit "+first+": 1 files, 1 bytes\n"), text)
	entries, err := b.Follow(t.Context(), "a", 0)
	require.NoError(t, err)
	var kinds []builds.Kind
	for _, e := range entries {
		kinds = append(kinds, e.Kind)
	}
	require.Equal(t, []builds.Kind{builds.Submitted, builds.Started, builds.Fetched,
		builds.Requeued, builds.Started, builds.Requeued, builds.Started, builds.Succeeded}, kinds)
	parts, err := filepath.Glob(filepath.Join(dir, "spool-*", "*"))
	require.NoError(t, err)
	require.Empty(t, parts, "what was fetched is gone with the attempt")
}

func TestAdoptionGetsTheSameSource(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	git, _ := fetches(t, &branch{})
	dead := open(t, m, "dead", nil, git)
	_, err := dead.Submit(t.Context(), fromBranch("a"))
	require.NoError(t, err)
	for seq, e := range []builds.Entry{{Kind: builds.Started, Owner: "dead", Attempt: 2},
		{Kind: builds.Fetched, Attempt: 2, Identity: &source.Identity{Kind: source.KindGit,
			ID: strings.Repeat("e", 40), Files: 1, Bytes: 1}}} {
		e.Seq, e.Build = uint64(seq)+2, "a"
		require.NoError(t, m.Append(t.Context(), e.Seq-1, e))
	}
	b := open(t, m, "one", engine(func(_ context.Context, r builder.Request) (builder.Result,
		error) {
		commit, err := fs.ReadFile(r.Context, "commit")
		return builder.Result{Digest: string(commit)}, err
	}), git)
	run(t, b)
	got := wait(t, b, "a")
	require.Equal(t, builds.StateSucceeded, got.State, "%+v", got.Failure)
	require.Equal(t, strings.Repeat("e", 40), got.Result.Digest)
	require.Equal(t, strings.Repeat("e", 40), got.Identity.ID)
}

// TestFetcherThatLies: a build of one id is never made of two contents.
func TestFetcherThatLies(t *testing.T) {
	t.Parallel()
	git, _ := fetches(t, &branch{lies: true})
	var calls int
	b := open(t, builds.NewMemory(), "one", engine(func(context.Context, builder.Request) (
		builder.Result, error) {
		calls++
		return builder.Result{}, errors.New("the registry is away")
	}), git)
	_, err := b.Submit(t.Context(), fromBranch("a"))
	require.NoError(t, err)
	run(t, b)
	got := wait(t, b, "a")
	require.Equal(t, builds.StateFailed, got.State)
	require.Contains(t, got.Failure.Message, "to an earlier attempt")
	require.Equal(t, 1, calls)
}

func TestSourceFailure(t *testing.T) {
	t.Parallel()
	git, _ := fetches(t, source.Set{})
	b := open(t, builds.NewMemory(), "one", succeeds, git)
	_, err := b.Submit(t.Context(), fromBranch("a"))
	require.NoError(t, err)
	run(t, b)
	got := wait(t, b, "a")
	require.Equal(t, builds.StateFailed, got.State)
	require.Equal(t, builder.ReasonRequest, got.Failure.Reason)
	require.Nil(t, got.Identity)
}
