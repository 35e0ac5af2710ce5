// Package storetest holds every vip.Store to the contract of the interface. It imports nothing outside the standard library.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-deploy/sluice/vip"
)

// Run runs the suite. open returns a new, empty store for each test, and closes it with t.Cleanup if it needs that.
func Run(t *testing.T, open func(t *testing.T) vip.Store) {
	for name, test := range map[string]func(*testing.T, vip.Store){
		"absent keys":           absent,
		"list by prefix":        list,
		"values survive as set": values,
		"compare and set":       compareAndSet,
		"all or nothing":        allOrNothing,
		"revisions only grow":   revisions,
		"any revision":          anyRevision,
		"delete":                deletes,
		"cancelled context":     cancelled,
		"one winner":            oneWinner,
		"disjoint writers":      disjointWriters,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func absent(t *testing.T, s vip.Store) {
	found := get(t, s, "a", "b")
	for i, key := range []string{"a", "b"} {
		if found[i].Key != key || found[i].Revision != 0 || len(found[i].Value) != 0 {
			t.Errorf("absent key %q: got %+v", key, found[i])
		}
	}
	if records, err := s.List(t.Context(), ""); err != nil || len(records) != 0 {
		t.Errorf("list of an empty store: got %v, %v", records, err)
	}
}

func list(t *testing.T, s vip.Store) {
	commit(t, s, set("addr/b", "2", 0), set("addr/a", "1", 0), set("addrx", "no", 0), set("other/a", "no", 0))
	for prefix, want := range map[string][]string{"addr/": {"addr/a", "addr/b"}, "none/": nil, "": {"addr/a", "addr/b", "addrx", "other/a"}} {
		records, err := s.List(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range records {
			got = append(got, r.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("list %q: got %q, want %q", prefix, got, want)
		}
	}
}

func values(t *testing.T, s vip.Store) {
	binary := make([]byte, 4096)
	for i := range binary {
		binary[i] = byte(i)
	}
	rev := commit(t, s, vip.Change{Key: "addr/fd00::1", Value: binary}, vip.Change{Key: "empty", Value: []byte{}})
	found := get(t, s, "addr/fd00::1", "empty")
	if !bytes.Equal(found[0].Value, binary) || found[0].Revision != rev {
		t.Errorf("value of %d bytes: got %d bytes at revision %d, want revision %d", len(binary), len(found[0].Value), found[0].Revision, rev)
	}
	if len(found[1].Value) != 0 || found[1].Revision != rev {
		t.Errorf("an empty value is a value: got %+v, want revision %d", found[1], rev)
	}
}

func compareAndSet(t *testing.T, s vip.Store) {
	first := commit(t, s, set("k", "1", 0))
	refuse(t, s, "a key that is there", set("k", "2", 0))
	refuse(t, s, "a revision that never was", set("k", "2", first+1000))
	second := commit(t, s, set("k", "2", first))
	refuse(t, s, "an old revision", set("k", "3", first))
	refuse(t, s, "a key that is absent", set("absent", "1", second))
	if r := get(t, s, "k")[0]; string(r.Value) != "2" || r.Revision != second {
		t.Errorf("got %q at %d, want %q at %d", r.Value, r.Revision, "2", second)
	}
}

func allOrNothing(t *testing.T, s vip.Store) {
	rev := commit(t, s, set("a", "1", 0), set("b", "1", 0))
	for _, r := range get(t, s, "a", "b") {
		if r.Revision != rev {
			t.Errorf("key %s: revision %d, want the commit's %d", r.Key, r.Revision, rev)
		}
	}
	refuse(t, s, "one stale key of three", set("a", "2", rev), set("c", "2", 0), set("b", "2", rev+1000))
	found := get(t, s, "a", "b", "c")
	if string(found[0].Value) != "1" || string(found[1].Value) != "1" || found[2].Revision != 0 {
		t.Errorf("a refused commit changed something: %+v", found)
	}
}

func revisions(t *testing.T, s vip.Store) {
	var last uint64
	for i := range 20 {
		rev := commit(t, s, set(fmt.Sprint("k", i%3), fmt.Sprint(i), vip.AnyRevision))
		if rev <= last {
			t.Fatalf("commit %d has revision %d after %d", i, rev, last)
		}
		last = rev
	}
}

func anyRevision(t *testing.T, s vip.Store) {
	commit(t, s, set("k", "1", vip.AnyRevision))
	commit(t, s, set("k", "2", vip.AnyRevision))
	if r := get(t, s, "k")[0]; string(r.Value) != "2" {
		t.Errorf("got %q, want %q", r.Value, "2")
	}
	commit(t, s, vip.Change{Key: "absent", Revision: vip.AnyRevision})
}

func deletes(t *testing.T, s vip.Store) {
	first := commit(t, s, set("k", "1", 0))
	refuse(t, s, "delete at an old revision", vip.Change{Key: "k", Revision: first + 1000})
	gone := commit(t, s, vip.Change{Key: "k", Revision: first})
	if r := get(t, s, "k")[0]; r.Revision != 0 {
		t.Errorf("deleted key is there: %+v", r)
	}
	again := commit(t, s, set("k", "1", 0))
	if first >= gone || gone >= again {
		t.Errorf("revisions %d, %d, %d: want them to grow over a delete", first, gone, again)
	}
	refuse(t, s, "the revision of before the delete", set("k", "2", first))
}

func cancelled(t *testing.T, s vip.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Commit(ctx, set("k", "1", 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: got %v, want context canceled", err)
	}
	if _, err := s.Get(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("get: got %v, want context canceled", err)
	}
	if _, err := s.List(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("list: got %v, want context canceled", err)
	}
	if r := get(t, s, "k")[0]; r.Revision != 0 {
		t.Errorf("a cancelled commit was made: %+v", r)
	}
}

// oneWinner: many writers want the same two keys at the same revision.
func oneWinner(t *testing.T, s vip.Store) {
	for round := range 10 {
		a, b := fmt.Sprint("a", round), fmt.Sprint("b", round)
		winners := make(chan string, 16)
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				me := fmt.Sprint(w)
				_, err := s.Commit(t.Context(), set(a, me, 0), set(b, me, 0))
				switch {
				case err == nil:
					winners <- me
				case !errors.Is(err, vip.ErrRevision):
					t.Errorf("writer %s: got %v, want ErrRevision", me, err)
				}
			})
		}
		wg.Wait()
		close(winners)
		if len(winners) != 1 {
			t.Fatalf("round %d: %d winners, want 1", round, len(winners))
		}
		winner := <-winners
		for _, r := range get(t, s, a, b) {
			if string(r.Value) != winner {
				t.Errorf("key %s: got %q, want the winner's %q", r.Key, r.Value, winner)
			}
		}
	}
}

// disjointWriters: writers of different keys do not disturb each other, and no two commits share a revision.
func disjointWriters(t *testing.T, s vip.Store) {
	const writers, rounds = 16, 25
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var rev uint64
			for i := range rounds {
				next, err := s.Commit(t.Context(), set(fmt.Sprint("w", w), fmt.Sprint(i), rev))
				if err != nil || next <= rev {
					t.Errorf("writer %d round %d: revision %d after %d, %v", w, i, next, rev, err)
					return
				}
				rev = next
				mu.Lock()
				if seen[rev] {
					t.Errorf("revision %d was used twice", rev)
				}
				seen[rev] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for w := range writers {
		if r := get(t, s, fmt.Sprint("w", w))[0]; string(r.Value) != fmt.Sprint(rounds-1) {
			t.Errorf("writer %d: last value %q, want %q", w, r.Value, fmt.Sprint(rounds-1))
		}
	}
}

func set(key, value string, revision uint64) vip.Change {
	return vip.Change{Key: key, Value: []byte(value), Revision: revision}
}

func commit(t *testing.T, s vip.Store, changes ...vip.Change) uint64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), changes...)
	if err != nil || rev == 0 {
		t.Fatalf("commit: got revision %d, %v", rev, err)
	}
	return rev
}

func refuse(t *testing.T, s vip.Store, what string, changes ...vip.Change) {
	t.Helper()
	if _, err := s.Commit(t.Context(), changes...); !errors.Is(err, vip.ErrRevision) {
		t.Errorf("%s: got %v, want ErrRevision", what, err)
	}
}

func get(t *testing.T, s vip.Store, keys ...string) []vip.Record {
	t.Helper()
	found, err := s.Get(t.Context(), keys...)
	if err != nil || len(found) != len(keys) {
		t.Fatalf("get %q: got %d records, %v", keys, len(found), err)
	}
	return found
}
