package conf

import (
	"fmt"
	"strings"
)

// bufferSize is Nginx's NGX_CONF_BUFFER: the tokenizer reads files through a buffer of this size,
// which limits the length of a token and, since a comment does not move the token's start, of a
// comment line.
const bufferSize = 4096

type word struct {
	start   int32  // without the quote
	size    uint16 // no word is longer than the buffer
	escaped bool   // has a backslash, so that its value is not its text
	quote   byte
}

type tokenKind uint8

const (
	tokenSimple tokenKind = iota // words, then ";"
	tokenBlock                   // words, then "{"
	tokenClose                   // "}"
	tokenEOF
)

// scanner reads one file. It keeps the position of Nginx's read buffer, because some files are
// refused only for the way their tokens fall into it.
type scanner struct {
	text  string
	pos   int
	start int // of the token that is being read: Nginx keeps the text from here in its buffer
	last  int // end of the buffer
	words []word
	first int // index into words of the current directive's first
}

func newScanner(text string) *scanner {
	return &scanner{text: text, last: min(bufferSize, len(text))}
}

type scanError struct {
	offset int
	msg    string
}

func (s *scanner) fail(offset int, format string, args ...any) *scanError {
	return &scanError{offset: offset, msg: fmt.Sprintf(format, args...)}
}

// filled moves the buffer on until the bytes before end were read, or reports that the token does
// not fit into it.
func (s *scanner) filled(end int, quote byte) *scanError {
	for s.last < end {
		if s.last-s.start >= bufferSize {
			if quote != 0 {
				return s.fail(s.start, "too long parameter, probably missing terminating \"%c\" "+
					"character", quote)
			}
			return s.fail(s.start, "too long parameter \"%s...\" started",
				s.text[s.start:s.start+10])
		}
		s.last = min(s.start+bufferSize, len(s.text))
	}
	return nil
}

func (s *scanner) unexpectedEOF() *scanError {
	return s.fail(len(s.text), "unexpected end of file, expecting \";\" or \"}\"")
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// next reads up to the end of a directive's words. The words are s.words[s.first:].
func (s *scanner) next() (tokenKind, *scanError) {
	s.first = len(s.words)
	s.start = s.pos
	for {
		for s.pos < len(s.text) && isSpace(s.text[s.pos]) {
			if s.pos >= s.last {
				if err := s.filled(s.pos+1, 0); err != nil {
					return 0, err
				}
			}
			s.start = s.pos
			s.pos++
		}
		if s.pos >= len(s.text) {
			if len(s.words) > s.first {
				return 0, s.unexpectedEOF()
			}
			// Nginx meets the same limit before it sees the end: the last bytes may still have to
			// be read.
			return tokenEOF, s.filled(s.pos, 0)
		}
		if s.last <= s.pos {
			if err := s.filled(s.pos+1, 0); err != nil {
				return 0, err
			}
		}
		s.start = s.pos
		switch c := s.text[s.pos]; c {
		case ';', '{':
			if len(s.words) == s.first {
				return 0, s.fail(s.pos, "unexpected \"%s\"", s.text[s.pos:s.pos+1])
			}
			s.pos++
			if c == '{' {
				return tokenBlock, nil
			}
			return tokenSimple, nil
		case '}':
			if len(s.words) != s.first {
				return 0, s.fail(s.pos, "unexpected \"}\"")
			}
			s.pos++
			return tokenClose, nil
		case '#':
			end := strings.IndexByte(s.text[s.pos:], '\n')
			if end < 0 {
				end = len(s.text) - s.pos
			}
			s.pos += end
			if err := s.filled(s.pos, 0); err != nil {
				return 0, err
			}
		case '"', '\'':
			kind, done, err := s.quoted(c)
			if err != nil || done {
				return kind, err
			}
		default:
			kind, done, err := s.plain()
			if err != nil || done {
				return kind, err
			}
		}
	}
}

// quoted reads a word in quotes and the character that must follow it: space, ";", "{" or ")".
func (s *scanner) quoted(quote byte) (kind tokenKind, done bool, err *scanError) {
	s.pos++
	s.start = s.pos
	w := word{start: int32(s.pos), quote: quote}
	i := s.pos
	for ; ; i++ {
		if i >= len(s.text) {
			if err := s.filled(len(s.text), quote); err != nil {
				return 0, false, err
			}
			return 0, false, s.unexpectedEOF()
		}
		if c := s.text[i]; c == '\\' {
			w.escaped = true
			i++
		} else if c == quote {
			break
		}
	}
	s.pos = i + 1
	if err := s.filled(s.pos, quote); err != nil {
		return 0, false, err
	}
	w.size = uint16(i - int(w.start))
	s.words = append(s.words, w)
	if s.pos >= len(s.text) {
		return 0, false, s.unexpectedEOF()
	}
	if err := s.filled(s.pos+1, 0); err != nil {
		return 0, false, err
	}
	switch c := s.text[s.pos]; {
	case isSpace(c):
		s.pos++
	case c == ';':
		s.pos++
		return tokenSimple, true, nil
	case c == '{':
		s.pos++
		return tokenBlock, true, nil
	case c == ')':
		s.start = s.pos
	default:
		return 0, false, s.fail(s.pos, "unexpected \"%s\"", s.text[s.pos:s.pos+1])
	}
	return 0, false, nil
}

// special are the bytes that mean something in a word without quotes.
var special = [256]bool{'\\': true, '$': true, '{': true, ' ': true, '\t': true, '\r': true,
	'\n': true, ';': true}

// plain reads a word without quotes: up to a space, ";" or "{", where "{" after "$" belongs to the
// word and a backslash takes the next byte with it.
func (s *scanner) plain() (kind tokenKind, done bool, err *scanError) {
	w := word{start: int32(s.pos)}
	text, variable := s.text, false
	i := s.pos
	for {
		from := i
		for i < len(text) && !special[text[i]] {
			i++
		}
		if i >= len(text) {
			break
		}
		c := text[i]
		switch {
		case c == '\\':
			w.escaped = true
			i += 2
			variable = false
			continue
		case c == '$':
			variable = true
			i++
			continue
		case c == '{' && variable && i == from:
			i++ // and ${{ keeps going, as Nginx does
			continue
		}
		s.pos = i + 1
		if s.last < s.pos {
			if err := s.filled(s.pos, 0); err != nil {
				return 0, false, err
			}
		}
		w.size = uint16(i - int(w.start))
		s.words = append(s.words, w)
		switch c {
		case ';':
			return tokenSimple, true, nil
		case '{':
			return tokenBlock, true, nil
		}
		return 0, false, nil
	}
	if err := s.filled(len(text), 0); err != nil {
		return 0, false, err
	}
	return 0, false, s.unexpectedEOF()
}

// value is a word as Nginx sees it: backslash before a quote or a backslash dropped, \t \r \n
// translated, any other kept.
func value(text string, w word) string {
	text = text[w.start : w.start+int32(w.size)]
	if w.escaped {
		text = unescape(text)
	}
	return text
}

func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			switch text[i+1] {
			case '"', '\'', '\\':
				i++
			case 't':
				b.WriteByte('\t')
				i++
				continue
			case 'r':
				b.WriteByte('\r')
				i++
				continue
			case 'n':
				b.WriteByte('\n')
				i++
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
