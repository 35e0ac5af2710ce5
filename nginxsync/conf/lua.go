package conf

import "strings"

// luaSuffix ends the names of the directives whose block is Lua and not Nginx configuration.
const luaSuffix = "_by_lua_block"

// lua moves past a Lua block whose "{" has just been read, "}" included. As in the Lua module a brace counts unless it
// stands in a comment, a string or a long bracket; a quote that is never closed is an ordinary byte.
func (s *scanner) lua() (bodyEnd int, err *scanError) {
	open, level := s.pos, 1
	for i := s.pos; i < len(s.text); {
		switch s.text[i] {
		case '{':
			level++
		case '}':
			level--
			if level == 0 {
				s.pos = i + 1
				s.last = max(s.last, min(s.pos+bufferSize, len(s.text)))
				return i, nil
			}
		case '"', '\'':
			if end := luaString(s.text, i); end > 0 {
				i = end
				continue
			}
		case '-':
			if !strings.HasPrefix(s.text[i:], "--") {
				break
			}
			if _, ok := longBracket(s.text, i+2); ok {
				i += 2
				continue
			}
			end := strings.IndexByte(s.text[i:], '\n')
			if end < 0 {
				i = len(s.text)
				continue
			}
			i += end
		case '[':
			closing, ok := longBracket(s.text, i)
			if !ok {
				break
			}
			end := strings.Index(s.text[i+len(closing):], closing)
			if end < 0 {
				return 0, s.fail(i, "Lua code block missing the closing long bracket %q, the inlined Lua code may be too long", closing)
			}
			i += 2*len(closing) + end
			continue
		}
		i++
	}
	return 0, s.fail(open-1, "unexpected end of file, expecting terminating characters for lua code block")
}

// longBracket reports whether "[", any number of "=", "[" stands at i, and what closes it.
func longBracket(text string, i int) (closing string, ok bool) {
	if i >= len(text) || text[i] != '[' {
		return "", false
	}
	end := i + 1
	for end < len(text) && text[end] == '=' {
		end++
	}
	if end >= len(text) || text[end] != '[' {
		return "", false
	}
	return "]" + text[i+1:end] + "]", true
}

// luaString is the index after the string that opens at i, or 0 when it is not closed.
func luaString(text string, i int) int {
	for j := i + 1; j < len(text); j++ {
		switch text[j] {
		case '\\':
			j++
		case text[i]:
			return j + 1
		}
	}
	return 0
}
