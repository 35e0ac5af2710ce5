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
		"read returns what was appended":          appendAndRead,
		"append elsewhere than at the end":        compareAndSet,
		"append of an entry with a wrong number":  wrongNumber,
		"many entries":                            manyEntries,
		"each place has one winner":               concurrentAppends,
		"append wakes every wait":                 wait,
		"cancelled calls return the cause":        cancelledContext,
		"a deadline that has passed is the cause": passedDeadline,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// sample returns an entry with every field set, so that a field that an implementation loses is
// seen.
func sample(seq uint64) promote.Entry {
	e := promote.Entry{Seq: seq, Change: seq, Generation: seq}
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String {
			f.SetString(fmt.Sprintf("%s %d <&\"世界\n>", v.Type().Field(i).Name, seq))
		}
	}
	e.Target = promote.Target{Cluster: "hello_web", Environment: "test",
		Task: fmt.Sprint("task", seq)}
	e.Time = time.Date(2026, 1, 2, 3, 4, 5, int(seq), time.UTC)
	return e
}

func appendAndRead(t *testing.T, j promote.Journal) {
	if got := readAll(t, j, 0); len(got) != 0 {
		t.Fatalf("a new journal has entries: %v", got)
	}
	for seq := range uint64(5) {
		if err := j.Append(t.Context(), seq, sample(seq+1)); err != nil {
			t.Fatal(err)
		}
	}
	for after := range uint64(7) {
		got := readAll(t, j, after)
		if want := max(0, 5-int(after)); len(got) != want {
			t.Fatalf("read after %d: got %d entries, want %d", after, len(got), want)
		}
		for i, e := range got {
			if want := sample(after + uint64(i) + 1); !reflect.DeepEqual(e, want) {
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
	if err := j.Append(t.Context(), 0, sample(1)); err != nil {
		t.Fatal(err)
	}
	for _, after := range []uint64{0, 2, 100} {
		if err := j.Append(t.Context(), after, sample(after+1)); !errors.Is(err,
			promote.ErrConflict) {
			t.Errorf("append after %d to a journal of 1: got %v, want ErrConflict", after, err)
		}
	}
	if got := readAll(t, j, 0); len(got) != 1 {
		t.Errorf("refused appends left %d entries, want 1", len(got))
	}
}

func wrongNumber(t *testing.T, j promote.Journal) {
	for _, seq := range []uint64{0, 2} {
		if err := j.Append(t.Context(), 0, sample(seq)); err == nil {
			t.Errorf("append of number %d after 0: got nil, want an error", seq)
		}
	}
	if got := readAll(t, j, 0); len(got) != 0 {
		t.Errorf("refused appends left %d entries", len(got))
	}
}

func manyEntries(t *testing.T, j promote.Journal) {
	const n = 300
	for seq := range uint64(n) {
		if err := j.Append(t.Context(), seq, sample(seq+1)); err != nil {
			t.Fatal(err)
		}
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
			after := uint64(0)
			for done := 0; done < each; {
				e := sample(after + 1)
				e.Actor = fmt.Sprintf("%d/%d", w, done)
				err := j.Append(t.Context(), after, e)
				if err == nil {
					done++
					after++
					continue
				}
				if !errors.Is(err, promote.ErrConflict) {
					t.Error(err)
					return
				}
				entries, err := j.Read(t.Context(), after)
				if err != nil || len(entries) == 0 {
					t.Errorf("after a conflict at %d: read %d entries, %v", after, len(entries),
						err)
					return
				}
				after = entries[len(entries)-1].Seq
			}
		})
	}
	wg.Wait()
	next := make([]int, writers)
	for _, e := range readAll(t, j, 0) {
		var w, i int
		if _, err := fmt.Sscanf(e.Actor, "%d/%d", &w, &i); err != nil {
			t.Fatal(err)
		}
		if next[w] != i {
			t.Errorf("writer %d: entry %d stands where %d should", w, i, next[w])
		}
		next[w]++
	}
	for w, n := range next {
		if n != each {
			t.Errorf("writer %d: %d entries, want %d", w, n, each)
		}
	}
}

func wait(t *testing.T, j promote.Journal) {
	const waiters = 4
	woken := make(chan error, waiters)
	for range waiters {
		go func() { woken <- j.Wait(t.Context(), 1) }()
	}
	for seq := range uint64(2) {
		if err := j.Append(t.Context(), seq, sample(seq+1)); err != nil {
			t.Fatal(err)
		}
	}
	for range waiters {
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
	if err := j.Append(ctx, 0, sample(1)); !errors.Is(err, cause) {
		t.Errorf("append: got %v, want the context's cause %v", err, cause)
	}
	if _, err := j.Read(ctx, 0); !errors.Is(err, cause) {
		t.Errorf("read: got %v, want the context's cause %v", err, cause)
	}
	if got := readAll(t, j, 0); len(got) != 0 {
		t.Errorf("a cancelled append left %d entries", len(got))
	}
}

// readAll reads to the end, and checks that no page has a gap.
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
			if after++; e.Seq != after {
				t.Fatalf("entry %d stands where %d should", e.Seq, after)
			}
		}
		all = append(all, entries...)
	}
}
