//go:build linux

package gitsource_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/gitsource"
	"github.com/sluice-deploy/sluice/builder/source/sourcetest"
)

func fetcher(t *testing.T, cfg gitsource.Config) *gitsource.Fetcher {
	t.Helper()
	f, err := gitsource.New(cfg)
	require.NoError(t, err)
	return f
}

func ref(url, name string) source.Source {
	return source.Source{Git: &source.Git{URL: url, Ref: name}}
}

func TestSuite(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *repositories{"https": overHTTPS,
		"git daemon": overDaemon} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
				r := start(t)
				scheme, _, _ := strings.Cut(r.url, ":")
				h := sourcetest.Harness{
					Fetcher: fetcher(t, gitsource.Config{CAFile: r.ca}),
					Serve: func(t *testing.T, files []sourcetest.File) source.Source {
						return ref(r.url+"/"+r.fresh(t, files), "main")
					},
					Change: func(t *testing.T, s source.Source, files []sourcetest.File) {
						commit(t, filepath.Join(r.dir, filepath.Base(s.Git.URL)), files)
					},
					Kept:    true,
					Missing: ref(r.url+"/none", "main"),
					Gone:    ref(scheme+"://"+sourcetest.Gone+"/r", "main"),
					Hangs:   ref(scheme+"://"+sourcetest.Hang(t)+"/r", "main"),
				}
				if scheme == "https" {
					h.Secured = func(t *testing.T, files []sourcetest.File, user,
						value string) source.Source {
						name := r.fresh(t, files)
						r.mu.Lock()
						defer r.mu.Unlock()
						r.users[name] = [2]string{user, value}
						s := ref(r.url+"/"+name, "main")
						s.Git.User, s.Git.Secret = user, "password"
						return s
					}
				}
				return h
			})
		})
	}
}

func request(t *testing.T, s source.Source) source.Request {
	t.Helper()
	return source.Request{Source: s, Dir: t.TempDir(), Scratch: t.TempDir()}
}

func read(t *testing.T, r source.Request, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Dir, name))
	require.NoError(t, err)
	return string(data)
}

// TestNames resolves branches, tags and commits to commits.
func TestNames(t *testing.T) {
	t.Parallel()
	r := overDaemon(t)
	name := r.fresh(t, []sourcetest.File{{Name: "a", Mode: 0o644, Content: "one"}})
	repo, url := filepath.Join(r.dir, name), r.url+"/"+name
	one := run(t, repo, "rev-parse", "HEAD")
	run(t, repo, "tag", "light")
	run(t, repo, "tag", "--annotate", "--message", "v1", "v1.0")
	run(t, repo, "tag", "both")
	two := commit(t, repo, []sourcetest.File{{Name: "a", Mode: 0o644, Content: "two"}})
	run(t, repo, "branch", "both")
	run(t, repo, "branch", "feature/x")
	f := fetcher(t, gitsource.Config{})
	for _, c := range []struct {
		s    source.Git
		want string
	}{
		{source.Git{Ref: "main"}, two}, {source.Git{Ref: "feature/x"}, two},
		{source.Git{Ref: "light"}, one}, {source.Git{Ref: "v1.0"}, one},
		{source.Git{Ref: "refs/tags/v1.0"}, one}, {source.Git{Ref: "refs/heads/both"}, two},
		{source.Git{Ref: "refs/tags/both"}, one}, {source.Git{Commit: one}, one},
		{source.Git{Commit: two}, two},
	} {
		c.s.URL = url
		q := request(t, source.Source{Git: &c.s})
		id, err := f.Fetch(t.Context(), q)
		require.NoError(t, err, "%+v", c.s)
		require.Equal(t, c.want, id.ID, "%+v", c.s)
		require.Equal(t, map[string]string{one: "one", two: "two"}[c.want], read(t, q, "a"))
	}
	tag := run(t, repo, "rev-parse", "refs/tags/v1.0")
	for _, c := range []struct {
		s    source.Git
		want builder.Reason
		says string
	}{
		{source.Git{Ref: "both"}, builder.ReasonSourceNotFound, "a branch and a tag"},
		{source.Git{Ref: "none"}, builder.ReasonSourceNotFound, "no such branch or tag"},
		{source.Git{Commit: strings.Repeat("ab", 20)}, builder.ReasonSourceNotFound, ""},
		{source.Git{Commit: tag}, builder.ReasonSourceRefused, "is a tag"},
	} {
		c.s.URL = url
		_, err := f.Fetch(t.Context(), request(t, source.Source{Git: &c.s}))
		require.Equal(t, c.want, builder.FailureOf(err).Reason, "%+v: %v", c.s, err)
		require.ErrorContains(t, err, c.says)
	}
}

// TestRefused: a commit with files that are kept elsewhere is refused, and no file is written.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := overDaemon(t)
	f := fetcher(t, gitsource.Config{})
	a := sourcetest.File{Name: "a", Mode: 0o644, Content: "a"}

	name := r.fresh(t, []sourcetest.File{a})
	repo := filepath.Join(r.dir, name)
	run(t, repo, "update-index", "--add", "--cacheinfo", "160000,"+
		run(t, repo, "rev-parse", "HEAD")+",lib")
	run(t, repo, "commit", "--quiet", "--message", "submodule")
	_, err := f.Fetch(t.Context(), request(t, ref(r.url+"/"+name, "main")))
	require.Equal(t, builder.ReasonSourceRefused, builder.FailureOf(err).Reason, "%v", err)
	require.ErrorContains(t, err, `"lib" is a submodule`)

	name = r.fresh(t, []sourcetest.File{a, {Name: "big.bin", Mode: 0o644,
		Content: "version https://git-lfs.github.com/spec/v1\noid sha256:" +
			strings.Repeat("ab", 32) + "\nsize 12345\n"}})
	q := request(t, ref(r.url+"/"+name, "main"))
	_, err = f.Fetch(t.Context(), q)
	require.Equal(t, builder.ReasonSourceRefused, builder.FailureOf(err).Reason, "%v", err)
	require.ErrorContains(t, err, "git-lfs")
	left, err := os.ReadDir(q.Dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestLostCommit: the commit of an earlier attempt is gone from the repository.
func TestLostCommit(t *testing.T) {
	t.Parallel()
	r := overDaemon(t)
	name := r.fresh(t, []sourcetest.File{{Name: "a", Mode: 0o644, Content: "a"}})
	q := request(t, ref(r.url+"/"+name, "main"))
	q.Pinned = source.Identity{Kind: source.KindGit, ID: strings.Repeat("ab", 20)}
	_, err := fetcher(t, gitsource.Config{}).Fetch(t.Context(), q)
	require.Equal(t, builder.ReasonSourceChanged, builder.FailureOf(err).Reason, "%v", err)
}

// TestCommandLine runs git through a script that writes down its arguments.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	r := overHTTPS(t)
	name := r.fresh(t, []sourcetest.File{{Name: "a", Mode: 0o644, Content: "a"}})
	r.users[name] = [2]string{"git", "pa55-w0rd"}
	told := filepath.Join(t.TempDir(), "told")
	script := filepath.Join(t.TempDir(), "git")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\necho \"$@\" >>"+told+
		"\nexec git \"$@\"\n"), 0o755))
	s := ref(r.url+"/"+name, "main")
	s.Git.Secret = "token"
	q := request(t, s)
	q.Secrets = map[string]string{"token": "pa55-w0rd"}
	_, err := fetcher(t, gitsource.Config{Program: script, CAFile: r.ca}).Fetch(t.Context(), q)
	require.NoError(t, err)
	text, err := os.ReadFile(told)
	require.NoError(t, err)
	require.Contains(t, string(text), "fetch")
	require.Equal(t, string(text), source.Redact(string(text), q.Secrets))
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := gitsource.New(gitsource.Config{CAFile: "relative"})
	require.ErrorIs(t, err, builder.ErrInvalid)
	require.ErrorContains(t, err, "Config.CAFile")
}
