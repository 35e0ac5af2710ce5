// Package storetest holds every vip.Store to the contract of the interface. It imports nothing
// outside the standard library.
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

// Run runs the suite. open returns a new, empty store for each test, and closes it with t.Cleanup
// if it needs that.
func Run(t *testing.T, open func(t *testing.T) vip.Store) {
	for name, test := range map[string]func(*testing.T, vip.Store){
		"absent keys":                        absent,
		"list by prefix":                     list,
		"values survive as set":              values,
		"values stay as read":                valuesStay,
		"compare and set":                    compareAndSet,
		"all or nothing":                     allOrNothing,
		"revisions only grow":                revisions,
		"any revision":                       anyRevision,
		"delete":                             deletes,
		"the same value again":               sameValue,
		"too large or made whole":            large,
		"a cancelled call returns the cause": cancelled,
		"one winner":                         oneWinner,
		"disjoint writers":                   disjointWriters,
		"watch tells of every change":        watch,
		"allocator: claimers":                claimers,
		"allocator: lost answers":            lostAnswers,
		"allocator: one owner":               oneOwner,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// watch is for stores that are vip.Watchers.
func watch(t *testing.T, s vip.Store) {
	w, ok := s.(vip.Watcher)
	if !ok {
		return
	}
	ask := func(after uint64) uint64 {
		now, err := w.Watch(t.Context(), after, "addr/")
		if err != nil || now == 0 {
			t.Fatalf("watch after %d: got %d, %v", after, now, err)
		}
		return now
	}
	commit(t, s, set("addr/a", "1", 0))
	for _, change := range []vip.Change{set("addr/a", "2", 0), set("addr/b", "1", 0),
		{Key: "addr/a"}, {Key: "addr/b"}} {
		seen := make(chan uint64, 1)
		after := ask(0)
		go func() {
			for {
				now, err := w.Watch(t.Context(), after, "addr/")
				if err != nil || now != after {
					seen <- now // 0 after an error
					return
				}
			}
		}()
		change.Revision = vip.AnyRevision
		rev := commit(t, s, change)
		if now := <-seen; now == 0 || now == after {
			t.Errorf("change of %s at %d: watch after %d says %d", change.Key, rev, after, now)
		}
		if now := ask(after); now == after {
			t.Errorf("change of %s at %d: a watch that came later says nothing", change.Key, rev)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	failed := make(chan error, 1)
	after := ask(0)
	go func() {
		for {
			if _, err := w.Watch(ctx, after, "addr/"); err != nil {
				failed <- err
				return
			}
		}
	}()
	cancel(cause)
	if err := <-failed; !errors.Is(err, cause) {
		t.Errorf("a watch that is given up: got %v, want %v", err, cause)
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
	commit(t, s, set("addr/b", "2", 0), set("addr/a", "1", 0), set("addrx", "no", 0),
		set("other/a", "no", 0))
	for prefix, want := range map[string][]string{"addr/": {"addr/a", "addr/b"}, "none/": nil,
		"": {"addr/a", "addr/b", "addrx", "other/a"}} {
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
	rev := commit(t, s, vip.Change{Key: "addr/fd00::1", Value: binary},
		vip.Change{Key: "empty", Value: []byte{}})
	found := get(t, s, "addr/fd00::1", "empty")
	if !bytes.Equal(found[0].Value, binary) || found[0].Revision != rev {
		t.Errorf("value of %d bytes: got %d bytes at revision %d, want revision %d", len(binary),
			len(found[0].Value), found[0].Revision, rev)
	}
	if len(found[1].Value) != 0 || found[1].Revision != rev {
		t.Errorf("an empty value is a value: got %+v, want revision %d", found[1], rev)
	}
}

// valuesStay: a value that was read or written does not change with later changes of its key.
func valuesStay(t *testing.T, s vip.Store) {
	given := []byte("given")
	first := commit(t, s, vip.Change{Key: "addr/a", Value: given}, set("addr/b", "before", 0))
	listed, err := s.List(t.Context(), "addr/")
	if err != nil {
		t.Fatal(err)
	}
	got := get(t, s, "addr/a", "addr/b")
	commit(t, s, set("addr/a", "AFTER", first), vip.Change{Key: "addr/b", Revision: first},
		set("addr/c", "others", 0))
	if _, err := s.List(t.Context(), "addr/"); err != nil {
		t.Fatal(err)
	}
	get(t, s, "addr/a", "addr/b", "addr/c")
	for _, read := range [][]vip.Record{listed, got} {
		if len(read) != 2 || string(read[0].Value) != "given" ||
			string(read[1].Value) != "before" || string(given) != "given" {
			t.Errorf("the store has changed what it was given or has returned: %+v", read)
		}
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
	refuse(t, s, "one stale key of three", set("a", "2", rev), set("c", "2", 0),
		set("b", "2", rev+1000))
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

// sameValue: setting a key to its present value is a change, so that a commit at the earlier
// revision fails.
func sameValue(t *testing.T, s vip.Store) {
	first := commit(t, s, set("k", "1", 0))
	second := commit(t, s, set("k", "1", first))
	if second <= first {
		t.Errorf("revision %d after %d: want it to grow", second, first)
	}
	refuse(t, s, "the revision of before", set("k", "2", first))
	if r := get(t, s, "k")[0]; string(r.Value) != "1" || r.Revision != second {
		t.Errorf("got %q at %d, want %q at %d", r.Value, r.Revision, "1", second)
	}
}

// large: 64 changes fit into every store; a commit that does not fit changes nothing.
func large(t *testing.T, s vip.Store) {
	var changes []vip.Change
	for i := range 64 {
		changes = append(changes, set(fmt.Sprintf("k%03d", i), "1", 0))
	}
	commit(t, s, changes...)
	megabyte := string(bytes.Repeat([]byte("x"), 1<<20))
	_, err := s.Commit(t.Context(), set("small", "1", 0), set("large", megabyte, 0))
	found := get(t, s, "small", "large")
	switch {
	case err == nil && (found[0].Revision == 0 || string(found[1].Value) != megabyte):
		t.Error("a commit of a megabyte was not made whole")
	case err != nil && (!errors.Is(err, vip.ErrTooLarge) || found[0].Revision != 0 ||
		found[1].Revision != 0):
		t.Errorf("a commit of a megabyte: got %v, want it made or ErrTooLarge and nothing changed",
			err)
	}
}

func cancelled(t *testing.T, s vip.Store) {
	why := errors.New("the program ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := s.Commit(ctx, set("k", "1", 0)); !errors.Is(err, why) {
		t.Errorf("commit: got %v, want the cause of the context", err)
	}
	if _, err := s.Get(ctx, "k"); !errors.Is(err, why) {
		t.Errorf("get: got %v, want the cause of the context", err)
	}
	if _, err := s.List(ctx, ""); !errors.Is(err, why) {
		t.Errorf("list: got %v, want the cause of the context", err)
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

// disjointWriters: writers of different keys do not disturb each other, and no two commits share a
// revision.
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

func allocator(t *testing.T, s vip.Store) *vip.Allocator {
	t.Helper()
	return configured(t, s, vip.Config{})
}

func configured(t *testing.T, s vip.Store, cfg vip.Config) *vip.Allocator {
	t.Helper()
	p, err := vip.ParsePool("p", "10.0.0.0/26")
	if err != nil {
		t.Fatal(err)
	}
	p.CoolDown = -1
	cfg.Store, cfg.Pools = s, []vip.Pool{p}
	a, err := vip.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// claimers: more claimers than addresses, on two allocators; no address has two owners, and a third
// allocator sees the same leases.
func claimers(t *testing.T, s vip.Store) {
	both := []*vip.Allocator{allocator(t, s), allocator(t, s)}
	var mu sync.Mutex
	holder := map[string]string{}
	var wg sync.WaitGroup
	for c := range 80 {
		wg.Go(func() {
			task := fmt.Sprint("T", c)
			l, err := both[c%2].Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task}})
			if errors.Is(err, vip.ErrExhausted) {
				return
			}
			if err != nil {
				t.Errorf("task %s: %v", task, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, ok := holder[l.Addr.String()]; ok {
				t.Errorf("%s is given to %s and %s", l.Addr, task, other)
			}
			holder[l.Addr.String()] = task
		})
	}
	wg.Wait()
	if len(holder) != 62 {
		t.Errorf("%d addresses are given, want all 62", len(holder))
	}
	for _, l := range allocator(t, s).List(vip.Query{}) {
		if holder[l.Addr.String()] != l.Owner.Task {
			t.Errorf("%s: the store has task %s, given was %s", l.Addr, l.Owner.Task,
				holder[l.Addr.String()])
		}
	}
}

// oneOwner: a task that asks two allocators at once has one lease; when it has released that, the
// allocator that it asks next knows.
func oneOwner(t *testing.T, s vip.Store) {
	both := []*vip.Allocator{allocator(t, vip.Shared(s)), allocator(t, vip.Shared(s))}
	for round := range 3 {
		var mu sync.Mutex
		leases := map[string]vip.Lease{}
		var wg sync.WaitGroup
		for c := range 40 {
			wg.Go(func() {
				task := fmt.Sprint("T", c/4)
				l, err := both[c%2].Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task}})
				mu.Lock()
				defer mu.Unlock()
				if other, ok := leases[task]; err != nil || ok && other.ID != l.ID {
					t.Errorf("round %d: task %s has %s and gets %s, %v", round, task, other.ID,
						l.ID, err)
				}
				leases[task] = l
			})
		}
		wg.Wait()
		for _, l := range leases {
			if _, err := both[round%2].Release(t.Context(), l.ID, ""); err != nil {
				t.Errorf("round %d: release %s: %v", round, l.ID, err)
			}
		}
	}
}

// forgetful makes commits and loses some of the answers, or fails before it makes them.
type forgetful struct {
	vip.Store
	mu    sync.Mutex
	calls int
}

func (f *forgetful) Exclusive() bool {
	s, ok := f.Store.(vip.ExclusiveStore)
	return ok && s.Exclusive()
}

func (f *forgetful) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	f.mu.Lock()
	f.calls++
	call := f.calls
	f.mu.Unlock()
	if call%7 == 3 {
		return 0, errors.New("connection refused")
	}
	rev, err := f.Store.Commit(ctx, changes...)
	if call%5 == 2 && err == nil {
		return 0, errors.New("connection reset")
	}
	return rev, err
}

// lostAnswers: owners that ask until they get an answer have one address each, although the store
// lost answers.
func lostAnswers(t *testing.T, s vip.Store) {
	p, err := vip.ParsePool("p", "10.0.0.0/26")
	if err != nil {
		t.Fatal(err)
	}
	f := &forgetful{Store: s}
	var a *vip.Allocator
	for a == nil {
		a, _ = vip.Open(t.Context(), vip.Config{Store: f, Pools: []vip.Pool{p}})
	}
	var wg sync.WaitGroup
	for c := range 30 {
		wg.Go(func() {
			for range 100 {
				_, err := a.Allocate(t.Context(),
					vip.Request{Owner: vip.Owner{Task: fmt.Sprint("T", c)}})
				if err == nil {
					return
				}
				if !errors.Is(err, vip.ErrUncertain) {
					t.Errorf("task T%d: %v", c, err)
					return
				}
			}
			t.Errorf("task T%d: no answer in 100 attempts", c)
		})
	}
	wg.Wait()
	tasks := map[string]bool{}
	for _, l := range allocator(t, s).List(vip.Query{States: []vip.State{vip.Leased}}) {
		if tasks[l.Owner.Task] {
			t.Errorf("task %s has two addresses", l.Owner.Task)
		}
		tasks[l.Owner.Task] = true
	}
	if len(tasks) != 30 {
		t.Errorf("%d of 30 tasks have an address", len(tasks))
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
