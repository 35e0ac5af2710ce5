package boltrecords_test

import (
	"encoding/json"
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
	unreadable, err := rollout.Unreadable(err)
	require.NoError(t, err)
	require.Equal(t, []promote.Target{{}}, unreadable.Targets, "its key names no target")
}

// TestDamagedRecord has one record that cannot be read beside a rollout that a crash has cut off,
// and beside a leftover of a rollout that has ended.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	recs, db := open(t, filepath.Join(t.TempDir(), "state.db"))
	target := promote.Target{Cluster: "web", Environment: "test"}
	image := rollout.Image{Version: "v1", Digest: "sha256:1", Repository: "registry:5000/web"}
	_, err := recs.Update(t.Context(), target, func(rollout.Record) (rollout.Record, error) {
		return rollout.Record{Target: target, Revision: 1, Seen: 1, Image: image}, nil
	})
	require.NoError(t, err)
	damaged := promote.Target{Cluster: "api", Environment: "test"}
	key, err := json.Marshal(damaged)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("promote.rollout")).Put(key, []byte("{"))
	}))
	world := rollouttest.NewWorld()
	r, err := rollout.New(rollout.Config{Records: recs, Instances: world, Routes: world})
	require.NoError(t, err)

	require.ErrorContains(t, r.Recover(t.Context()), `rollout record {"cluster":"api"`)
	require.Len(t, world.Routed(target), 1)
	serving, err := rollout.Serving(t.Context(), recs, world)
	unreadable, err := rollout.Unreadable(err)
	require.NoError(t, err)
	require.Equal(t, []promote.Target{damaged}, unreadable.Targets)
	require.Equal(t, world.Routed(target), serving)
	leftover, err := world.Start(t.Context(), rollout.Spec{ID: "left", Target: target,
		Image: image, Generation: 1, Number: 7})
	require.NoError(t, err)
	require.ErrorContains(t, r.Tidy(t.Context()), `rollout record {"cluster":"api"`)
	require.Len(t, world.Instances(target), 1)
	require.NotContains(t, world.Instances(target), leftover)
	require.ErrorContains(t, r.Deploy(t.Context(), promote.Deployment{Target: damaged,
		Version: "v1", Digest: "sha256:1", Generation: 1}), "rollout record of")
	require.Empty(t, world.Breaches())
}
