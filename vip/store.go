package vip

import (
	"context"
	"errors"
	"math"
)

// Store keeps the records of an allocator. Implementations are MemStore, boltstore, consulstore and
// others that pass storetest.Run. All methods are safe for concurrent use. When ctx is done they
// return an error that is context.Cause(ctx) by errors.Is.
type Store interface {
	// List returns every record whose key begins with prefix, in order of keys.
	List(ctx context.Context, prefix string) ([]Record, error)
	// Get returns one record for each key, in the order of the keys; an absent one has Revision 0
	// and no value.
	Get(ctx context.Context, keys ...string) ([]Record, error)
	// Commit makes all changes or none, and returns the revision that each changed key now has.
	// Revisions grow from commit to commit and are never used twice, not even after a delete or a
	// restart. When a key does not have the revision that its change expects, Commit changes
	// nothing and returns ErrRevision; when the changes are more than the store takes at once, it
	// changes nothing and returns ErrTooLarge. After any other error the commit may have been made,
	// or may still be made later, unless ctx was done before the call. A key that is set to the
	// value that it has is changed, too: a caller that expects its earlier revision gets
	// ErrRevision.
	//
	// A key occurs in one change only. The store may keep the Value slices; neither it nor the
	// caller changes them. The slice of changes is the caller's again after nil, ErrRevision and
	// ErrTooLarge.
	Commit(ctx context.Context, changes ...Change) (revision uint64, err error)
}

// ExclusiveStore is a Store that may be one Allocator's alone, as MemStore and boltstore are. Every
// other Store is a shared one: Open expects other allocators to use it at the same time, in other
// processes or on other machines. Then a task is one owner for all of them, which costs an
// allocation one or two reads, and each of them sees the changes of the others: see Config.Refresh.
// Their clocks agree within Config.Grace. A type that wraps an ExclusiveStore in order to count
// calls, say, has the method, too, or is a shared store.
type ExclusiveStore interface {
	Store
	// Exclusive reports whether one Allocator at a time uses the store. The answer does not change.
	// If two do all the same, they never give one address twice and fence each other's late calls,
	// but a task may get a lease from each.
	Exclusive() bool
}

// Shared returns s as a store for several allocators of one process: an ExclusiveStore is none any
// more, a Watcher still is one.
func Shared(s Store) Store {
	if w, ok := s.(Watcher); ok {
		return sharedWatcher{w}
	}
	return sharedStore{s}
}

// sharedStore and sharedWatcher hide the method Exclusive.
type (
	sharedStore   struct{ Store }
	sharedWatcher struct{ Watcher }
)

// isShared reports whether other allocators may use the store.
func isShared(s Store) bool {
	e, ok := s.(ExclusiveStore)
	return !ok || !e.Exclusive()
}

// Watcher is a Store that can be waited for. Run of an allocator with a shared store reads the
// addresses when a Watcher says so, in place of every Config.Refresh. All methods are safe for
// concurrent use.
type Watcher interface {
	Store
	// Watch returns when a record whose key begins with prefix may have changed since it returned
	// after; at once for 0, and after a minute or so in any case. The result is the after of the
	// next call: after itself when nothing has changed, never 0, and less than after when the store
	// was restored. When ctx is done it returns an error that is context.Cause(ctx) by errors.Is.
	Watch(ctx context.Context, after uint64, prefix string) (uint64, error)
}

// ErrRevision is returned by Store.Commit when a key has been changed by another client.
var ErrRevision = errors.New("revision conflict")

// ErrTooLarge is returned by Store.Commit when it cannot take so many changes, or so long values,
// at once.
var ErrTooLarge = errors.New("too large")

// AnyRevision as Change.Revision makes the change at any revision of the key.
const AnyRevision uint64 = math.MaxUint64

// Record is one key with its value. Neither the caller nor the store changes Value.
type Record struct {
	Key      string
	Value    []byte
	Revision uint64 // of the commit that changed it last; 0 when absent
}

// Change sets or deletes one key.
type Change struct {
	Key      string
	Value    []byte // nil deletes
	Revision uint64 // that the key must have; 0: it must be absent; AnyRevision: not checked
}
