package builds

import (
	"slices"
	"strings"
	"testing"
)

// A value that lies across the place where a line without an end is cut is masked.
func TestLineWithoutAnEndIsMasked(t *testing.T) {
	t.Parallel()
	const secret = "sesame-open"
	store := NewMemory()
	w := &logWriter{ctx: t.Context(), logs: store, name: "b", max: 64 << 20}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	w.mask(secret)
	text := strings.Repeat(strings.Repeat("x", 97)+secret, 10_000)
	for piece := range slices.Chunk([]byte(text), 1000) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.held); n > maxLine+1000 {
		t.Errorf("%d bytes are held", n)
	}
	if s := w.close(); s.Verdict != Complete {
		t.Errorf("verdict %+v", s)
	}
	got, _, err := store.ReadLog(t.Context(), "b", 0, 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(text, secret, "***") + "\n"; string(got) != want {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}
