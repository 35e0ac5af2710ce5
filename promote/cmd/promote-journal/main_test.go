package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
	"github.com/sluice-deploy/sluice/promote/filearchive"
)

// nothing is a deployer that is not called: the journals have bindings only.
type nothing struct{ promote.Deployer }

// bind appends the bindings of versions to two clusters' entries of a bbolt file.
func bind(t *testing.T, path string, versions ...string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	j, err := boltjournal.Open(t.Context(), boltjournal.Config{DB: db})
	require.NoError(t, err)
	p, err := promote.New(promote.Config{Pipeline: promote.Pipeline{"test"}, Journal: j,
		Deployer: nothing{}})
	require.NoError(t, err)
	for i, version := range versions {
		for _, cluster := range []string{"hello_web", "greet_api"} {
			require.NoError(t, p.Bind(t.Context(), promote.Binding{Cluster: cluster,
				Version: version, Repository: "r/" + cluster, Actor: "ann", Digest: digest(t, i)}))
		}
	}
	require.NoError(t, p.Close(t.Context()))
	require.NoError(t, db.Close())
}

func digest(t *testing.T, n int) promote.Digest {
	t.Helper()
	d, err := promote.ParseDigest(fmt.Sprintf("sha256:%064x", n+1))
	require.NoError(t, err)
	return d
}

func call(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &problems)
	return code, out.String(), problems.String()
}

func exported(t *testing.T, path string) string {
	t.Helper()
	code, lines, problems := call(t, "", "export", path)
	require.Equal(t, 0, code, problems)
	return lines
}

func TestVerify(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	bind(t, path, "v1", "v2")
	first := exported(t, path)
	code, heads, problems := call(t, first, "verify", "-")
	require.Equal(t, 0, code, problems)
	require.Contains(t, heads, `"hello_web": {
    "seq": 2,`)
	kept := filepath.Join(t.TempDir(), "kept.json")
	require.NoError(t, os.WriteFile(kept, []byte(heads), 0o600))

	bind(t, path, "v3")
	longer := exported(t, path)
	require.True(t, strings.HasPrefix(longer, first))
	file := filepath.Join(t.TempDir(), "journal.jsonl")
	require.NoError(t, os.WriteFile(file, []byte(longer), 0o600))
	code, _, problems = call(t, "", "verify", "-heads", kept, file)
	require.Equal(t, 0, code, problems)

	changed := strings.Replace(longer, `"actor":"ann"`, `"actor":"eve"`, 1)
	code, _, problems = call(t, changed, "verify", "-")
	require.Equal(t, wrong, code)
	require.Contains(t, problems, "damaged")

	cut := first[:strings.LastIndex(first[:len(first)-1], "\n")+1]
	code, _, problems = call(t, cut, "verify", "-")
	require.Equal(t, 0, code, "a journal without its last entries is whole by itself: %s", problems)
	code, _, problems = call(t, cut, "verify", "-heads", kept, "-")
	require.Equal(t, wrong, code)
	require.Regexp(t, `cluster (hello_web|greet_api): ends at entry 1, and had 2: set back`,
		problems)

	other := filepath.Join(t.TempDir(), "other.db")
	bind(t, other, "v1", "v2b", "v3")
	for _, history := range []string{exported(t, other), strings.Join(
		strings.SplitAfter(exported(t, other), "\n")[:4], "")} {
		code, _, problems = call(t, history, "verify", "-heads", kept, "-")
		require.Equal(t, wrong, code)
		require.Contains(t, problems, "cluster hello_web: entry 2 is another one than the head")
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad")
	require.NoError(t, os.WriteFile(bad, []byte("{"), 0o600))
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"", badUsage, "usage:"},
		{"prove x", badUsage, "usage:"},
		{"verify", badUsage, "usage:"},
		{"export a b", badUsage, "usage:"},
		{"export -heads x y", badUsage, "usage:"},
		{"verify /nonexistent", unread, "no such file"},
		{"export /nonexistent", unread, "no such file"},
		{"export " + bad, unread, bad},
		{"verify -heads /nonexistent -", unread, "no such file"},
		{"verify -heads " + bad + " -", unread, "want the output of an earlier verify"},
	} {
		code, _, problems := call(t, "", strings.Fields(c.args)...)
		require.Equal(t, c.code, code, c.args)
		require.Contains(t, problems, c.says, c.args)
	}
	_, err := os.Stat("/nonexistent")
	require.ErrorIs(t, err, os.ErrNotExist, "export makes no file")
}

// A file that another process has open is not waited for.
func TestExportOfAnOpenFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	bind(t, path, "v1")
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	defer db.Close()
	code, _, problems := call(t, "", "export", path)
	require.Equal(t, unread, code)
	require.Contains(t, problems, "end the process that has it open")
}

// A context that has ended ends an export.
func TestExportEndsWithItsContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	bind(t, path, "v1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, problems bytes.Buffer
	require.Equal(t, unread, run(ctx, []string{"export", path}, nil, &out, &problems))
	require.Contains(t, problems.String(), context.Canceled.Error())
}

// TestVerifySegments has the older entries of a cluster in the segment of an archive.
func TestVerifySegments(t *testing.T) {
	t.Parallel()
	path, dir := filepath.Join(t.TempDir(), "state.db"), filepath.Join(t.TempDir(), "archive")
	bind(t, path, "v1", "v2", "v3", "v4")
	code, heads, problems := call(t, exported(t, path), "verify", "-")
	require.Equal(t, 0, code, problems)
	kept := filepath.Join(t.TempDir(), "kept.json")
	require.NoError(t, os.WriteFile(kept, []byte(heads), 0o600))

	j, err := boltjournal.Open(t.Context(), boltjournal.Config{Path: path})
	require.NoError(t, err)
	archive, err := filearchive.Open(filearchive.Config{Dir: dir})
	require.NoError(t, err)
	p, err := promote.New(promote.Config{Pipeline: promote.Pipeline{"test"}, Journal: j,
		Archive: archive, Deployer: nothing{}})
	require.NoError(t, err)
	for range 2 {
		n, err := p.Archive(t.Context(), promote.ArchiveRequest{Cluster: "hello_web", Keep: 1,
			Actor: "ann"})
		require.NoError(t, err)
		require.Positive(t, n)
	}
	require.NoError(t, p.Close(t.Context()))
	require.NoError(t, j.Close())
	rest := exported(t, path)
	segments, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, segments, 2)

	all := append([]string{"verify", "-heads", kept}, append(segments, "-")...)
	code, heads, problems = call(t, rest, all...)
	require.Equal(t, 0, code, problems)
	require.Contains(t, heads, `"seq": 6,`)
	code, _, problems = call(t, rest, "verify", "-heads", kept, segments[1], "-")
	require.Equal(t, wrong, code)
	require.Contains(t, problems, `cluster "hello_web"`)
	code, _, _ = call(t, rest, "verify", "-")
	require.Equal(t, wrong, code)
	other := strings.Replace(heads, `"seq": 6`, `"seq": 3`, 1)
	require.NoError(t, os.WriteFile(kept, []byte(other), 0o600))
	code, _, problems = call(t, rest, all...)
	require.Equal(t, wrong, code)
	require.Contains(t, problems, "cluster hello_web: entry 3 is another one")
}
