package boltrecords_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/promote/rollout/boltrecords"
	"github.com/sluice-deploy/sluice/promote/rollout/rollouttest"
)

func open(t *testing.T, path string) (*boltrecords.Records, *bbolt.DB) {
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	r, err := boltrecords.Open(t.Context(), boltrecords.Config{DB: db})
	require.NoError(t, err)
	return r, db
}

func TestRecords(t *testing.T) {
	t.Parallel()
	rollouttest.Run(t, rollouttest.Harness{Records: func(t *testing.T) rollout.Records {
		r, _ := open(t, filepath.Join(t.TempDir(), "state.db"))
		return r
	}})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := boltrecords.Open(t.Context(), boltrecords.Config{})
	require.ErrorIs(t, err, promote.ErrInvalid)
	require.ErrorContains(t, err, "Config.DB")
}

func TestRecordsAreOnDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	r, db := open(t, path)
	target := promote.Target{Cluster: "web", Environment: "test"}
	want := rollout.Record{Target: target, Seen: 7, Serving: []string{"web-test-g7-1"}}
	_, err := r.Update(t.Context(), target, func(rollout.Record) (rollout.Record, error) {
		return want, nil
	})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	r, db = open(t, path)
	got, err := r.Get(t.Context(), target)
	require.NoError(t, err)
	require.Equal(t, want, got)

	// a record that is damaged harms no other
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("promote.rollout")).Put([]byte("other"), []byte("{"))
	}))
	list, err := r.List(t.Context())
	require.ErrorContains(t, err, "rollout record other")
	require.Equal(t, []rollout.Record{want}, list)
}
