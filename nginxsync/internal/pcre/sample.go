package pcre

import (
	"regexp/syntax"
	"strings"
)

// Samples returns texts that the expression matches: one with a turn more of each loop than must be
// and one without, or fewer where they are none or the same. None means that it found none,
// not that there is none.
func Samples(expr string, caseless bool) []string {
	re, err := Compile(expr, caseless)
	if err != nil {
		return nil
	}
	tree, err := syntax.Parse(plain(expr), syntax.Perl)
	if err != nil {
		return nil
	}
	var found []string
	for _, more := range []int{1, 0} {
		var b strings.Builder
		if !sample(&b, tree, more) {
			continue
		}
		text := b.String()
		if groups, err := re.Match(text); err == nil && groups != nil &&
			(len(found) == 0 || found[0] != text) {
			found = append(found, text)
		}
	}
	return found
}

// plain is the expression in Go's syntax: without look-around, atomic groups, possessive
// quantifiers and the letters of Perl that Go writes otherwise. What it leaves out, the match of a
// sample has to hold.
func plain(expr string) string {
	var b strings.Builder
	for i := 0; i < len(expr); i++ {
		rest := expr[i:]
		switch {
		case rest[0] == '\\' && len(rest) > 1:
			switch rest[1] {
			case 'Z':
				b.WriteString(`\z`)
			case 'h':
				b.WriteString(`[ \t]`)
			default:
				b.WriteString(rest[:2])
			}
			i++
		case rest[0] == '[':
			end := min(classEnd(rest)+1, len(rest))
			b.WriteString(rest[:end])
			i += end - 1
		case strings.HasPrefix(rest, "(?=") || strings.HasPrefix(rest, "(?!") ||
			strings.HasPrefix(rest, "(?<=") || strings.HasPrefix(rest, "(?<!"):
			i += groupEnd(rest)
		case strings.HasPrefix(rest, "(?>"):
			b.WriteString("(?:")
			i += 2
		case i > 0 && rest[0] == '+' && strings.IndexByte("+*?}", expr[i-1]) >= 0 &&
			(i < 2 || expr[i-2] != '\\'):
		default:
			b.WriteByte(rest[0])
		}
	}
	return b.String()
}

// groupEnd is the offset of the parenthesis that closes the group at the beginning of the text.
func groupEnd(text string) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '[':
			i += classEnd(text[i:])
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(text)
}

// sample writes one text of the expression, with more turns of each loop than it must have. It
// reports false where no text is.
func sample(b *strings.Builder, re *syntax.Regexp, more int) bool {
	turns := func(low, high int) bool {
		n := low + more
		if high >= 0 && n > high {
			n = high
		}
		for range min(n, 100) {
			if !sample(b, re.Sub[0], more) {
				return false
			}
		}
		return true
	}
	switch re.Op {
	case syntax.OpNoMatch:
		return false
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			b.WriteRune(r)
		}
	case syntax.OpCharClass:
		return anyOf(b, re.Rune)
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('x')
	case syntax.OpCapture:
		return sample(b, re.Sub[0], more)
	case syntax.OpStar:
		return turns(0, -1)
	case syntax.OpPlus:
		return turns(1, -1)
	case syntax.OpQuest:
		return turns(0, 1)
	case syntax.OpRepeat:
		return turns(re.Min, re.Max)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if !sample(b, sub, more) {
				return false
			}
		}
	case syntax.OpAlternate:
		return sample(b, re.Sub[0], more)
	}
	return true
}

// anyOf writes a rune of the class: a letter or a digit where one is, else a visible character.
func anyOf(b *strings.Builder, class []rune) bool {
	in := func(r rune) bool {
		for i := 0; i+1 < len(class); i += 2 {
			if class[i] <= r && r <= class[i+1] {
				return true
			}
		}
		return false
	}
	for _, r := range "xabc1023ABX-_.~/ " {
		if in(r) {
			b.WriteRune(r)
			return true
		}
	}
	for r := rune('!'); r < 0x7f; r++ {
		if in(r) {
			b.WriteRune(r)
			return true
		}
	}
	return false
}
