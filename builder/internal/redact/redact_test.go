package redact_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/builder/internal/redact"
)

func TestForms(t *testing.T) {
	t.Parallel()
	const secret = "pa55 w/ord+?"
	var m redact.Masks
	m.Add(secret + "\n")
	for name, form := range map[string]string{
		"plain": secret, "query": url.QueryEscape(secret), "path": url.PathEscape(secret),
		"hex":             hex.EncodeToString([]byte(secret)),
		"base64":          base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64 of user":  base64.StdEncoding.EncodeToString([]byte("user:" + secret)),
		"base64 of URL":   base64.RawURLEncoding.EncodeToString([]byte("x" + secret + "y")),
		"middle of lines": "a" + secret + "b",
	} {
		got := m.String("begin " + form + " end")
		if strings.Contains(got, form) || !strings.HasPrefix(got, "begin ") ||
			!strings.HasSuffix(got, " end") || !strings.Contains(got, redact.Mask) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if n := m.Longest(); n < len(secret) {
		t.Errorf("the longest form has %d bytes", n)
	}
}

// TestEndOfBase64: a value at the end of an encoded text, as in Basic authentication, leaves none
// of its last bytes.
func TestEndOfBase64(t *testing.T) {
	t.Parallel()
	const secret = "pa55-w0rd!"
	var m redact.Masks
	m.Add(secret)
	for lead := range 3 {
		text := []byte("user:12345"[:6+lead] + secret)
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			got := m.String(e.EncodeToString(text))
			if !strings.HasSuffix(got, redact.Mask) {
				t.Errorf("%q: %q", text, got)
			}
		}
	}
}

func TestLinesOfAValue(t *testing.T) {
	t.Parallel()
	var m redact.Masks
	m.Add("first line\nsecond line\nabc")
	if got := m.String("second line, abc"); got != "***, abc" {
		t.Errorf("got %q", got)
	}
	var none redact.Masks
	if got := none.String("text"); got != "text" || none.Longest() != 0 {
		t.Errorf("without a value: %q", got)
	}
}

// TestCut: a value that comes in two pieces is masked wherever the pieces part.
func TestCut(t *testing.T) {
	t.Parallel()
	const secret = "pa55-w0rd!"
	var m redact.Masks
	m.Add(secret)
	text := "begin " + strings.Repeat("x", m.Longest()) + secret + " end"
	for at := range len(text) + 1 {
		ready, rest := m.Cut([]byte(text[:at]))
		got := string(ready) + m.String(string(rest)+text[at:])
		if want := strings.ReplaceAll(text, secret, redact.Mask); got != want {
			t.Errorf("parted at %d: got %q, want %q", at, got, want)
		}
		if at < len(text)-len(" end")-1 && strings.Contains(string(ready), secret[:4]) {
			t.Errorf("parted at %d: %q has a part of the value", at, ready)
		}
	}
	var none redact.Masks
	if ready, rest := none.Cut([]byte("text")); string(ready) != "text" || len(rest) != 0 {
		t.Errorf("without values: got %q and %q", ready, rest)
	}
}
