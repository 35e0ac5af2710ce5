package start

import (
	"strings"
	"unicode"
)

// filler takes quotation marks and escapes away and fills variables in, as BuildKit does it in
// FROM, ARG, ENV and WORKDIR. Of ${NAME…} it knows -, :-, + and :+. Any other operator, and a
// variable that is not set, stays as it is.
type filler struct {
	escape byte
	vars   map[string]string
	depth  int
}

// maxFilled bounds the growth of variables that double themselves, and the text in the place of
// one.
const maxFilled = 64 << 10

// maxDepth is how deep expressions may stand in each other.
const maxDepth = 200

func (f *filler) fill(word string) string {
	out, _ := f.until(word, 0)
	return out
}

// until reads to the end, or to the character stop outside of quotation marks, and returns the text
// behind it, too.
func (f *filler) until(s string, stop byte) (out, behind string) {
	var b strings.Builder
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote == 0 && stop != 0 && c == stop:
			return b.String(), s[i+1:]
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == f.escape && quote != '\'' && i+1 < len(s):
			if i++; quote == '"' && s[i] != '"' && s[i] != '$' && s[i] != f.escape {
				b.WriteByte(c)
			}
			b.WriteByte(s[i])
		case c == '$' && quote != '\'':
			value, n := f.variable(s[i:])
			if b.Len()+len(value) > max(maxFilled, len(s)) {
				value = ""
			}
			b.WriteString(value)
			i += n - 1
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

// variable is the value of the one that s begins with, and how much of s it takes.
func (f *filler) variable(s string) (value string, length int) {
	braces := strings.HasPrefix(s, "${")
	name := s[1:]
	if braces {
		name = s[2:]
	}
	if end := strings.IndexFunc(name, func(c rune) bool {
		return c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c)
	}); end >= 0 {
		name = name[:end]
	}
	value, set := f.vars[name]
	if !braces {
		if length = 1 + len(name); !set {
			value = s[:length]
		}
		return value, length
	}
	rest := s[2+len(name):]
	if strings.HasPrefix(rest, "}") && name != "" {
		if length = 3 + len(name); !set {
			value = s[:length]
		}
		return value, length
	}
	for _, sign := range []string{":-", ":+", "-", "+"} {
		rest, ok := strings.CutPrefix(rest, sign)
		if !ok || name == "" || f.depth == maxDepth {
			continue
		}
		f.depth++
		other, behind := f.until(rest, '}')
		f.depth--
		if len(other) > maxFilled {
			other = ""
		}
		set := set && (sign[0] != ':' || value != "")
		switch {
		case strings.HasSuffix(sign, "+") && !set:
			value = ""
		case strings.HasSuffix(sign, "+") || !set:
			value = other
		}
		return value, len(s) - len(behind)
	}
	return "$", 1
}
