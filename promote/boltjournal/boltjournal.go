// Package boltjournal keeps a promote.Journal in a bbolt file: for one process on one machine. Every append is one
// transaction, synced to the disk before it returns.
//
// The bucket "promote.journal" holds one record an entry: the key is Seq as 8 bytes, big-endian, the value the entry as JSON.
// bbolt locks the file, so a second process cannot open it; a journal for several machines needs another implementation.
package boltjournal

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/sluice-deploy/sluice/promote"
)

// page limits the entries that one Read returns, and with them the time that it holds its transaction.
const page = 1000

var bucket = []byte("promote.journal")

// Journal is a promote.Journal in a bbolt file.
type Journal struct {
	db    *bbolt.DB
	owned bool

	mu     sync.Mutex
	grown  chan struct{} // closed and replaced by each append
	closed bool
}

var _ promote.Journal = (*Journal)(nil)

// Open opens the file at path, and creates it with permissions 0600 when it is missing. The caller closes the journal.
func Open(path string) (*Journal, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = fmt.Errorf("%w: another process has it open", err)
	}
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	j, err := New(db)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", path, err), db.Close())
	}
	j.owned = true
	return j, nil
}

// New returns the journal in db, beside whatever else is in it. A database takes one Journal at a time: Wait hears only of
// what the same Journal appended. The caller closes db, after the journal.
func New(db *bbolt.DB) (*Journal, error) {
	err := db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Journal{db: db, grown: make(chan struct{})}, nil
}

// Close ends every Wait and closes the file when Open opened it.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	close(j.grown)
	if !j.owned {
		return nil
	}
	return j.db.Close()
}

// Append implements promote.Journal.
func (j *Journal) Append(ctx context.Context, after uint64, e promote.Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.Seq != after+1 {
		return fmt.Errorf("append after entry %d: entry has number %d", after, e.Seq)
	}
	value, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("append after entry %d: %w", after, err)
	}
	err = j.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if last := last(b); last != after {
			return fmt.Errorf("%w: the last entry is %d", promote.ErrConflict, last)
		}
		b.FillPercent = 0.9 // keys only ever grow
		return b.Put(key(e.Seq), value)
	})
	if err != nil {
		return fmt.Errorf("append after entry %d: %w", after, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		close(j.grown)
		j.grown = make(chan struct{})
	}
	return nil
}

// Read implements promote.Journal. It returns at most 1000 entries.
func (j *Journal) Read(ctx context.Context, after uint64) ([]promote.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var entries []promote.Entry
	err := j.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, v := c.Seek(key(after + 1)); k != nil && len(entries) < page; k, v = c.Next() {
			want := after + uint64(len(entries)) + 1
			var e promote.Entry
			if err := json.Unmarshal(v, &e); err != nil {
				return fmt.Errorf("entry %d: %w", want, err)
			}
			if seq(k) != want || e.Seq != want {
				return fmt.Errorf("entry %d: found key %d with entry %d in its place", want, seq(k), e.Seq)
			}
			entries = append(entries, e)
		}
		return nil
	})
	return entries, err
}

// Wait implements promote.Journal. It returns an error when the journal is closed.
func (j *Journal) Wait(ctx context.Context, after uint64) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		j.mu.Lock()
		grown, closed := j.grown, j.closed
		j.mu.Unlock()
		if closed {
			return fmt.Errorf("wait for entry %d: %w", after+1, bolterrors.ErrDatabaseNotOpen)
		}
		var end uint64
		if err := j.db.View(func(tx *bbolt.Tx) error { end = last(tx.Bucket(bucket)); return nil }); err != nil {
			return fmt.Errorf("wait for entry %d: %w", after+1, err)
		}
		if end > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func last(b *bbolt.Bucket) uint64 {
	k, _ := b.Cursor().Last()
	return seq(k)
}

func key(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// seq is 0 for the key of no entry.
func seq(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}
