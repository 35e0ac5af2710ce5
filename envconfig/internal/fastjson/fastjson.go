package fastjson

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reader reads one JSON text from its beginning. After the first error every method does nothing
// and returns a zero value; [Reader.End] returns that error. A Reader is for one goroutine.
type Reader struct {
	data string // Text returns parts of it, not copies
	at   int
	err  error
}

// NewReader returns a Reader of data.
func NewReader(data string) *Reader { return &Reader{data: data} }

// Err returns the first error, or nil.
func (r *Reader) Err() error { return r.err }

// Stop ends the reading with err unless there was an error before.
func (r *Reader) Stop(err error) {
	if r.err == nil {
		r.err = err
	}
}

// maxNesting is far beyond the nesting of the files that this package is for.
const maxNesting = 100

// Fail ends the reading with an error that says that want was expected here.
func (r *Reader) Fail(want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s expected at byte %d", want, r.at)
	}
}

// Peek skips blanks and returns the next byte, or 0 at the end of the text and after an error.
func (r *Reader) Peek() byte {
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

// take skips blanks and the next byte if that is c, and reports whether it was.
func (r *Reader) take(c byte) bool {
	if r.Peek() != c {
		return false
	}
	r.at++
	return true
}

// PassOver skips value if the text goes on with exactly these bytes, and reports whether it does.
// It compares bytes, not JSON values.
func (r *Reader) PassOver(value []byte) bool {
	if r.Peek(); r.err != nil || len(r.data)-r.at < len(value) ||
		r.data[r.at:r.at+len(value)] != string(value) {
		return false
	}
	r.at += len(value)
	return true
}

func (r *Reader) must(c byte) {
	if !r.take(c) {
		r.Fail(strconv.Quote(string(c)))
	}
}

// Object reads an object. It calls field for each key, and field reads the value.
func (r *Reader) Object(field func(key string)) {
	r.must('{')
	if r.take('}') {
		return
	}
	for r.err == nil {
		key := r.Text()
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

// List reads an array. It calls item for each element, and item reads the element.
func (r *Reader) List(item func()) {
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

// Text reads a string.
func (r *Reader) Text() string {
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
			r.Fail("a string without control characters")
		case c == '\\':
			plain = false
			r.at++
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	r.Fail(`"`)
	return ""
}

// decoded returns the text of a quoted string that holds escapes or bytes beyond ASCII. It is a
// function of its own so that only such strings cost an allocation for the variable that
// encoding/json writes to.
func (r *Reader) decoded(quoted string) (s string) {
	if !utf8.ValidString(quoted) || json.Unmarshal([]byte(quoted), &s) != nil {
		r.Fail("a string in UTF-8")
	}
	return s
}

// Texts reads an array of strings. An empty array gives an empty slice, not nil.
func (r *Reader) Texts() []string {
	all := []string{}
	r.List(func() { all = append(all, r.Text()) })
	return all
}

// scalar reads and returns the text of a number, true, false or null.
func (r *Reader) scalar() string {
	if r.Peek(); r.err != nil {
		return ""
	}
	start := r.at
	for r.at < len(r.data) && strings.IndexByte(" \t\r\n,:]}", r.data[r.at]) < 0 {
		r.at++
	}
	if !json.Valid([]byte(r.data[start:r.at])) {
		r.Fail("a value")
	}
	return r.data[start:r.at]
}

// Number reads a whole number.
func (r *Reader) Number() int64 {
	n, err := strconv.ParseInt(r.scalar(), 10, 64)
	if err != nil {
		r.Fail("a whole number")
	}
	return n
}

// Skip reads a value of any kind and drops it.
func (r *Reader) Skip() { r.skipNested(0) }

func (r *Reader) skipNested(depth int) {
	switch c := r.Peek(); {
	case depth > maxNesting:
		r.Fail("less nesting")
	case c == '{':
		r.Object(func(string) { r.skipNested(depth + 1) })
	case c == '[':
		r.List(func() { r.skipNested(depth + 1) })
	case c == '"':
		r.Text()
	default:
		r.scalar()
	}
}

// Raw calls read and returns the part of the text that read has read, without the blanks before it.
func (r *Reader) Raw(read func()) string {
	r.Peek()
	start := r.at
	read()
	return r.data[start:min(r.at, len(r.data))]
}

// End returns the first error, or an error if anything but blanks follows.
func (r *Reader) End() error {
	if r.Peek(); r.err == nil && r.at < len(r.data) {
		r.Fail("the end")
	}
	return r.err
}
