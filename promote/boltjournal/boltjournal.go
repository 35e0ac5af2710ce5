// Package boltjournal keeps a promote.Journal in a bbolt file: for one process on one machine.
// Every append is one transaction, synced to the disk before it returns. The room of entries that
// Trim has removed is used again; the file does not get smaller.
//
// The bucket "promote.journal" holds one record an entry: the key is At as 8 bytes, big-endian, the
// value promote.Entry.Record. At counts from 1, without a gap where nothing was trimmed. The bucket "promote.journal.clusters"
// has for each entry the cluster, a zero byte and Seq as 8 bytes, and its At. bbolt locks the file,
// so a second process cannot open it; a journal for several machines needs another implementation.
package boltjournal

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/promote"
)

// page limits the entries that one Read returns, and with them the time that it holds its
// transaction.
const page = 1000

var (
	bucket = []byte("promote.journal")
	index  = []byte("promote.journal.clusters")
)

// Journal is a promote.Journal in a bbolt file.
type Journal struct {
	db      *bbolt.DB
	owned   bool
	now     func() time.Time
	observe func(op string, took time.Duration, err error) // or nil

	mu     sync.Mutex
	grown  chan struct{} // closed and replaced by each append
	closed bool
}

var (
	_ promote.Journal = (*Journal)(nil)
	_ promote.Trimmer = (*Journal)(nil)
)

// Config says where a [Journal] is. Exactly one of Path and DB is required.
type Config struct {
	// Path is the file. Open creates it with permissions 0600 when it is missing, and Close closes
	// it.
	Path string
	// DB is an open database; the journal shares it with other buckets. The caller closes it, after
	// the journal. A database takes one Journal at a time: Wait hears only of entries that the same
	// Journal appended.
	DB *bbolt.DB
	// Now is the clock by which Observe gets its durations. The default is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of every Append, Read, Wait and Trim with its name in
	// lower case, how long it took, and its error. It must be quick and safe for concurrent use.
	Observe func(op string, took time.Duration, err error)
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
// the journal. bbolt cannot give up when ctx ends: Open looks at ctx at its beginning. It reads the
// whole database and checks its pages: a file that is damaged, also in buckets of others, or cut
// off is an error that wraps promote.ErrDamaged and says where; a copy of the last good state has
// to take its place.
func Open(ctx context.Context, cfg Config) (*Journal, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	j := &Journal{db: cfg.DB, owned: cfg.DB == nil, now: cfg.Now, observe: cfg.Observe,
		grown: make(chan struct{})}
	if j.now == nil {
		j.now = time.Now
	}
	if j.owned {
		db, err := openFile(cfg.Path,
			&bbolt.Options{Timeout: cmp.Or(cfg.LockTimeout, defaultLockTimeout)})
		if errors.Is(err, bolterrors.ErrTimeout) {
			err = fmt.Errorf("%w: another process has it open", err)
		}
		if err != nil {
			return nil, fmt.Errorf("journal %s: %w", cfg.Path, err)
		}
		j.db = db
	}
	err := guarded(func() error {
		if err := check(j.db, !j.owned); err != nil {
			return err
		}
		prepared := false
		err := j.db.View(func(tx *bbolt.Tx) error {
			prepared = tx.Bucket(bucket) != nil && tx.Bucket(index) != nil
			return nil
		})
		if err != nil || prepared { // nothing to sync
			return err
		}
		return j.db.Update(prepare)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", j.db.Path(), err), j.Close())
	}
	return j, nil
}

// watched returns the function to defer that reports a call to Config.Observe.
func (j *Journal) watched(op string, err *error) func() {
	if j.observe == nil {
		return func() {}
	}
	start := j.now()
	return func() { j.observe(op, j.now().Sub(start), *err) }
}

func (j *Journal) view(f func(*bbolt.Tx) error) error {
	return guarded(func() error { return j.db.View(f) })
}

func (j *Journal) update(f func(*bbolt.Tx) error) error {
	return atomicfile.Room(guarded(func() error { return j.db.Update(f) }))
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

// Append implements promote.Journal. The file has room for every entry.
func (j *Journal) Append(ctx context.Context, e promote.Entry) (at uint64, err error) {
	defer j.watched("append", &err)()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	value, err := e.Record()
	if err != nil {
		return 0, fmt.Errorf("append entry %d of cluster %q: %w", e.Seq, e.Cluster, err)
	}
	err = j.update(func(tx *bbolt.Tx) error {
		b, places := tx.Bucket(bucket), tx.Bucket(index)
		if head := lastOf(places, e.Cluster); e.Seq != head+1 {
			return fmt.Errorf("its last one is %d: %w", head, promote.ErrConflict)
		}
		at = last(b) + 1
		b.FillPercent = 0.9 // keys only ever grow
		if err := b.Put(key(at), value); err != nil {
			return err
		}
		return places.Put(place(e.Cluster, e.Seq), key(at))
	})
	if err != nil {
		return 0, fmt.Errorf("append entry %d of cluster %q: %w", e.Seq, e.Cluster, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		close(j.grown)
		j.grown = make(chan struct{})
	}
	return at, nil
}

// Read implements promote.Journal. It returns at most 1000 entries.
func (j *Journal) Read(ctx context.Context, after uint64) (entries []promote.Entry, err error) {
	defer j.watched("read", &err)()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	err = j.view(func(tx *bbolt.Tx) error {
		entries = nil
		gap, next := false, after+1
		c := tx.Bucket(bucket).Cursor()
		for k, v := c.Seek(key(next)); k != nil && len(entries) < page; k, v = c.Next() {
			at := number(k)
			if at < next {
				return fmt.Errorf("found key %x where position %d should be: %w", k, next,
					promote.ErrDamaged)
			}
			gap, next = gap || at > next, at+1
			entries = append(entries, entry(tx.Bucket(index), k, v))
		}
		if gap {
			return trimmed(tx, after, next)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("journal %s: read after position %d: %w", j.db.Path(), after, err)
	}
	return entries, nil
}

// trimmed returns nil when all entries between the places that are not there were trimmed: then the
// index does not have them either.
func trimmed(tx *bbolt.Tx, after, before uint64) error {
	b, c := tx.Bucket(bucket), tx.Bucket(index).Cursor()
	for p, k := c.First(); p != nil; p, k = c.Next() {
		if at := number(k); at > after && at < before && b.Get(k) == nil {
			return fmt.Errorf("position %d has no record: %w", at, promote.ErrDamaged)
		}
	}
	return nil
}

// Trim implements promote.Trimmer, in one transaction.
func (j *Journal) Trim(ctx context.Context, cluster string, through uint64) (err error) {
	defer j.watched("trim", &err)()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err = j.update(func(tx *bbolt.Tx) error {
		b, places := tx.Bucket(bucket), tx.Bucket(index)
		if head := lastOf(places, cluster); through >= head {
			return fmt.Errorf("its last one is %d: %w", head, promote.ErrInvalid)
		}
		var old [][]byte
		c := places.Cursor()
		for p, at := c.Seek(place(cluster, 0)); p != nil &&
			bytes.Compare(p, place(cluster, through)) <= 0; p, at = c.Next() {
			if err := b.Delete(at); err != nil {
				return err
			}
			old = append(old, bytes.Clone(p))
		}
		for _, p := range old {
			if err := places.Delete(p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("journal %s: trim cluster %q through entry %d: %w", j.db.Path(), cluster,
			through, err)
	}
	return nil
}

// entry returns the entry of a record, or where that is not the one which the index has at its
// place, the cluster and the number that the index says, with a Damage.
func entry(places *bbolt.Bucket, k, record []byte) promote.Entry {
	e, err := promote.ParseRecord(record)
	if err == nil && bytes.Equal(places.Get(place(e.Cluster, e.Seq)), k) {
		e.At = number(k)
		return e
	}
	damaged := promote.Entry{At: number(k), Damage: "the record is not the one that was written"}
	if err != nil {
		damaged.Damage = err.Error()
	}
	c := places.Cursor()
	for p, at := c.First(); p != nil; p, at = c.Next() {
		if bytes.Equal(at, k) && len(p) > 8 {
			damaged.Cluster, damaged.Seq = string(p[:len(p)-9]), number(p[len(p)-8:])
		}
	}
	return damaged
}

// Wait implements promote.Journal. It returns an error when the journal is closed.
func (j *Journal) Wait(ctx context.Context, after uint64) (err error) {
	defer j.watched("wait", &err)()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		j.mu.Lock()
		grown, closed := j.grown, j.closed
		j.mu.Unlock()
		if closed {
			return fmt.Errorf("wait for an entry after position %d: %w", after,
				bolterrors.ErrDatabaseNotOpen)
		}
		var end uint64
		if err := j.view(func(tx *bbolt.Tx) error {
			end = last(tx.Bucket(bucket))
			return nil
		}); err != nil {
			return fmt.Errorf("wait for an entry after position %d: %w", after, err)
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

// last is the place of the last entry.
func last(b *bbolt.Bucket) uint64 {
	k, _ := b.Cursor().Last()
	return number(k)
}

// lastOf is the Seq of a cluster's last entry.
func lastOf(places *bbolt.Bucket, cluster string) uint64 {
	c := places.Cursor()
	k, _ := c.Seek(place(cluster, math.MaxUint64))
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	if len(k) != len(cluster)+9 || !bytes.HasPrefix(k, append([]byte(cluster), 0)) {
		return 0
	}
	return number(k[len(cluster)+1:])
}

func key(at uint64) []byte { return binary.BigEndian.AppendUint64(nil, at) }

// place is the key of the index: the cluster, a zero byte, and the Seq.
func place(cluster string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(cluster), 0), seq)
}

// number is 0 for the key of no entry.
func number(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}

// prepare makes the buckets, and the index of a file that an earlier program has written.
func prepare(tx *bbolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists(bucket)
	if err != nil || tx.Bucket(index) != nil {
		return err
	}
	places, err := tx.CreateBucket(index)
	if err != nil {
		return err
	}
	return b.ForEach(func(k, v []byte) error {
		e, err := promote.ParseRecord(v)
		if err == nil && e.Seq != number(k) {
			err = fmt.Errorf("it has the number %d: %w", e.Seq, promote.ErrDamaged)
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", number(k), err)
		}
		return places.Put(place(e.Cluster, e.Seq), k)
	})
}
