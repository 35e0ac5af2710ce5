// Package buildstest holds the stores of builds to their contracts.
package buildstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/source"
)

// Harness is a store under test, new and empty.
type Harness struct {
	Journal builds.Journal
	Logs    builds.Logs
	Owners  builds.Owners
}

// Run runs the suites of all three. open returns a new, empty store each time, and cleans up after
// itself with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	Journal(t, func(t *testing.T) builds.Journal { return open(t).Journal })
	Logs(t, func(t *testing.T) builds.Logs { return open(t).Logs })
	Owners(t, func(t *testing.T) builds.Owners { return open(t).Owners })
}

// Journal runs the suite of journals. A journal that is a builds.Compacter is tried as one, too.
func Journal(t *testing.T, open func(t *testing.T) builds.Journal) {
	t.Helper()
	run(t, open, map[string]func(*testing.T, builds.Journal){
		"read returns what was appended":         appendAndRead,
		"append has a place":                     places,
		"each place has one winner":              winners,
		"append wakes every wait":                wakes,
		"cancelled calls of a journal return":    journalCancelled,
		"compact keeps numbers and the last one": compacts,
		"compact loses no entry beside appends":  compactsBeside,
	})
}

// Logs runs the suite of logs.
func Logs(t *testing.T, open func(t *testing.T) builds.Logs) {
	t.Helper()
	run(t, open, map[string]func(*testing.T, builds.Logs){
		"a log grows at its end only":            logGrows,
		"logs of builds are apart":               logsApart,
		"each offset of a log has one winner":    logWinners,
		"a log of many appends":                  logOfMany,
		"cancelled calls of a log return":        logCancelled,
		"names that differ in case are two logs": cases,
		"a removed log was never written to":     logRemoved,
	})
}

// Owners runs the suite of owners.
func Owners(t *testing.T, open func(t *testing.T) builds.Owners) {
	t.Helper()
	run(t, open, map[string]func(*testing.T, builds.Owners){
		"an owner lives until it leaves":   lives,
		"an owner's name is taken once":    joinedOnce,
		"many ask for owners at once":      manyAsk,
		"cancelled calls of owners return": ownersCancelled,
	})
}

func run[S any](t *testing.T, open func(*testing.T) S, tests map[string]func(*testing.T, S)) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// sample returns an entry with every field set, so that a field that a journal loses is seen.
func sample(seq uint64) builds.Entry {
	o := Order(fmt.Sprint("build-", seq))
	return builds.Entry{Seq: seq, Time: time.Date(2026, 1, 2, 3, 4, 5, int(seq), time.UTC),
		Kind: builds.Submitted, Build: o.ID, Order: &o, Attempt: seq, Owner: "one", Actor: "王芳",
		Reason: "a <&\"\n> b", Counts: true, By: "other",
		Identity: &source.Identity{Kind: source.KindGit, ID: "ab", Files: 1, Bytes: 2},
		Result: &builder.Result{Digest: "sha256:ab",
			Layers: []builder.Layer{{Digest: "x", Size: 3}}},
		Failure: &builder.Failure{Reason: builder.ReasonCommand, Line: 3, Evidence: []string{"e"}},
		Log:     &builds.LogState{Bytes: 5, Lost: 6, Verdict: builds.Gap}}
}

// Order returns an order that is valid.
func Order(id string) builds.Order {
	return builds.Order{ID: id, Actor: "ann", Dockerfile: "FROM scratch\nCOPY a /a\n",
		Repository: "registry.example.com/hello_web", Args: map[string]string{"CACHE": "1"}}
}

func appendAndRead(t *testing.T, j builds.Journal) {
	if got := all(t, j, 0); len(got) != 0 {
		t.Fatalf("a new journal has entries: %v", got)
	}
	for seq := range uint64(5) {
		if err := j.Append(t.Context(), seq, sample(seq+1)); err != nil {
			t.Fatal(err)
		}
	}
	for after := range uint64(7) {
		got := all(t, j, after)
		if want := max(0, 5-int(after)); len(got) != want {
			t.Fatalf("read after %d: got %d entries, want %d", after, len(got), want)
		}
		for i, e := range got {
			if want := sample(after + uint64(i) + 1); !reflect.DeepEqual(e, want) {
				t.Errorf("read after %d: got %+v, want %+v", after, e, want)
			}
		}
	}
}

func places(t *testing.T, j builds.Journal) {
	if err := j.Append(t.Context(), 0, sample(2)); !errors.Is(err, builder.ErrInvalid) {
		t.Errorf("append of entry 2 after 0: got %v, want ErrInvalid", err)
	}
	if err := j.Append(t.Context(), 0, sample(1)); err != nil {
		t.Fatal(err)
	}
	for _, after := range []uint64{0, 2, 100} {
		err := j.Append(t.Context(), after, sample(after+1))
		if !errors.Is(err, builds.ErrConflict) {
			t.Errorf("append after %d to a journal of 1: got %v, want ErrConflict", after, err)
		}
	}
	if got := all(t, j, 0); len(got) != 1 {
		t.Errorf("refused appends left %d entries, want 1", len(got))
	}
}

func winners(t *testing.T, j builds.Journal) {
	const writers, each = 6, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for after, done := uint64(0), 0; done < each; {
				e := sample(after + 1)
				e.Actor = fmt.Sprintf("%d/%d", w, done)
				err := j.Append(t.Context(), after, e)
				if err == nil {
					done++
					after++
					continue
				}
				if !errors.Is(err, builds.ErrConflict) {
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
	if t.Failed() {
		return
	}
	next := make([]int, writers)
	for _, e := range all(t, j, 0) {
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

func wakes(t *testing.T, j builds.Journal) {
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

func logGrows(t *testing.T, logs builds.Logs) {
	log(t, logs, "b", 0, 100, "", 0)
	write(t, logs, "b", 0, "one\n")
	write(t, logs, "b", 4, "two\n")
	for _, offset := range []int64{0, 4, 7, 9, 100} {
		if err := logs.AppendLog(t.Context(), "b", offset, []byte("x")); !errors.Is(err,
			builds.ErrConflict) {
			t.Errorf("append at %d to a log of 8 bytes: got %v, want ErrConflict", offset, err)
		}
	}
	log(t, logs, "b", 0, 100, "one\ntwo\n", 8)
	log(t, logs, "b", 2, 3, "e\nt", 8)
	log(t, logs, "b", 8, 100, "", 8)
	log(t, logs, "b", 20, 100, "", 8)
	log(t, logs, "b", 0, 0, "", 8)
}

func logsApart(t *testing.T, logs builds.Logs) {
	for _, id := range []string{"a", "a.b", "a-b", "a_b", "a..b"} {
		write(t, logs, id, 0, id)
	}
	for _, id := range []string{"a", "a.b", "a-b", "a_b", "a..b"} {
		log(t, logs, id, 0, 100, id, int64(len(id)))
	}
}

func cases(t *testing.T, logs builds.Logs) {
	write(t, logs, "Build", 0, "upper")
	write(t, logs, "build", 0, "lower case")
	log(t, logs, "Build", 0, 100, "upper", 5)
	log(t, logs, "build", 0, 100, "lower case", 10)
}

func logWinners(t *testing.T, logs builds.Logs) {
	const writers = 8
	won := make(chan error, writers)
	for range writers {
		go func() { won <- logs.AppendLog(t.Context(), "b", 0, []byte("line\n")) }()
	}
	n := 0
	for range writers {
		switch err := <-won; {
		case err == nil:
			n++
		case !errors.Is(err, builds.ErrConflict):
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("%d writers won offset 0, want 1", n)
	}
	log(t, logs, "b", 0, 100, "line\n", 5)
}

func lives(t *testing.T, o builds.Owners) {
	living := func(want bool) {
		t.Helper()
		if got, err := o.Lives(t.Context(), "one"); err != nil || got != want {
			t.Errorf("lives: got %t, %v, want %t", got, err, want)
		}
	}
	living(false)
	for range 2 {
		call, end := context.WithCancel(t.Context())
		tenure, leave, err := o.Join(call, "one")
		if err != nil {
			t.Fatal(err)
		}
		end() // the context is of the call alone
		living(true)
		if tenure.Err() != nil {
			t.Errorf("the tenure ended with the call: %v", context.Cause(tenure))
		}
		leave()
		living(false)
		if !errors.Is(context.Cause(tenure), builds.ErrFenced) {
			t.Errorf("a tenure that was left: got %v, want ErrFenced", context.Cause(tenure))
		}
		leave() // again: no effect
	}
}

func joinedOnce(t *testing.T, o builds.Owners) {
	_, leave, err := o.Join(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	if _, _, err := o.Join(t.Context(), "one"); !errors.Is(err, builds.ErrConflict) {
		t.Errorf("join under a name that lives: got %v, want ErrConflict", err)
	}
	_, other, err := o.Join(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	other()
	if got, err := o.Lives(t.Context(), "one"); err != nil || !got {
		t.Errorf("lives: got %t, %v, want true", got, err)
	}
}

// manyAsk looks for an owner that asking makes to live, or that cannot join for the asking.
func manyAsk(t *testing.T, o builds.Owners) {
	_, leave, err := o.Join(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	leave()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got, err := o.Lives(t.Context(), "one"); err != nil || got {
					t.Errorf("lives: got %t, %v, want false", got, err)
				}
			}
		})
	}
	wg.Wait()
	_, leave, err = o.Join(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

var errCaller = errors.New("the caller's reason")

// ended is a context that has ended, with a cause.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCaller)
	return ctx
}

// wantCause fails the test unless err has the cause of ended.
func wantCause(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, errCaller) {
		t.Errorf("%s: got %v, want the context's cause", what, err)
	}
}

func journalCancelled(t *testing.T, j builds.Journal) {
	ctx, cancel := context.WithCancelCause(t.Context())
	waited := make(chan error)
	go func() { waited <- j.Wait(ctx, 0) }()
	cancel(errCaller)
	wantCause(t, "wait", <-waited)
	wantCause(t, "append", j.Append(ctx, 0, sample(1)))
	_, err := j.Read(ctx, 0)
	wantCause(t, "read", err)
	if got := all(t, j, 0); len(got) != 0 {
		t.Errorf("a cancelled append left %d entries", len(got))
	}
}

func logCancelled(t *testing.T, logs builds.Logs) {
	wantCause(t, "append to a log", logs.AppendLog(ended(t), "b", 0, []byte("x")))
	_, _, err := logs.ReadLog(ended(t), "b", 0, 1)
	wantCause(t, "read a log", err)
	wantCause(t, "remove a log", logs.RemoveLog(ended(t), "b"))
	log(t, logs, "b", 0, 100, "", 0)
}

func ownersCancelled(t *testing.T, o builds.Owners) {
	_, _, err := o.Join(ended(t), "one")
	wantCause(t, "join", err)
	_, err = o.Lives(ended(t), "one")
	wantCause(t, "lives", err)
}

// logOfMany appends pieces of all sizes, and reads the log whole and in pages.
func logOfMany(t *testing.T, logs builds.Logs) {
	var want []byte
	for i := range 20 {
		piece := bytes.Repeat([]byte{byte('a' + i%26)}, 1+i*i*100)
		write(t, logs, "b", int64(len(want)), string(piece))
		want = append(want, piece...)
	}
	n := int64(len(want))
	log(t, logs, "b", 0, len(want)+1, string(want), n)
	for _, page := range []int{1000, 70_000} {
		for at := 0; at < len(want); at += page {
			log(t, logs, "b", int64(at), page, string(want[at:min(at+page, len(want))]), n)
		}
	}
	if err := logs.RemoveLog(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	log(t, logs, "b", 0, 100, "", 0)
	write(t, logs, "b", 0, "again")
	log(t, logs, "b", 0, 100, "again", 5)
}

func write(t *testing.T, logs builds.Logs, id string, offset int64, text string) {
	t.Helper()
	if err := logs.AppendLog(t.Context(), id, offset, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func log(t *testing.T, logs builds.Logs, id string, offset int64, limit int, want string,
	size int64) {
	t.Helper()
	got, n, err := logs.ReadLog(t.Context(), id, offset, limit)
	if err != nil || string(got) != want || n != size {
		t.Errorf("log %s from %d: got %q of %d bytes, %v, want %q of %d", id, offset, got, n, err,
			want,
			size)
	}
}

// all reads a journal to its end, and checks that the numbers grow.
func all(t *testing.T, j builds.Journal, after uint64) []builds.Entry {
	t.Helper()
	var list []builds.Entry
	for {
		entries, err := j.Read(t.Context(), after)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			return list
		}
		for _, e := range entries {
			if e.Seq <= after {
				t.Fatalf("entry %d stands behind %d", e.Seq, after)
			}
			after = e.Seq
		}
		list = append(list, entries...)
	}
}

func logRemoved(t *testing.T, logs builds.Logs) {
	write(t, logs, "a", 0, "one")
	write(t, logs, "b", 0, "two")
	for range 2 {
		if err := logs.RemoveLog(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		log(t, logs, "a", 0, 10, "", 0)
	}
	write(t, logs, "a", 0, "three")
	log(t, logs, "a", 0, 10, "three", 5)
	log(t, logs, "b", 0, 10, "two", 3)
}

func compacts(t *testing.T, j builds.Journal) {
	c, ok := j.(builds.Compacter)
	if !ok {
		return
	}
	for seq := range uint64(9) {
		if err := j.Append(t.Context(), seq, sample(seq+1)); err != nil {
			t.Fatal(err)
		}
	}
	left := map[uint64]bool{}
	want := func(gone ...uint64) {
		t.Helper()
		for seq := range uint64(10) {
			left[seq+1] = left[seq+1] || seq < 9
		}
		for _, seq := range gone {
			left[seq] = false
		}
		for after := range uint64(11) {
			got := all(t, j, after)
			var seqs, expected []uint64
			for _, e := range got {
				seqs = append(seqs, e.Seq)
				if !reflect.DeepEqual(e, sample(e.Seq)) {
					t.Errorf("entry %d has changed: %+v", e.Seq, e)
				}
			}
			for seq := after + 1; seq < 12; seq++ {
				if left[seq] {
					expected = append(expected, seq)
				}
			}
			if !reflect.DeepEqual(seqs, expected) {
				t.Fatalf("read after %d: got entries %v, want %v", after, seqs, expected)
			}
		}
	}
	compact := func(gone ...uint64) {
		t.Helper()
		if err := c.Compact(t.Context(), func(e builds.Entry) bool {
			return slices.Contains(gone, e.Seq)
		}); err != nil {
			t.Fatal(err)
		}
	}
	compact(1, 2, 5, 9) // the last one stays
	want(1, 2, 5)
	compact(4, 6, 8)
	want(1, 2, 4, 5, 6, 8)
	compact()
	want(1, 2, 4, 5, 6, 8)
	if err := j.Append(t.Context(), 8, sample(9)); !errors.Is(err, builds.ErrConflict) {
		t.Errorf("append after 8 of 9: got %v, want ErrConflict", err)
	}
	if err := j.Append(t.Context(), 9, sample(10)); err != nil {
		t.Fatal(err)
	}
	left[10] = true
	compact(3, 9)
	want(1, 2, 3, 4, 5, 6, 8, 9)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("asked to end")
	cancel(cause)
	if err := c.Compact(ctx, func(builds.Entry) bool { return true }); !errors.Is(err, cause) {
		t.Errorf("compact: got %v, want the cause", err)
	}
}

// compactsBeside removes the entries of one writer while several write.
func compactsBeside(t *testing.T, j builds.Journal) {
	c, ok := j.(builds.Compacter)
	if !ok {
		return
	}
	const writers, each = 3, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for after, done := uint64(0), 0; done < each; {
				e := sample(after + 1)
				e.Build, e.Actor = fmt.Sprint("w", w), fmt.Sprint(done)
				err := j.Append(t.Context(), after, e)
				switch {
				case err == nil:
					done++
					after++
				case errors.Is(err, builds.ErrConflict):
					if got := all(t, j, after); len(got) > 0 {
						after = got[len(got)-1].Seq
					}
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	drop := func(e builds.Entry) bool { return e.Build == "w0" }
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		if err := c.Compact(t.Context(), drop); err != nil {
			t.Fatal(err)
		}
	}
	kept := map[string]int{}
	last := uint64(0)
	for _, e := range all(t, j, 0) {
		if e.Seq <= last {
			t.Errorf("entry %d follows %d", e.Seq, last)
		}
		last = e.Seq
		kept[e.Build]++
	}
	if last != writers*each {
		t.Errorf("the last entry is %d, want %d", last, writers*each)
	}
	if kept["w0"] > 1 { // the last entry may be one
		t.Errorf("%d entries were not removed", kept["w0"])
	}
	for w := 1; w < writers; w++ {
		if n := kept[fmt.Sprint("w", w)]; n != each {
			t.Errorf("writer %d: %d entries are left, want %d", w, n, each)
		}
	}
}
