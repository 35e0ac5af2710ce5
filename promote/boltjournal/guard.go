package boltjournal

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/sluice-deploy/sluice/promote"
)

// guarded calls f and turns a panic of bbolt, or an access to memory that is not there, into an
// error that wraps promote.ErrDamaged: bbolt follows the numbers in the pages of its file without
// looking whether they lead out of it.
func guarded(f func() error) (err error) {
	before := debug.SetPanicOnFault(true) // of this goroutine
	defer debug.SetPanicOnFault(before)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a page of the file leads nowhere: %v: %w", r, promote.ErrDamaged)
		}
	}()
	return f()
}

// openFile opens the database at path. It closes the file of one whose damage stops bbolt, so that
// its lock ends.
func openFile(path string, options *bbolt.Options) (db *bbolt.DB, err error) {
	var file *os.File
	options.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		var err error
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	err = guarded(func() (err error) {
		db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	if errors.Is(err, promote.ErrDamaged) && file != nil {
		err = errors.Join(err, unlock(file), file.Close())
	}
	return db, err
}

// check reads the whole database and returns the inconsistencies of its pages. In a shared database
// it keeps writers out meanwhile, which bbolt's check wants.
func check(db *bbolt.DB, shared bool) (err error) {
	tx, err := db.Begin(shared)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	// Every page once, before bbolt's own check reads them in a goroutine without a guard.
	err = tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return walk(b) })
	if err != nil {
		return err
	}
	var errs []error
	for err := range tx.Check() {
		if len(errs) < mostWrong {
			errs = append(errs, fmt.Errorf("%w: %w", err, promote.ErrDamaged))
		}
	}
	return errors.Join(errs...)
}

// touched keeps the compiler from leaving the reads of walk out.
var touched atomic.Uint32

// mostWrong is how many inconsistencies of the pages check names.
const mostWrong = 10

// walk reads a bucket and those in it.
func walk(b *bbolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			if inner := b.Bucket(k); inner != nil {
				return walk(inner)
			}
		}
		var sum byte
		for _, text := range [][]byte{k, v} {
			for at := 0; at < len(text); at += 512 { // each page of a long value
				sum ^= text[at]
			}
		}
		touched.Store(uint32(sum))
		return nil
	})
}
