package names

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxActor is how many bytes the name of an actor may have.
const MaxActor = 256

// Actor returns nil when s can name a person or a program in a journal, a log line and a page: 1 to
// 256 bytes of UTF-8 without control characters, and without characters that change the direction
// of the text around them (Unicode Standard Annex 9, "Explicit Directional Embeddings, Overrides
// and Isolates").
func Actor(s string) error {
	bad := func(why string) error {
		return fmt.Errorf("actor %s: %s: want who asks, up to %d bytes without control characters",
			Quote(s), why, MaxActor)
	}
	switch {
	case s == "":
		return bad("is empty")
	case len(s) > MaxActor:
		return bad(fmt.Sprintf("has %d bytes", len(s)))
	case !utf8.ValidString(s):
		return bad("is no UTF-8")
	}
	for i, c := range s {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' ||
			unicode.Is(unicode.Bidi_Control, c) {
			return bad(fmt.Sprintf("byte %d is %U", i+1, c))
		}
	}
	return nil
}
