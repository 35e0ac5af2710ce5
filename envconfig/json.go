package envconfig

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// jsonReader reads the files that this package writes itself. A start reads two of them and is over in a few milliseconds,
// of which encoding/json would take the third for looking at types. After an error all its methods do nothing.
type jsonReader struct {
	data string // what text returns are parts of it, not copies
	at   int
	err  error
}

// maxNesting is far beyond what these files have.
const maxNesting = 100

func (r *jsonReader) fail(want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s expected at byte %d", want, r.at)
	}
}

// peek is the next byte that is not blank, or 0.
func (r *jsonReader) peek() byte {
	for r.err == nil && r.at < len(r.data) {
		switch c := r.data[r.at]; c {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return c
		}
	}
	return 0
}

// take goes beyond the next byte if it is c.
func (r *jsonReader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

// passOver goes beyond what comes next if it is exactly that.
func (r *jsonReader) passOver(value []byte) bool {
	if r.peek(); r.err != nil || len(r.data)-r.at < len(value) || r.data[r.at:r.at+len(value)] != string(value) {
		return false
	}
	r.at += len(value)
	return true
}

func (r *jsonReader) must(c byte) {
	if !r.take(c) {
		r.fail(strconv.Quote(string(c)))
	}
}

// object calls field for each key; field reads the value.
func (r *jsonReader) object(field func(key string)) {
	r.must('{')
	if r.take('}') {
		return
	}
	for r.err == nil {
		key := r.text()
		r.must(':')
		if r.err == nil {
			field(key)
		}
		if !r.take(',') {
			break
		}
	}
	r.must('}')
}

// list calls item for each element; item reads it.
func (r *jsonReader) list(item func()) {
	r.must('[')
	if r.take(']') {
		return
	}
	for r.err == nil {
		item()
		if !r.take(',') {
			break
		}
	}
	r.must(']')
}

func (r *jsonReader) text() string {
	r.must('"')
	start, plain := r.at, true
	for ; r.err == nil && r.at < len(r.data); r.at++ {
		switch c := r.data[r.at]; {
		case c == '"':
			r.at++
			if plain {
				return r.data[start : r.at-1]
			}
			return r.decoded(r.data[start-1 : r.at])
		case c < ' ':
			r.fail("a string without control characters")
		case c == '\\':
			plain = false
			r.at++
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	r.fail(`"`)
	return ""
}

// decoded is the text of a quoted string with more in it than ASCII. It is for itself so that what json writes to is made for such
// strings alone.
func (r *jsonReader) decoded(quoted string) (s string) {
	if !utf8.ValidString(quoted) || json.Unmarshal([]byte(quoted), &s) != nil {
		r.fail("a string in UTF-8")
	}
	return s
}

func (r *jsonReader) texts() []string {
	all := []string{}
	r.list(func() { all = append(all, r.text()) })
	return all
}

// scalar is the text of a number, true, false or null.
func (r *jsonReader) scalar() string {
	if r.peek(); r.err != nil {
		return ""
	}
	start := r.at
	for r.at < len(r.data) && strings.IndexByte(" \t\r\n,:]}", r.data[r.at]) < 0 {
		r.at++
	}
	if !json.Valid([]byte(r.data[start:r.at])) {
		r.fail("a value")
	}
	return r.data[start:r.at]
}

func (r *jsonReader) number() int64 {
	n, err := strconv.ParseInt(r.scalar(), 10, 64)
	if err != nil {
		r.fail("a whole number")
	}
	return n
}

// skip goes beyond a value that is of no interest.
func (r *jsonReader) skip() { r.skipNested(0) }

func (r *jsonReader) skipNested(depth int) {
	switch c := r.peek(); {
	case depth > maxNesting:
		r.fail("less nesting")
	case c == '{':
		r.object(func(string) { r.skipNested(depth + 1) })
	case c == '[':
		r.list(func() { r.skipNested(depth + 1) })
	case c == '"':
		r.text()
	default:
		r.scalar()
	}
}

// end makes sure that nothing follows.
func (r *jsonReader) end() error {
	if r.peek(); r.err == nil && r.at < len(r.data) {
		r.fail("the end")
	}
	return r.err
}

// appendText appends s as a JSON string.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"', c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func appendTexts(b []byte, all []string) []byte {
	return appendList(b, len(all), func(b []byte, i int) []byte { return appendText(b, all[i]) })
}

func appendList(b []byte, n int, item func(b []byte, i int) []byte) []byte {
	b = append(b, '[')
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(b, i)
	}
	return append(b, ']')
}
