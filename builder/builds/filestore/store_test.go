//go:build unix

package filestore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/builds/buildstest"
	"github.com/sluice-deploy/sluice/builder/builds/filestore"
)

func open(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(t.Context(), filestore.Config{Dir: dir, Poll: time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	buildstest.Run(t, func(t *testing.T) buildstest.Harness {
		s := open(t, t.TempDir())
		return buildstest.Harness{Journal: s, Logs: s, Owners: s}
	})
}

// two opens the directory twice, as two processes do, and uses them in turn.
type two struct {
	builds.Journal
	other builds.Journal
}

func (s two) Append(ctx context.Context, after uint64, e builds.Entry) error {
	if e.Seq%2 == 0 {
		return s.other.Append(ctx, after, e)
	}
	return s.Journal.Append(ctx, after, e)
}

func (s two) Compact(ctx context.Context, drop func(builds.Entry) bool) error {
	return s.other.(builds.Compacter).Compact(ctx, drop)
}

func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	buildstest.Run(t, func(t *testing.T) buildstest.Harness {
		dir := t.TempDir()
		a, b := open(t, dir), open(t, dir)
		return buildstest.Harness{Journal: two{a, b}, Logs: b, Owners: b}
	})
}

func TestTornLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	o := buildstest.Order("one")
	entry := builds.Entry{Seq: 1, Kind: builds.Submitted, Build: "one", Order: &o}
	require.NoError(t, s.Append(t.Context(), 0, entry))
	f, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"seq":2,"kind":"can` + strings.Repeat("x", 9000))
	require.NoError(t, errors.Join(err, f.Close()))

	again := open(t, dir)
	got, err := again.Read(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.NoError(t, again.Append(t.Context(), 1, builds.Entry{Seq: 2, Kind: builds.Cancelled,
		Build: "one"}))
	got, err = s.Read(t.Context(), 1)
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, builds.Cancelled, got[0].Kind)
}

func TestDamagedLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	for seq, id := range []string{"one", "two"} {
		o := buildstest.Order(id)
		require.NoError(t, s.Append(t.Context(), uint64(seq), builds.Entry{Seq: uint64(seq) + 1,
			Kind: builds.Submitted, Build: id, Order: &o}))
	}
	name := filepath.Join(dir, "journal")
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	text[2] = 0
	require.NoError(t, os.WriteFile(name, text, 0o600))

	b, err := builds.New(builds.Config{Journal: open(t, dir), Logs: s})
	require.NoError(t, err)
	list, err := b.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "two", list[0].ID)
	got, err := s.Read(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, builds.Damaged, got[0].Kind)
	require.Contains(t, got[0].Reason, "journal:1: ")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := filestore.Open(t.Context(), filestore.Config{Poll: -1})
	require.ErrorIs(t, err, builder.ErrInvalid)
	require.ErrorContains(t, err, "Config.Dir")
	require.ErrorContains(t, err, "Config.Poll")
}
