package platform

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"
)

// records is one bbolt bucket of JSON values. Every write is on disk when it returns.
type records[T any] struct {
	db     *bbolt.DB
	bucket []byte
}

func openRecords[T any](db *bbolt.DB, bucket string) (records[T], error) {
	r := records[T]{db, []byte(bucket)}
	return r, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(r.bucket)
		return err
	})
}

// get returns the zero value for a key that is not there.
func (r records[T]) get(key string) (value T, found bool, err error) {
	err = r.db.View(func(tx *bbolt.Tx) error {
		data := tx.Bucket(r.bucket).Get([]byte(key))
		found = data != nil
		if !found {
			return nil
		}
		return r.decode(key, data, &value)
	})
	return value, found, err
}

// update replaces the stored value, or the zero value, by the result of change; its error aborts.
func (r records[T]) update(key string, change func(value T) (T, error)) (value T, err error) {
	err = r.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(r.bucket)
		if data := bucket.Get([]byte(key)); data != nil {
			if err := r.decode(key, data, &value); err != nil {
				return err
			}
		}
		if value, err = change(value); err != nil {
			return err
		}
		data, err := json.Marshal(value)
		if err != nil {
			return err
		}
		return bucket.Put([]byte(key), data)
	})
	return value, err
}

// list returns all values in the order of their keys.
func (r records[T]) list() (values []T, err error) {
	err = r.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(r.bucket).ForEach(func(key, data []byte) error {
			var value T
			values = append(values, value)
			return r.decode(string(key), data, &values[len(values)-1])
		})
	})
	return values, err
}

// after gives visit the values whose keys are below key, from the last one on, until it returns
// false; an empty key stands for the end. It leaves those out that do not have the lower-case text:
// most of them without decoding them.
func (r records[T]) after(key, text string, visit func(value T) bool) error {
	return r.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(r.bucket).Cursor()
		k, data := cursor.Last()
		if key != "" {
			if k, data = cursor.Seek([]byte(key)); k == nil {
				k, data = cursor.Last()
			}
			for k != nil && string(k) >= key {
				k, data = cursor.Prev()
			}
		}
		for ; k != nil; k, data = cursor.Prev() {
			if text != "" && !bytes.Contains(bytes.ToLower(data), []byte(text)) {
				continue
			}
			var value T
			if err := r.decode(string(k), data, &value); err != nil {
				return err
			}
			if !visit(value) {
				return nil
			}
		}
		return nil
	})
}

// next is a number that this bucket has not given before.
func (r records[T]) next() (n uint64, err error) {
	err = r.db.Update(func(tx *bbolt.Tx) error {
		n, err = tx.Bucket(r.bucket).NextSequence()
		return err
	})
	return n, err
}

func (r records[T]) decode(key string, data []byte, value *T) error {
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("record %s/%s: %w", r.bucket, key, err)
	}
	return nil
}
