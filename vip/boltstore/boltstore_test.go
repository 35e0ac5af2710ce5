package boltstore_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
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
	storetest.Run(t, func(t *testing.T) vip.Store {
		return open(t, filepath.Join(t.TempDir(), "vip.db"))
	})
}

func TestStoreIsExclusive(t *testing.T) {
	t.Parallel()
	var s vip.Store = open(t, filepath.Join(t.TempDir(), "vip.db"))
	require.True(t, s.(vip.ExclusiveStore).Exclusive())
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

// The page that makes a commit valid is torn, as by a power cut while it was written: the commits
// before it are there, and the store goes on from them.
func TestTornWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "vip.db")
	s := open(t, path)
	first, err := s.Commit(t.Context(), vip.Change{Key: "k", Value: []byte("1")},
		vip.Change{Key: "l", Value: []byte("1")})
	require.NoError(t, err)
	_, err = s.Commit(t.Context(), vip.Change{Key: "k", Value: []byte("2"), Revision: first},
		vip.Change{Key: "l", Revision: first})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	// of the page, in the meta record: bbolt has two, and writes them in turn
	const header, transaction = 16, 48
	page := int(binary.NativeEndian.Uint32(file[header+8:]))
	latest := 0
	if at := header + transaction; binary.NativeEndian.Uint64(
		file[page+at:]) > binary.NativeEndian.Uint64(file[at:]) {
		latest = page
	}
	for cut := range 64 {
		torn := slices.Clone(file)
		clear(torn[latest+header+cut : latest+page])
		path := filepath.Join(t.TempDir(), "torn.db")
		require.NoError(t, os.WriteFile(path, torn, 0o600))
		s := open(t, path)
		found, err := s.List(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, []vip.Record{{Key: "k", Value: []byte("1"), Revision: first},
			{Key: "l", Value: []byte("1"), Revision: first}}, found, "torn after %d bytes", cut)
		next, err := s.Commit(t.Context(), vip.Change{Key: "k", Value: []byte("3"),
			Revision: first})
		require.NoError(t, err)
		require.Greater(t, next, first)
		require.NoError(t, s.Close())
	}
}
