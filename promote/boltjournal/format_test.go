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
)

// willing is a Deployer that does everything at once.
type willing struct{}

func (willing) Deploy(context.Context, promote.Deployment) error { return nil }
func (willing) Remove(context.Context, promote.Deployment) error { return nil }

// TestFormat0 opens testdata/formats/0/promote.db: testdata/formats/README.md says how it was made.
func TestFormat0(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../testdata/formats/0/promote.db")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "promote.db")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	j, err := boltjournal.Open(t.Context(), boltjournal.Config{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close()) })

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
