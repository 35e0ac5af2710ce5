// Package archivetest holds a promote.Archive to its contract.
package archivetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/sluice-deploy/sluice/promote"
)

// Run runs the suite. open returns a new, empty archive each time, and cleans up after itself with
// t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) promote.Archive) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, promote.Archive){
		"get returns the bytes of put":    putAndGet,
		"a name that is not there":        notFound,
		"the same segment again":          putAgain,
		"names are apart":                 apart,
		"a cancelled call does nothing":   cancelled,
		"the caller owns a segment":       owned,
		"many segments at once are whole": concurrent,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

const name = "segment-hello_web-00000000000000000001-00000000000000000500.jsonl"

func put(t *testing.T, a promote.Archive, name string, segment []byte) {
	t.Helper()
	if err := a.Put(t.Context(), name, segment); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, a promote.Archive, name string, segment []byte) {
	t.Helper()
	got, err := a.Get(t.Context(), name)
	if err != nil || !bytes.Equal(got, segment) {
		t.Fatalf("get %s: %.100q, %v, want %.100q", name, got, err, segment)
	}
}

func putAndGet(t *testing.T, a promote.Archive) {
	for _, segment := range [][]byte{{}, []byte("{}\n"), bytes.Repeat([]byte("0123456\n"), 1<<17)} {
		name := fmt.Sprintf("segment-%d.jsonl", len(segment))
		put(t, a, name, segment)
		want(t, a, name, segment)
	}
}

func notFound(t *testing.T, a promote.Archive) {
	put(t, a, name, []byte("{}\n"))
	for _, other := range []string{"segment-other.jsonl", name[:len(name)-1], name + "x"} {
		if _, err := a.Get(t.Context(), other); !errors.Is(err, promote.ErrNotFound) {
			t.Errorf("get %s: got %v, want ErrNotFound", other, err)
		}
	}
}

func putAgain(t *testing.T, a promote.Archive) {
	put(t, a, name, []byte("{}\n"))
	put(t, a, name, []byte("{}\n"))
	want(t, a, name, []byte("{}\n"))
}

func apart(t *testing.T, a promote.Archive) {
	names := []string{"segment--1-2.jsonl", "segment-%2E%2E-1-2.jsonl", "segment-a%2Fb-1-2.jsonl",
		"segment-web-1-2.jsonl", "segment-Web-1-2.jsonl", "segment-web-1-20.jsonl"}
	for i, name := range names {
		put(t, a, name, []byte{byte(i)})
	}
	for i, name := range names {
		want(t, a, name, []byte{byte(i)})
	}
}

func cancelled(t *testing.T, a promote.Archive) {
	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := a.Put(ctx, name, nil); !errors.Is(err, cause) {
		t.Errorf("put with a cancelled context: got %v, want the cause", err)
	}
	if _, err := a.Get(ctx, name); !errors.Is(err, cause) {
		t.Errorf("get with a cancelled context: got %v, want the cause", err)
	}
	if _, err := a.Get(t.Context(), name); !errors.Is(err, promote.ErrNotFound) {
		t.Errorf("get after a cancelled put: got %v, want ErrNotFound", err)
	}
}

func owned(t *testing.T, a promote.Archive) {
	segment := []byte("{}\n")
	put(t, a, name, segment)
	segment[0] = 'x'
	got, err := a.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	got[0] = 'y'
	want(t, a, name, []byte("{}\n"))
}

func concurrent(t *testing.T, a promote.Archive) {
	var all sync.WaitGroup
	for n := range 40 {
		all.Go(func() {
			segment := bytes.Repeat([]byte{byte(n % 10)}, 10_000)
			if err := a.Put(t.Context(), fmt.Sprint("segment-", n%10), segment); err != nil {
				t.Error(err)
			}
			got, err := a.Get(t.Context(), fmt.Sprint("segment-", n%10))
			if err != nil || !bytes.Equal(got, segment) {
				t.Errorf("get %d: %d bytes, %v", n, len(got), err)
			}
		})
	}
	all.Wait()
}
