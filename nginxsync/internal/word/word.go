// Package word checks the words of the routes' line form.
package word

import (
	"fmt"
	"strings"
)

// Problem returns why s cannot be a word of at least atLeast and at most 128 bytes, or "" if it
// can.
func Problem(s string, atLeast int) string {
	switch {
	case len(s) < atLeast:
		return "is empty"
	case len(s) > 128:
		return fmt.Sprintf("has %d bytes, want at most 128", len(s))
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "wants printable ASCII without spaces"
	case strings.ContainsAny(s, "\"\\"):
		return "must not contain a quote or a backslash"
	}
	return ""
}
