package boltjournal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
	"github.com/sluice-deploy/sluice/promote/filearchive"
)

// willing is a Deployer that does everything at once.
type willing struct{}

func (willing) Deploy(context.Context, promote.Deployment) error { return nil }
func (willing) Remove(context.Context, promote.Deployment) error { return nil }

// TestFormat0 opens testdata/formats/0/promote.db: testdata/formats/README.md says how it was made.
func TestFormat0(t *testing.T) {
	t.Parallel()
	j := openFormat(t, "0")
	entries, err := j.Read(t.Context(), 0)
	require.NoError(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, line(e))
	}
	require.Equal(t, []string{
		"1 bound  v1 0101 by ci",
		"2 bound  v2 0202 by ci",
		"3 bound  2.0.0+build.7 0303 by ci",
		"4 started promote test v1 0101 by ann change 4 generation 4 reason first <release> & 世界",
		"5 succeeded promote test v1 0101 by ann change 4 generation 4 reason first <release> & 世界",
		"6 started promote test/search-redesign 2.0.0+build.7 0303 by bob change 6 generation 6",
		"7 succeeded promote test/search-redesign 2.0.0+build.7 0303 by bob change 6 generation 6",
		"8 approved sandbox v1 0101 by cao",
		"9 rejected sandbox v1 0101 by dee reason wait for the audit",
		"10 started promote sandbox v1 0101 by ann change 10 generation 10",
		"11 succeeded promote sandbox v1 0101 by ann change 10 generation 10",
		"12 approved sandbox v2 0202 by cao reason seen",
	}, got[:12])
	require.Equal(t, []string{
		"restoring promote test: instance does not listen", "failed promote test: instance does " +
			"not listen",
		"restoring promote sandbox: host is gone", "failed promote sandbox: host is gone",
	}, failures(entries))
	require.Equal(t, "resumed", string(entries[len(entries)-1].Kind), "a change that Recover had "+
		"taken over was cut off")
	first := entries[0]
	require.Equal(t, promote.Digest("sha256:"+strings.Repeat("01", 32)), first.Digest)
	require.Equal(t, "registry.example:5000/hello_web", first.Repository)
	require.Equal(t, time.Date(2026, 3, 1, 12, 0, 1, 500, time.UTC), first.Time)

	p, err := promote.New(promote.Config{Journal: j, Deployer: willing{}})
	require.NoError(t, err)
	current, err := p.Current(t.Context())
	require.NoError(t, err)
	got = nil
	for _, d := range current {
		got = append(got, fmt.Sprintf("%s %s doubt %q", d.Environment, d.Version, d.Doubt))
	}
	require.Equal(t, []string{
		`test v1 doubt ""`, `sandbox v1 doubt "put back v1 (sha256:010101010101): host is gone"`,
	}, got)
	ended, err := p.Recover(t.Context())
	require.NoError(t, err)
	require.Len(t, ended, 1)
	require.Equal(t, "succeeded promote v2", fmt.Sprintf("%s %s %s", ended[0].Kind, ended[0].Op,
		ended[0].Version))
	require.NoError(t, p.Release(t.Context(), promote.QuarantineRequest{Cluster: "Hello_Web",
		Digest: ended[0].Digest, Actor: "ann", Reason: "v2 is fast again"}))
	_, err = p.Promote(t.Context(), promote.Request{Expect: promote.Any,
		Target: promote.Target{Cluster: "Hello_Web", Environment: "sandbox"}, Version: "v2",
		Actor: "ann",
	})
	require.NoError(t, err, "a cluster whose name is of an older grammar goes on")
	versions, err := p.Bindings(t.Context(), "Hello_Web")
	require.NoError(t, err)
	require.Len(t, versions, 3)
}

// TestFormat3 opens testdata/formats/3/promote.db: testdata/formats/README.md says how it was made.
func TestFormat3(t *testing.T) {
	t.Parallel()
	j := openFormat(t, "3")
	entries, err := j.Read(t.Context(), 0)
	require.NoError(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, line(e))
	}
	require.Equal(t, []string{
		"3 adopted adopt test v1 0101 by carol reason the old tool deployed it",
		"4 approved production v1 0101 by bob reason seen",
		"5 adopted adopt production v1 0101 by carol reason the old tool deployed it",
		"6 started promote sandbox v1 0101 by ann change 6 generation 6",
		"7 progressed switched sandbox v1 0101 by ann change 6 generation 6 reason 5 %",
		"8 progressed checked sandbox v1 0101 by ann change 6 generation 6 reason 5 %",
		"9 progressed paused sandbox v1 0101 by ann change 6 generation 6",
		"10 progressed continued sandbox v1 0101 by ann change 6 generation 6",
		"11 succeeded promote sandbox v1 0101 by ann change 6 generation 6",
	}, got[2:11])
	require.Equal(t, "27 succeeded promote stable v1 0101 by chief change 26 generation 26",
		got[26])
	require.Len(t, got, 27)
	require.Equal(t, []string{
		"progressed back sandbox: 3 % errors, the baseline has 0.1 %",
		"restoring promote sandbox: 5 % did not pass", "failed promote sandbox: 5 % did not pass",
	}, failures(entries))
	require.Equal(t, "override: payments are down; not met: approval gate: stable needs 1 "+
		"approvals of v1 (sha256:010101010101) and has 0", entries[25].Note)
	for _, e := range entries {
		want := 0
		if e.Kind == promote.Adopted || e.Kind == promote.Progressed {
			want = 2
		}
		require.Equal(t, want, e.Needs, "entry %d", e.Seq)
	}

	p, err := promote.New(promote.Config{Journal: j, Deployer: willing{}})
	require.NoError(t, err)
	current, err := p.Current(t.Context())
	require.NoError(t, err)
	got = nil
	for _, d := range current {
		got = append(got, fmt.Sprintf("%s %s since %s", d.Environment, d.Version,
			d.Since.Format(time.TimeOnly)))
	}
	require.Equal(t, []string{"test v2 since 12:00:21", "sandbox v1 since 12:00:17",
		"production v1 since 12:00:09", "stable v1 since 12:00:39"}, got)
	events, err := p.Events(t.Context(), "hello_web-14")
	require.NoError(t, err)
	require.Len(t, events, 12)
}

// TestFormat4 opens testdata/formats/4: testdata/formats/README.md says how it was made.
func TestFormat4(t *testing.T) {
	t.Parallel()
	j := openFormat(t, "4")
	entries, err := j.Read(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, entries, 6)
	last := entries[len(entries)-1]
	require.Equal(t, []any{promote.Checkpoint, 3, uint64(10), uint64(12),
		"segment-hello_web-00000000000000000008-00000000000000000010.jsonl"},
		[]any{last.Kind, last.Needs, last.Through, last.ThroughAt, last.Note})
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("../../testdata/formats/4/archive")))
	archive, err := filearchive.Open(filearchive.Config{Dir: dir})
	require.NoError(t, err)
	p, err := promote.New(promote.Config{Journal: j, Archive: archive, Deployer: willing{}})
	require.NoError(t, err)
	history, err := p.History(t.Context(), promote.Target{Cluster: "hello_web"})
	require.NoError(t, err)
	require.Len(t, history, 14)
	_, err = p.Promote(t.Context(), promote.Request{Expect: history[12].Digest, Version: "v2",
		Target: promote.Target{Cluster: "hello_web", Environment: "test"}, Actor: "ann"})
	require.NoError(t, err)
}

// openFormat opens a copy of the journal in a directory of testdata/formats.
func openFormat(t *testing.T, format string) *boltjournal.Journal {
	data, err := os.ReadFile("../../testdata/formats/" + format + "/promote.db")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "promote.db")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	j, err := boltjournal.Open(t.Context(), boltjournal.Config{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close()) })
	return j
}

// line shows the stored facts of an entry in one line.
func line(e promote.Entry) string {
	where := e.Environment
	if e.Task != "" {
		where += "/" + e.Task
	}
	words := []string{fmt.Sprint(e.Seq), string(e.Kind)}
	if e.Op != "" {
		words = append(words, string(e.Op))
	}
	words = append(words, where, e.Version, string(e.Digest[len(e.Digest)-4:]), "by", e.Actor)
	if e.Change != 0 {
		words = append(words, fmt.Sprintf("change %d generation %d", e.Change, e.Generation))
	}
	if e.Reason != "" {
		words = append(words, "reason", e.Reason)
	}
	return strings.Join(words, " ")
}

// failures lists the entries that record an error.
func failures(entries []promote.Entry) (list []string) {
	for e := range slices.Values(entries) {
		if e.Error != "" {
			list = append(list, fmt.Sprintf("%s %s %s: %s", e.Kind, e.Op, e.Environment, e.Error))
		}
	}
	return list
}
