// Package boltstore keeps the records of a vip.Allocator in a bbolt file: durable, for one process
// on one machine.
//
// One bucket, "vip", holds a key for each record; its value is the revision (8 bytes, big endian)
// and the record's value. Another, "vip past", holds the past of addresses likewise, by number and
// address. Revisions come from the first bucket's sequence, so they go on growing over restarts and
// deletes. A commit is on disk, synced, when Commit returns; commits that arrive while another is
// being written share the next write (group commit). bbolt locks the file: a second process that
// opens it gets an error after a second.
package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/sluice-deploy/sluice/vip"
)

var bucket = []byte("vip")

// Store is a vip.Store in a bbolt database.
type Store struct {
	db    *bbolt.DB
	path  string        // for errors: a closed database forgets it
	own   bool          // Close closes db
	mixed bool          // see records
	turn  chan struct{} // holds one token: its holder writes for all that are queued

	mu      sync.Mutex
	queue   []*request
	callers int           // that were in Commit when the last write ended
	took    time.Duration // by the last write
	full    chan struct{} // of capacity 1: gets a token when as many as callers are queued
}

var _ vip.Store = (*Store)(nil)

type request struct {
	changes  []vip.Change
	revision uint64
	err      error
	done     chan struct{}
}

// Open opens or creates the file path. The caller calls Close.
func Open(path string) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoFreelistSync: true,
		FreelistType: bbolt.FreelistMapType})
	if err != nil {
		if errors.Is(err, bbolterrors.ErrTimeout) {
			return nil, fmt.Errorf("open %s: another process has it open: %w", path, err)
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s, err := New(db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.own = true
	return s, nil
}

// New uses a database that the caller has opened, and closes after the last call.
func New(db *bbolt.DB) (*Store, error) {
	mixed := false
	err := db.Update(func(tx *bbolt.Tx) error {
		main, err := tx.CreateBucketIfNotExists(bucket)
		if err == nil {
			mixed = hasPast(main)
			_, err = tx.CreateBucketIfNotExists(pastBucket)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: buckets %q and %q: %w", db.Path(), bucket, pastBucket,
			err)
	}
	return &Store{db: db, path: db.Path(), mixed: mixed, turn: make(chan struct{}, 1),
		full: make(chan struct{}, 1)}, nil
}

// Close closes a database that Open has opened. Calls in progress end first.
func (s *Store) Close() error {
	if !s.own {
		return nil
	}
	return s.db.Close()
}

// Exclusive implements vip.ExclusiveStore: the file is open in one process only. vip.Shared makes a
// Store one for several allocators of the process.
func (*Store) Exclusive() bool { return true }

// List implements vip.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]vip.Record, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	var found []vip.Record
	err := s.db.View(func(tx *bbolt.Tx) error {
		count := 0
		c, begin := tx.Bucket(bucket).Cursor(), []byte(prefix)
		for k, _ := c.Seek(begin); k != nil && bytes.HasPrefix(k, begin); k, _ = c.Next() {
			count++
		}
		found = make([]vip.Record, count)
		var values []byte
		for i, k, v := 0, []byte(nil), []byte(nil); i < count; i++ {
			if i == 0 {
				k, v = c.Seek(begin)
			} else {
				k, v = c.Next()
			}
			var err error
			if found[i], err = record(string(k), v, &values); err != nil {
				return err
			}
		}
		all := s.records(tx)
		var err error
		found, err = all.pastOf(found, prefix)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return found, nil
}

// Get implements vip.Store.
func (s *Store) Get(ctx context.Context, keys ...string) ([]vip.Record, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	found := make([]vip.Record, len(keys))
	err := s.db.View(func(tx *bbolt.Tx) error {
		all := s.records(tx)
		for i, key := range keys {
			var err error
			v := all.get(key)
			value := make([]byte, 0, max(len(v)-8, 0))
			if found[i], err = record(key, v, &value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return found, nil
}

// record reads a stored value; nil gives a record that is absent. It copies the value to values,
// which grows by pieces of many values: a start reads a million.
func record(key string, v []byte, values *[]byte) (vip.Record, error) {
	rev, err := revision(key, v)
	if err != nil || v == nil {
		return vip.Record{Key: key}, err
	}
	n := len(v) - 8
	if *values == nil || n > cap(*values)-len(*values) {
		*values = make([]byte, 0, max(n, pieceSize))
	}
	from := len(*values)
	*values = append(*values, v[8:]...)
	return vip.Record{Key: key, Value: (*values)[from : from+n : from+n], Revision: rev}, nil
}

// pieceSize is the room for values that is held as long as one of them is.
const pieceSize = 4096

// revision reads the revision of a stored value, 0 for nil.
func revision(key string, v []byte) (uint64, error) {
	switch {
	case v == nil:
		return 0, nil
	case len(v) < 8:
		return 0, fmt.Errorf("key %s: %d bytes, want 8 or more", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// Commit implements vip.Store. A commit that has begun is seen through, even when ctx ends
// meanwhile.
func (s *Store) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	r := &request{changes: changes, done: make(chan struct{})}
	s.mu.Lock()
	s.queue = append(s.queue, r)
	if len(s.queue) == s.callers {
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	select {
	case s.turn <- struct{}{}:
		s.gather()
		s.flush()
		<-s.turn
	case <-r.done:
	}
	<-r.done
	return r.revision, r.err
}

// gather waits until the callers that had a commit in the last write, or were queued behind it, are
// back with the next, for half as long as that write took at most: one write for all of them is
// cheaper than two. A single caller does not wait.
func (s *Store) gather() {
	s.mu.Lock()
	missing, patience := s.callers-len(s.queue), s.took/2
	select {
	case <-s.full: // of an earlier time
	default:
	}
	s.mu.Unlock()
	if missing <= 0 {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.full:
	case <-timer.C:
	}
}

// flush writes all that is queued in one transaction. A request that does not fit the stored
// revisions fails alone.
func (s *Store) flush() {
	s.mu.Lock()
	batch := s.queue
	s.queue = nil
	s.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	start := time.Now()
	err := s.db.Update(func(tx *bbolt.Tx) error {
		all := s.records(tx)
		for _, r := range batch {
			if r.err = all.check(r.changes); r.err != nil {
				continue
			}
			if err := all.apply(r); err != nil {
				return err
			}
		}
		return nil
	})
	s.mu.Lock()
	s.callers, s.took = len(batch)+len(s.queue), time.Since(start)
	s.mu.Unlock()
	for _, r := range batch {
		if err != nil && r.err == nil {
			r.err = fmt.Errorf("%s: %w", s.path, err)
		}
		close(r.done)
	}
}

func (r *records) check(changes []vip.Change) error {
	for _, c := range changes {
		if c.Revision == vip.AnyRevision {
			continue
		}
		have, err := revision(c.Key, r.get(c.Key))
		if err != nil {
			return err
		}
		if have != c.Revision {
			return fmt.Errorf("key %s: has revision %d, expected %d: %w", c.Key, have,
				c.Revision, vip.ErrRevision)
		}
	}
	return nil
}

func (r *records) apply(req *request) error {
	var err error
	if req.revision, err = r.main.NextSequence(); err != nil {
		return err
	}
	for _, c := range req.changes {
		var value []byte
		if c.Value != nil {
			value = append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(c.Value)),
				req.revision), c.Value...)
		}
		if err := r.put(c.Key, value); err != nil {
			return fmt.Errorf("key %s: %w", c.Key, err)
		}
	}
	return nil
}
