// Package boltrecords keeps the records of a rollout in a bbolt database: for one process on one
// machine. Every update is one transaction, synced to the disk before it returns.
//
// The bucket "promote.rollout" holds one record a target: the key is the target as JSON, the value
// the record as JSON.
package boltrecords

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

var bucket = []byte("promote.rollout")

// Records is a rollout.Records in a bbolt database.
type Records struct{ db *bbolt.DB }

var _ rollout.Records = (*Records)(nil)

// Config names the database. DB is required.
type Config struct {
	// DB is an open database, which other packages may share: promote/boltjournal does. The caller
	// closes it.
	DB *bbolt.DB
}

// Open makes the bucket if it is missing. bbolt cannot give up when ctx ends: Open looks at ctx at
// its beginning.
func Open(ctx context.Context, cfg Config) (*Records, error) {
	if cfg.DB == nil {
		return nil, fmt.Errorf("boltrecords: Config.DB: nil: want an open database: %w",
			promote.ErrInvalid)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	err := cfg.DB.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rollout records in %s: %w", cfg.DB.Path(), err)
	}
	return &Records{cfg.DB}, nil
}

// Get implements rollout.Records.
func (r *Records) Get(ctx context.Context, target promote.Target) (rec rollout.Record, err error) {
	if ctx.Err() != nil {
		return rec, context.Cause(ctx)
	}
	err = r.db.View(func(tx *bbolt.Tx) error {
		rec, _, err = get(tx, target)
		return err
	})
	return rec, err
}

// Update implements rollout.Records.
func (r *Records) Update(ctx context.Context, target promote.Target,
	change func(rollout.Record) (rollout.Record, error)) (rec rollout.Record, err error) {
	if ctx.Err() != nil {
		return rec, context.Cause(ctx)
	}
	err = r.db.Update(func(tx *bbolt.Tx) error {
		before, key, err := get(tx, target)
		if err != nil {
			return err
		}
		if rec, err = change(before); err != nil {
			return err
		}
		value, err := json.Marshal(rec)
		if err != nil {
			return err
		}
		return tx.Bucket(bucket).Put(key, value)
	})
	if err != nil {
		return rollout.Record{}, err
	}
	return rec, nil
}

func get(tx *bbolt.Tx, target promote.Target) (rec rollout.Record, key []byte, err error) {
	if key, err = json.Marshal(target); err != nil {
		return rec, nil, err
	}
	rec.Target = target
	value := tx.Bucket(bucket).Get(key)
	if value == nil {
		return rec, key, nil
	}
	if err := json.Unmarshal(value, &rec); err != nil {
		return rec, nil, fmt.Errorf("rollout record of %s: %w", target, err)
	}
	return rec, key, nil
}

// List implements rollout.Records.
func (r *Records) List(ctx context.Context) (list []rollout.Record, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var bad rollout.UnreadableError
	err = r.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(key, value []byte) error {
			var rec rollout.Record
			if err := json.Unmarshal(value, &rec); err != nil {
				var target promote.Target
				_ = json.Unmarshal(key, &target) // a key that is damaged, too, names no target
				bad.Targets = append(bad.Targets, target)
				bad.Err = errors.Join(bad.Err, fmt.Errorf("rollout record %s: %w", key, err))
				return nil
			}
			list = append(list, rec)
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("rollout records in %s: %w", r.db.Path(), err)
	case len(bad.Targets) > 0:
		return list, &bad
	}
	return list, nil
}
