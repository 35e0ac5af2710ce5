// Package journaltest holds a promote.Journal to its contract.
package journaltest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// Run runs the suite. open returns a new, empty journal each time, and cleans up after itself with
// t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) promote.Journal) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, promote.Journal){
		"read returns what was appended":            appendAndRead,
		"append elsewhere than at the end":          compareAndSet,
		"each cluster has an end of its own":        clusters,
		"many entries":                              manyEntries,
		"each place has one winner":                 concurrentAppends,
		"clusters do not stand in each other's way": concurrentClusters,
		"a reader misses no entry":                  follow,
		"append wakes every wait":                   wait,
		"cancelled calls return the cause":          cancelledContext,
		"a deadline that has passed is the cause":   passedDeadline,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// sample returns an entry with every field set, so that a field that an implementation loses is
// seen.
func sample(seq uint64) promote.Entry { return sampleOf("hello_web", seq) }

func sampleOf(cluster string, seq uint64) promote.Entry {
	e := promote.Entry{Seq: seq, Change: seq, Generation: seq, Needs: 1,
		Facts: map[string]string{"ticket": fmt.Sprint("<", seq, ">")}}
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if f := v.Field(i); f.Kind() == reflect.String && name != "Damage" && name != "Chain" {
			f.SetString(fmt.Sprintf("%s %d <&\"世界\n>", name, seq))
		}
	}
	e.Target = promote.Target{Cluster: cluster, Environment: "test", Task: fmt.Sprint("task", seq)}
	e.Time = time.Date(2026, 1, 2, 3, 4, 5, int(seq), time.UTC)
	e.Chain = fmt.Sprintf("%064x", seq)
	return e
}

// add appends entries to the journal, each as the next one of its cluster.
func add(t *testing.T, j promote.Journal, entries ...promote.Entry) {
	t.Helper()
	for _, e := range entries {
		if _, err := j.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

func appendAndRead(t *testing.T, j promote.Journal) {
	if got := readAll(t, j, 0); len(got) != 0 {
		t.Fatalf("a new journal has entries: %v", got)
	}
	places := []uint64{0}
	for seq := range uint64(5) {
		at, err := j.Append(t.Context(), sample(seq+1))
		if err != nil {
			t.Fatal(err)
		}
		if last := places[len(places)-1]; at <= last {
			t.Fatalf("entry %d is at %d, the one before it at %d", seq+1, at, last)
		}
		places = append(places, at)
	}
	for n, after := range append(places, places[5]+1) {
		got := readAll(t, j, after)
		if want := max(0, 5-n); len(got) != want {
			t.Fatalf("read after %d: got %d entries, want %d", after, len(got), want)
		}
		for i, e := range got {
			want := sample(uint64(n + i + 1))
			want.At = places[n+i+1]
			if !reflect.DeepEqual(e, want) {
				t.Errorf("read after %d: got %+v, want %+v", after, e, want)
			}
		}
	}
	owned, err := j.Read(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	owned[0].Actor = "changed by the reader"
	if got := readAll(t, j, 0)[0].Actor; got != sample(1).Actor {
		t.Errorf("a reader changed the journal: actor is %q", got)
	}
}

func compareAndSet(t *testing.T, j promote.Journal) {
	add(t, j, sample(1))
	for _, seq := range []uint64{0, 1, 3, 100} {
		if _, err := j.Append(t.Context(), sample(seq)); !errors.Is(err, promote.ErrConflict) {
			t.Errorf("append of entry %d after entry 1: got %v, want ErrConflict", seq, err)
		}
	}
	if _, err := j.Append(t.Context(), sampleOf("other", 2)); !errors.Is(err,
		promote.ErrConflict) {
		t.Errorf("append of entry 2 to a cluster without entries: got %v, want ErrConflict", err)
	}
	if got := readAll(t, j, 0); len(got) != 1 {
		t.Errorf("refused appends left %d entries, want 1", len(got))
	}
}

// clusters have the empty name among them, and names of an older grammar.
func clusters(t *testing.T, j promote.Journal) {
	names := []string{"web", "", "web_2", "Web", "web/e", "-", "世界", "a b%2Fc"}
	for seq := range uint64(3) {
		for _, name := range names {
			add(t, j, sampleOf(name, seq+1))
		}
	}
	for i, e := range readAll(t, j, 0) {
		if want := sampleOf(names[i%len(names)], uint64(i/len(names)+1)); e.Cluster != want.Cluster ||
			e.Seq != want.Seq {
			t.Errorf("place %d: got entry %d of %q, want entry %d of %q", i, e.Seq, e.Cluster,
				want.Seq, want.Cluster)
		}
	}
}

func manyEntries(t *testing.T, j promote.Journal) {
	const n = 300
	for seq := range uint64(n) {
		add(t, j, sample(seq+1))
	}
	if got := readAll(t, j, 0); len(got) != n {
		t.Errorf("got %d entries, want %d", len(got), n)
	}
}

// concurrentAppends lets writers race for every place: each place has one winner, and each success
// is there to be read.
func concurrentAppends(t *testing.T, j promote.Journal) {
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var seq, at uint64
			for done := 0; done < each; {
				e := sample(seq + 1)
				e.Actor = fmt.Sprintf("%d/%d", w, done)
				_, err := j.Append(t.Context(), e)
				if err == nil {
					done++
					seq++
					continue
				}
				if !errors.Is(err, promote.ErrConflict) {
					t.Error(err)
					return
				}
				entries, err := j.Read(t.Context(), at)
				if err != nil || len(entries) == 0 {
					t.Errorf("after a conflict at %d: read %d entries, %v", seq+1, len(entries),
						err)
					return
				}
				last := entries[len(entries)-1]
				at, seq = last.At, max(seq, last.Seq)
			}
		})
	}
	wg.Wait()
	next := make([]int, writers)
	for i, e := range readAll(t, j, 0) {
		if e.Seq != uint64(i)+1 {
			t.Fatalf("entry %d stands where %d should", e.Seq, i+1)
		}
		var w, n int
		if _, err := fmt.Sscanf(e.Actor, "%d/%d", &w, &n); err != nil {
			t.Fatal(err)
		}
		if next[w] != n {
			t.Errorf("writer %d: entry %d stands where %d should", w, n, next[w])
		}
		next[w]++
	}
	for w, n := range next {
		if n != each {
			t.Errorf("writer %d: %d entries, want %d", w, n, each)
		}
	}
}

// concurrentClusters lets one writer for each cluster append: none ever meets a conflict.
func concurrentClusters(t *testing.T, j promote.Journal) {
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for seq := range uint64(each) {
				if _, err := j.Append(t.Context(), sampleOf(fmt.Sprint("c", w),
					seq+1)); err != nil {
					t.Errorf("cluster c%d: %v", w, err)
					return
				}
			}
		})
	}
	wg.Wait()
	next := map[string]uint64{}
	for _, e := range readAll(t, j, 0) {
		if next[e.Cluster]++; e.Seq != next[e.Cluster] {
			t.Errorf("%s: entry %d stands where %d should", e.Cluster, e.Seq, next[e.Cluster])
		}
	}
	if len(next) != writers {
		t.Errorf("entries of %d clusters, want %d", len(next), writers)
	}
}

// follow reads while writers append: the reader, which goes on from the At of its last entry, gets
// every entry.
func follow(t *testing.T, j promote.Journal) {
	const writers, each = 4, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for seq := range uint64(each) {
				if _, err := j.Append(t.Context(), sampleOf(fmt.Sprint("c", w),
					seq+1)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	next := map[string]uint64{}
	for at, n := uint64(0), 0; n < writers*each; {
		if err := j.Wait(t.Context(), at); err != nil {
			t.Error(err)
			return
		}
		entries, err := j.Read(t.Context(), at)
		if err != nil {
			t.Error(err)
			return
		}
		for _, e := range entries {
			if next[e.Cluster]++; e.Seq != next[e.Cluster] {
				t.Errorf("%s: read entry %d, want %d", e.Cluster, e.Seq, next[e.Cluster])
				return
			}
			at = e.At
			n++
		}
	}
}

func wait(t *testing.T, j promote.Journal) {
	const waiters = 4
	woken := make(chan error, 2*waiters)
	for range waiters {
		go func() { woken <- j.Wait(t.Context(), 0) }()
	}
	first, err := j.Append(t.Context(), sample(1))
	if err != nil {
		t.Fatal(err)
	}
	for range waiters {
		go func() { woken <- j.Wait(t.Context(), first) }()
	}
	add(t, j, sampleOf("other", 1))
	for range 2 * waiters {
		if err := <-woken; err != nil {
			t.Error(err)
		}
	}
	if err := j.Wait(t.Context(), 0); err != nil {
		t.Errorf("wait for an entry that is there: %v", err)
	}
}

func cancelledContext(t *testing.T, j promote.Journal) {
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error)
	go func() { ended <- j.Wait(ctx, 0) }()
	cause := errors.New("the caller's reason")
	cancel(cause)
	if err := <-ended; !errors.Is(err, cause) {
		t.Errorf("wait: got %v, want the context's cause", err)
	}
	refuses(t, ctx, j, cause)
}

func passedDeadline(t *testing.T, j promote.Journal) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	if err := j.Wait(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: got %v, want context.DeadlineExceeded", err)
	}
	refuses(t, ctx, j, context.DeadlineExceeded)
}

// refuses checks that no method does anything once ctx has ended for the cause.
func refuses(t *testing.T, ctx context.Context, j promote.Journal, cause error) {
	t.Helper()
	if _, err := j.Append(ctx, sample(1)); !errors.Is(err, cause) {
		t.Errorf("append: got %v, want the context's cause %v", err, cause)
	}
	if _, err := j.Read(ctx, 0); !errors.Is(err, cause) {
		t.Errorf("read: got %v, want the context's cause %v", err, cause)
	}
	if got := readAll(t, j, 0); len(got) != 0 {
		t.Errorf("a cancelled append left %d entries", len(got))
	}
}

// readAll reads to the end, and checks the order of the places.
func readAll(t *testing.T, j promote.Journal, after uint64) []promote.Entry {
	t.Helper()
	var all []promote.Entry
	for {
		entries, err := j.Read(t.Context(), after)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			return all
		}
		for _, e := range entries {
			if e.At <= after {
				t.Fatalf("entry at %d comes after %d", e.At, after)
			}
			after = e.At
		}
		all = append(all, entries...)
	}
}
