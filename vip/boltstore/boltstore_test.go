package boltstore_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
	"github.com/sluice-deploy/sluice/vip/storetest"
)

func open(t *testing.T, path string) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) vip.Store { return open(t, filepath.Join(t.TempDir(), "vip.db")) })
}

func TestRecordsAndRevisionsSurviveAReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "vip.db")
	s := open(t, path)
	first, err := s.Commit(t.Context(), vip.Change{Key: "k", Value: []byte("1")})
	require.NoError(t, err)
	_, err = s.Commit(t.Context(), vip.Change{Key: "k", Revision: first})
	require.NoError(t, err)
	last, err := s.Commit(t.Context(), vip.Change{Key: "k", Value: []byte("2")})
	require.NoError(t, err)
	require.NoError(t, s.Close())

	s = open(t, path)
	found, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, []vip.Record{{Key: "k", Value: []byte("2"), Revision: last}}, found)
	next, err := s.Commit(t.Context(), vip.Change{Key: "l", Value: []byte("1")})
	require.NoError(t, err)
	require.Greater(t, next, last)
}

func TestSecondOpenIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "vip.db")
	open(t, path)
	_, err := boltstore.Open(path)
	require.ErrorContains(t, err, "another process has it open")
}

func TestClosedStoreSaysSo(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "vip.db"))
	require.NoError(t, s.Close())
	_, err := s.Commit(t.Context(), vip.Change{Key: "k", Value: []byte("1")})
	require.ErrorContains(t, err, "vip.db")
}
