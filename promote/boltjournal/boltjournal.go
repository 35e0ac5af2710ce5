// Package boltjournal keeps a promote.Journal in a bbolt file: for one process on one machine.
// Every append is one transaction, synced to the disk before it returns.
//
// The bucket "promote.journal" holds one record an entry: the key is Seq as 8 bytes, big-endian,
// the value the entry as JSON. bbolt locks the file, so a second process cannot open it; a journal
// for several machines needs another implementation.
package boltjournal

import (
	"cmp"
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

// page limits the entries that one Read returns, and with them the time that it holds its
// transaction.
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

// Config says where a [Journal] is. Exactly one of Path and DB is required.
type Config struct {
	// Path is the file. Open creates it with permissions 0600 when it is missing, and Close closes
	// it.
	Path string
	// DB is an open database; the journal shares it with other buckets. The caller closes it, after
	// the journal. A database takes one Journal at a time: Wait hears only of entries that the same
	// Journal appended.
	DB *bbolt.DB
	// LockTimeout is how long Open waits for another process to close the file at Path. The default
	// is one second.
	LockTimeout time.Duration
}

func (c Config) validate() error {
	var errs []error
	if (c.Path == "") == (c.DB == nil) {
		errs = append(errs,
			fmt.Errorf("boltjournal: Config.Path, Config.DB: want exactly one of them: %w",
				promote.ErrInvalid))
	}
	if c.LockTimeout < 0 {
		errs = append(errs,
			fmt.Errorf("boltjournal: Config.LockTimeout: %s: want 0 (default %s) or more: %w",
				c.LockTimeout, defaultLockTimeout, promote.ErrInvalid))
	}
	return errors.Join(errs...)
}

const defaultLockTimeout = time.Second

// Open opens the journal that cfg names, or returns every problem of cfg at once. The caller closes
// the journal. bbolt cannot give up when ctx ends: Open looks at ctx at its beginning.
func Open(ctx context.Context, cfg Config) (*Journal, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	j := &Journal{db: cfg.DB, owned: cfg.DB == nil, grown: make(chan struct{})}
	if j.owned {
		db, err := bbolt.Open(cfg.Path, 0o600,
			&bbolt.Options{Timeout: cmp.Or(cfg.LockTimeout, defaultLockTimeout)})
		if errors.Is(err, bolterrors.ErrTimeout) {
			err = fmt.Errorf("%w: another process has it open", err)
		}
		if err != nil {
			return nil, fmt.Errorf("journal %s: %w", cfg.Path, err)
		}
		j.db = db
	}
	err := j.db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", j.db.Path(), err), j.Close())
	}
	return j, nil
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
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e.Seq != after+1 {
		return fmt.Errorf("append after entry %d: entry has number %d: %w", after, e.Seq,
			promote.ErrInvalid)
	}
	value, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("append after entry %d: %w", after, err)
	}
	err = j.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if last := last(b); last != after {
			return fmt.Errorf("the last entry is %d: %w", last, promote.ErrConflict)
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
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
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
				return fmt.Errorf("entry %d: found key %d with entry %d in its place", want, seq(k),
					e.Seq)
			}
			entries = append(entries, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// Wait implements promote.Journal. It returns an error when the journal is closed.
func (j *Journal) Wait(ctx context.Context, after uint64) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		j.mu.Lock()
		grown, closed := j.grown, j.closed
		j.mu.Unlock()
		if closed {
			return fmt.Errorf("wait for entry %d: %w", after+1, bolterrors.ErrDatabaseNotOpen)
		}
		var end uint64
		if err := j.db.View(func(tx *bbolt.Tx) error {
			end = last(tx.Bucket(bucket))
			return nil
		}); err != nil {
			return fmt.Errorf("wait for entry %d: %w", after+1, err)
		}
		if end > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
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
