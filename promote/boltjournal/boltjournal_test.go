package boltjournal_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
	"github.com/sluice-deploy/sluice/promote/journaltest"
)

func open(t *testing.T, path string) *boltjournal.Journal {
	t.Helper()
	j, err := boltjournal.Open(t.Context(), boltjournal.Config{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close()) })
	return j
}

func TestConformance(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(t *testing.T) promote.Journal {
		return open(t, filepath.Join(t.TempDir(), "journal"))
	})
}

func TestTrim(t *testing.T) {
	t.Parallel()
	journaltest.RunTrimmer(t, func(t *testing.T) promote.Trimmer {
		return open(t, filepath.Join(t.TempDir(), "journal"))
	})
}

// A record that was lost is not taken for one that was trimmed.
func TestLostRecordBesideTrimmedOnes(t *testing.T) {
	t.Parallel()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, nil)
	require.NoError(t, err)
	defer db.Close()
	j, err := boltjournal.Open(t.Context(), boltjournal.Config{DB: db})
	require.NoError(t, err)
	for seq := range uint64(9) {
		_, err := j.Append(t.Context(), promote.Entry{Seq: seq + 1,
			Target: promote.Target{Cluster: "web"}})
		require.NoError(t, err)
	}
	require.NoError(t, j.Trim(t.Context(), "web", 4))
	entries, err := j.Read(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, entries, 5)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("promote.journal")).Delete(binary.BigEndian.AppendUint64(nil, 7))
	}))
	_, err = j.Read(t.Context(), 0)
	require.ErrorIs(t, err, promote.ErrDamaged)
	require.ErrorContains(t, err, "position 7 has no record")
}

func TestObserve(t *testing.T) {
	t.Parallel()
	var ops []string
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	j, err := boltjournal.Open(t.Context(), boltjournal.Config{
		Path: filepath.Join(t.TempDir(), "journal"),
		Now: func() time.Time {
			now = now.Add(time.Second)
			return now
		},
		Observe: func(op string, took time.Duration, err error) {
			require.Equal(t, time.Second, took)
			require.Equal(t, op == "trim", errors.Is(err, promote.ErrInvalid))
			ops = append(ops, op)
		}})
	require.NoError(t, err)
	defer j.Close()
	_, err = j.Append(t.Context(), promote.Entry{Seq: 1})
	require.NoError(t, err)
	_, err = j.Read(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, j.Wait(t.Context(), 0))
	require.ErrorIs(t, j.Trim(t.Context(), "", 1), promote.ErrInvalid)
	require.Equal(t, []string{"append", "read", "wait", "trim"}, ops)
}

func TestConformanceInASharedDatabase(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(t *testing.T) promote.Journal {
		db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, nil)
		require.NoError(t, err)
		j, err := boltjournal.Open(t.Context(), boltjournal.Config{DB: db})
		require.NoError(t, err)
		t.Cleanup(func() {
			require.NoError(t, j.Close())
			require.NoError(t, db.Close())
		})
		return j
	})
}

func TestEntriesSurviveCloseAndPagesHaveNoGap(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	const n = 1001 // one more than a page
	for seq := range uint64(n) {
		_, err := j.Append(t.Context(), promote.Entry{Seq: seq + 1, Kind: promote.Bound})
		require.NoError(t, err)
	}
	require.NoError(t, j.Close())

	j = open(t, path)
	first, err := j.Read(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, first, 1000)
	rest, err := j.Read(t.Context(), 1000)
	require.NoError(t, err)
	require.Len(t, rest, 1)
	_, err = j.Append(t.Context(), promote.Entry{Seq: 8})
	require.ErrorIs(t, err, promote.ErrConflict)
}

func TestSecondOpenSaysWhy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	open(t, path)
	_, err := boltjournal.Open(t.Context(), boltjournal.Config{Path: path})
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "another process has it open")
}

func TestOpenOfWhatIsNoDatabase(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	require.NoError(t, os.WriteFile(path, []byte(
		"not a database, but long enough to look like one"), 0o600))
	_, err := boltjournal.Open(t.Context(), boltjournal.Config{Path: path})
	require.ErrorContains(t, err, path)
}

// TestDamagedRecord: the others can be read, and the index says whose record it is.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	for name, record := range map[string]string{"no JSON": "{", "other number": `{"seq":7}`,
		"other cluster": `{"seq":2,"cluster":"api"}`, "empty": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, nil)
			require.NoError(t, err)
			defer db.Close()
			j, err := boltjournal.Open(t.Context(), boltjournal.Config{DB: db})
			require.NoError(t, err)
			for _, e := range []promote.Entry{
				{Seq: 1, Target: promote.Target{Cluster: "web"}},
				{Seq: 2, Target: promote.Target{Cluster: "web"}},
				{Seq: 1, Target: promote.Target{Cluster: "api"}},
			} {
				_, err := j.Append(t.Context(), e)
				require.NoError(t, err)
			}
			require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte("promote.journal")).Put(binary.BigEndian.AppendUint64(nil,
					2), []byte(record))
			}))
			entries, err := j.Read(t.Context(), 0)
			require.NoError(t, err)
			require.Len(t, entries, 3)
			require.NotEmpty(t, entries[1].Damage)
			require.Equal(t, []any{uint64(2), uint64(2), "web"},
				[]any{entries[1].At, entries[1].Seq, entries[1].Cluster})
			for _, i := range []int{0, 2} {
				require.Empty(t, entries[i].Damage)
			}
		})
	}
}

// TestConfig gives every field of Config a bad value.
func TestConfig(t *testing.T) {
	t.Parallel()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, nil)
	require.NoError(t, err)
	defer db.Close()
	path := filepath.Join(t.TempDir(), "journal")
	for want, cfg := range map[string]boltjournal.Config{
		"boltjournal: Config.Path, Config.DB: want exactly one of them: invalid": {},
		"boltjournal: Config.Path, Config.DB: want exactly one": {Path: path,
			DB: db},
		"boltjournal: Config.LockTimeout: -1ns: want 0 (default 1s) or more": {DB: db,
			LockTimeout: -1},
	} {
		_, err := boltjournal.Open(t.Context(), cfg)
		require.ErrorIs(t, err, promote.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	require.NoFileExists(t, path)
	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = boltjournal.Open(ctx, boltjournal.Config{Path: path})
	require.ErrorIs(t, err, cause)
	require.NoFileExists(t, path)
}

func TestCloseEndsWait(t *testing.T) {
	t.Parallel()
	j := open(t, filepath.Join(t.TempDir(), "journal"))
	ended := make(chan error)
	go func() { ended <- j.Wait(t.Context(), 0) }()
	require.NoError(t, j.Close())
	require.ErrorContains(t, <-ended, "wait for an entry after position 0")
	require.NoError(t, j.Close())
}
