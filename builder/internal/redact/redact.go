// Package redact keeps the values of secrets out of logs and errors.
package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Mask stands in a text in place of a value.
const Mask = "***"

// minLength is the number of bytes from which on a value is masked: to mask shorter ones would make
// any text unreadable.
const minLength = 4

// Masks replaces values in texts. The zero value replaces none. It is safe for concurrent use.
type Masks struct {
	mu    sync.Mutex
	masks []string // longest first
}

// Add keeps a value, each of its lines, and their forms in base64, hexadecimal and URLs, out of the
// texts from now on. Values of fewer than 4 bytes stay.
func (m *Masks) Add(value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range append([]string{value, strings.TrimSpace(value)},
		strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == '\r' })...) {
		if len(v) < minLength {
			continue
		}
		m.masks = append(m.masks, v, url.QueryEscape(v), url.PathEscape(v),
			hex.EncodeToString([]byte(v)))
		// base64 of the value at each of the three places it can have in a longer text, without
		// the characters that depend on its neighbours, and at the end of a text
		for lead := range 3 {
			for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
				text := e.EncodeToString(append(make([]byte, lead), v...))
				first, last := []int{0, 2, 3}[lead], (lead+len(v))/3*4
				if last-first >= minLength {
					m.masks = append(m.masks, text[first:last], text[first:],
						strings.TrimRight(text[first:], "="))
				}
			}
		}
	}
	slices.SortFunc(m.masks, func(a, b string) int { return len(b) - len(a) })
	m.masks = slices.Compact(m.masks)
}

// Clean returns text without the values. It may return text itself.
func (m *Masks) Clean(text []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.masks {
		text = bytes.ReplaceAll(text, []byte(v), []byte(Mask))
	}
	return text
}

// String returns text without the values.
func (m *Masks) String(text string) string { return string(m.Clean([]byte(text))) }

// Cut returns text without the values in two parts: ready, and a rest that may be the beginning of
// a value whose end has not come. The rest is shorter than the longest form.
func (m *Masks) Cut(text []byte) (ready, rest []byte) {
	text = m.Clean(text)
	end := len(text) - min(len(text), max(0, m.Longest()-1))
	return text[:end], text[end:]
}

// Longest returns the length in bytes of the longest form of a value, 0 without any.
func (m *Masks) Longest() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.masks) == 0 {
		return 0
	}
	return len(m.masks[0])
}
