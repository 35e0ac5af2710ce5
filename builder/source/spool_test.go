package source_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
)

// writes is a fetcher that writes a file, or fails.
type writes struct{ err error }

func (w writes) Fetch(_ context.Context, r source.Request) (source.Identity, error) {
	if w.err != nil {
		return source.Identity{}, w.err
	}
	return source.Identity{Kind: source.KindGit, ID: "ab", Files: 1, Bytes: 4},
		os.WriteFile(filepath.Join(r.Dir, "a"), []byte("code"), 0o644)
}

func request() source.Request {
	return source.Request{Source: source.Source{Git: &source.Git{URL: "https://example.com/a",
		Ref: "main"}}}
}

func TestSpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spool, err := source.Open(t.Context(), source.Config{Dir: dir, Fetcher: writes{}})
	require.NoError(t, err)
	var log strings.Builder
	r := request()
	r.Log = &log
	one, err := spool.Fetch(t.Context(), r)
	require.NoError(t, err)
	two, err := spool.Fetch(t.Context(), r)
	require.NoError(t, err)
	require.NotEqual(t, one.Dir, two.Dir)
	require.Contains(t, log.String(), "git commit ab: 1 files, 4 bytes\n")
	data, err := fs.ReadFile(one.Files, "a")
	require.NoError(t, err)
	require.Equal(t, "code", string(data))
	require.NoError(t, one.Close())
	require.NoError(t, one.Close())
	require.NoDirExists(t, one.Dir)
	require.DirExists(t, two.Dir)
	require.NoError(t, spool.Close())
	require.NoDirExists(t, two.Dir)
}

func TestSpoolOfAFailedFetch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fault := errors.New("away")
	spool, err := source.Open(t.Context(), source.Config{Dir: dir, Fetcher: writes{fault}})
	require.NoError(t, err)
	_, err = spool.Fetch(t.Context(), request())
	require.ErrorIs(t, err, fault)
	left, err := filepath.Glob(filepath.Join(dir, "spool-*", "*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, spool.Close())
}

// TestSweep: Open removes the part of a killed process, and not that of a living one.
func TestSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	living, err := source.Open(t.Context(), source.Config{Dir: dir, Fetcher: writes{}})
	require.NoError(t, err)
	kept, err := living.Fetch(t.Context(), request())
	require.NoError(t, err)
	left := filepath.Join(dir, "spool-killed", "fetch-1", "files")
	require.NoError(t, os.MkdirAll(left, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(left, "a"), nil, 0o400))
	require.NoError(t, os.Chmod(left, 0o500)) // as a source may have it

	again, err := source.Open(t.Context(), source.Config{Dir: dir, Fetcher: writes{}})
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(dir, "spool-killed"))
	require.DirExists(t, kept.Dir)
	require.NoError(t, again.Close())
	require.NoError(t, living.Close())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "the gate alone stays")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := source.Open(t.Context(), source.Config{Limits: source.Limits{Bytes: -1, Files: -1}})
	require.ErrorIs(t, err, builder.ErrInvalid)
	for _, field := range []string{"Dir", "Fetcher", "Limits.Bytes", "Limits.Files"} {
		require.ErrorContains(t, err, "Config."+field)
	}
	cause := errors.New("asked to end")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = source.Open(ctx, source.Config{Dir: t.TempDir(), Fetcher: writes{}})
	require.ErrorIs(t, err, cause)
}

func TestSet(t *testing.T) {
	t.Parallel()
	_, err := source.Set{Rsync: writes{}}.Fetch(t.Context(), request())
	require.ErrorIs(t, err, builder.ErrInvalid)
	require.ErrorContains(t, err, `no fetcher of kind "git"`)
}

func TestValidate(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("ab", 32)
	for _, good := range []source.Source{
		{},
		{Rsync: &source.Rsync{Host: "10.0.0.1", Module: "root", Path: "root/output/"}},
		{Rsync: &source.Rsync{Host: "::1", Module: "m", User: "ann", Secret: "password"}},
		{Git: &source.Git{URL: "https://example.com/a.git", Commit: strings.Repeat("a", 40)}},
		{Git: &source.Git{URL: "https://example.com/a", Ref: "release/1.2", Secret: "token"}},
		{Git: &source.Git{URL: "git://example.com/a", Ref: "v1"}},
		{Archive: &source.Archive{URL: "http://example.com/a.zip", SHA256: sum}},
		{Archive: &source.Archive{URL: "file:///a/b.tar", SHA256: sum}},
		{Artifact: &source.Artifact{Reference: "r.example.com/a@sha256:" + sum}},
	} {
		require.NoError(t, good.Validate(), good.String())
	}
	for field, bad := range map[string]source.Source{
		"rsync.host":     {Rsync: &source.Rsync{Host: "-e", Module: "m"}},
		"rsync.port":     {Rsync: &source.Rsync{Host: "h", Port: 65536, Module: "m"}},
		"rsync.module":   {Rsync: &source.Rsync{Host: "h", Module: "-m"}},
		"rsync.path":     {Rsync: &source.Rsync{Host: "h", Module: "m", Path: "a/../../b"}},
		"rsync.user":     {Rsync: &source.Rsync{Host: "h", Module: "m", Secret: "password"}},
		"rsync.secret":   {Rsync: &source.Rsync{Host: "h", Module: "m", User: "ann"}},
		"git.url":        {Git: &source.Git{URL: "https://ann:word@example.com/a", Ref: "main"}},
		"git.commit":     {Git: &source.Git{URL: "https://example.com/a", Commit: "main"}},
		"git.ref":        {Git: &source.Git{URL: "https://example.com/a", Ref: "--upload-pack=x"}},
		"git.ref: \"b\"": {Git: &source.Git{URL: "https://x/a", Ref: "b", Commit: sum}},
		"git.secret":     {Git: &source.Git{URL: "http://example.com/a", Ref: "b", Secret: "s"}},
		"archive.url":    {Archive: &source.Archive{URL: "ftp://example.com/a", SHA256: sum}},
		"archive.sha256": {Archive: &source.Archive{URL: "https://example.com/a"}},
		"archive.secret": {Archive: &source.Archive{URL: "http://example.com/a", SHA256: sum,
			Secret: "s"}},
		"artifact.reference": {Artifact: &source.Artifact{Reference: "r.example.com/a:latest"}},
		"2 are set": {Git: &source.Git{URL: "https://example.com/a", Ref: "b"},
			Rsync: &source.Rsync{Host: "h", Module: "m"}},
	} {
		err := bad.Validate()
		require.ErrorIs(t, err, builder.ErrInvalid, field)
		require.ErrorContains(t, err, field)
		require.NotContains(t, err.Error(), "word")
	}
}

// TestRedact: a value is found in the forms that clients show it in.
func TestRedact(t *testing.T) {
	t.Parallel()
	secrets := map[string]string{"a": "p/a ss+1", "b": "", "c": "p/a ss+1 and more"}
	require.Equal(t, "*** *** *** *** *** open", source.Redact(
		"p/a ss+1 p%2Fa+ss%2B1 p%2Fa%20ss+1 cC9hIHNzKzE= p/a ss+1 and more open", secrets))
}
