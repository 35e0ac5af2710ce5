package conf

import "strings"

// luaSuffix ends the names of the directives whose block is Lua and not Nginx configuration.
const luaSuffix = "_by_lua_block"

// lua moves past a Lua block whose "{" has just been read, "}" included. As in the Lua module a
// brace counts unless it stands in a comment, a string or a long bracket; a string ends on its
// line, and a quote that is not closed is an ordinary byte. The module looks for these through
// Nginx's buffer, one at a time, and a token that does not fit into it is refused.
func (s *scanner) lua() *scanError {
	open, level := s.pos-1, 1
	blame := open // where Nginx puts the blame for a missing end: the brace that was opened last
	for {
		token, end, err := s.luaToken(blame)
		if err != nil {
			return err
		}
		s.pos = end
		switch token {
		case '{':
			level++
			blame = end - 1
		case '}':
			level--
			if level == 0 {
				return nil
			}
		}
	}
}

// luaToken finds the next thing that matters to the end of the block, and the offset after it.
func (s *scanner) luaToken(blame int) (token byte, end int, err *scanError) {
	s.start = s.pos
	first := s.pos
	for {
		if s.pos >= s.last || s.last-s.pos < bufferSize/2 && s.last < len(s.text) {
			if s.last >= len(s.text) {
				return 0, 0, s.fail(blame, "unexpected end of file, expecting terminating "+
					"characters for lua code block")
			}
			if s.last-s.start == bufferSize {
				return 0, 0, s.fail(first, "too long lua code block, probably missing "+
					"terminating characters")
			}
			s.last = min(s.start+bufferSize, len(s.text))
		}
		token, begin, end := luaLex(s.text[:s.last], s.pos)
		switch token {
		case 0:
			if s.last >= len(s.text) {
				return 0, 0, s.fail(blame, "unexpected end of file, expecting terminating "+
					"characters for lua code block")
			}
			if s.last-s.pos == bufferSize {
				return 0, 0, s.fail(first, "too long lua code block, probably missing "+
					"terminating characters")
			}
			// A token that begins in this part and ends behind it is not found any more: the module
			// looks at the rest only.
			s.start = s.pos
			s.pos, s.last = s.last, min(s.start+bufferSize, len(s.text))
			continue
		case '[':
			closing := "]" + strings.Repeat("=", strings.Count(s.text[begin:end], "=")) + "]"
			i := strings.Index(s.text[end:s.last], closing)
			if i < 0 {
				return 0, 0, s.fail(begin, "Lua code block missing the closing long bracket "+
					"\"%s\", the inlined Lua code may be too long", closing)
			}
			end += i + len(closing)
		}
		return token, end, nil
	}
}

// luaLex is the first brace, string, long bracket or comment of text at or after i: its first byte
// that is not "-", or 0.
func luaLex(text string, i int) (token byte, begin, end int) {
	for ; i < len(text); i++ {
		switch c := text[i]; c {
		case '{', '}':
			return c, i, i + 1
		case '"', '\'':
			if end := luaString(text, i); end > 0 {
				return c, i, end
			}
		case '-':
			if i+1 >= len(text) || text[i+1] != '-' {
				continue
			}
			if n := longBracket(text[i+2:], '['); n > 0 {
				return '[', i, i + 2 + n
			}
			if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
				return '#', i, i + n + 1
			}
			return '#', i, len(text)
		case '[':
			if n := longBracket(text[i:], '['); n > 0 {
				return '[', i, i + n
			}
		case ']':
			// It closes nothing here, but moves the module's buffer on.
			if n := longBracket(text[i:], ']'); n > 0 {
				return ']', i, i + n
			}
		}
	}
	return 0, 0, 0
}

// longBracket is the length of bracket, any number of "=", bracket at the beginning of text, or 0.
func longBracket(text string, bracket byte) int {
	if text == "" || text[0] != bracket {
		return 0
	}
	n := 1
	for n < len(text) && text[n] == '=' {
		n++
	}
	if n >= len(text) || text[n] != bracket {
		return 0
	}
	return n + 1
}

// luaString is the offset after the string that opens at i, or 0 when it is not closed on its line.
func luaString(text string, i int) int {
	for j := i + 1; j < len(text) && text[j] != '\n'; j++ {
		switch text[j] {
		case text[i]:
			return j + 1
		case '\\':
			if j++; j < len(text) && text[j] == '\n' {
				return 0
			}
		}
	}
	return 0
}
