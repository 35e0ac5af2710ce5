package pcre

import (
	"strconv"
	"strings"
)

const wordBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

var (
	digitSet      = bytesOf("0123456789")
	wordSet       = bytesOf(wordBytes)
	spaceSet      = bytesOf(" \t\n\v\f\r")
	horizontalSet = bytesOf(" \t\xa0")
	verticalSet   = bytesOf("\n\v\f\r\x85")
)

func bytesOf(text string) (s set) {
	for i := range len(text) {
		s[text[i]] = true
	}
	return s
}

// types are the escapes that stand for a set; in upper case for its complement.
func types(c byte) (s set, ok bool) {
	switch c | 0x20 {
	case 'd':
		s, ok = digitSet, true
	case 'w':
		s, ok = wordSet, true
	case 's':
		s, ok = spaceSet, true
	case 'h':
		s, ok = horizontalSet, true
	case 'v':
		s, ok = verticalSet, true
	}
	if ok && c < 'a' {
		var other set
		other.addSet(s, true)
		s = other
	}
	return s, ok
}

// posix are the named classes of [[:name:]].
func posix(name string) (s set, ok bool) {
	test := map[string]func(c byte) bool{
		"alpha":  func(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' },
		"digit":  func(c byte) bool { return digitSet[c] },
		"alnum":  func(c byte) bool { return wordSet[c] && c != '_' },
		"upper":  func(c byte) bool { return 'A' <= c && c <= 'Z' },
		"lower":  func(c byte) bool { return 'a' <= c && c <= 'z' },
		"space":  func(c byte) bool { return spaceSet[c] },
		"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
		"word":   func(c byte) bool { return wordSet[c] },
		"xdigit": func(c byte) bool { return digitSet[c] || 'a' <= c|0x20 && c|0x20 <= 'f' },
		"punct":  func(c byte) bool { return '!' <= c && c <= '~' && (!wordSet[c] || c == '_') },
		"graph":  func(c byte) bool { return '!' <= c && c <= '~' },
		"print":  func(c byte) bool { return ' ' <= c && c <= '~' },
		"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
		"ascii":  func(c byte) bool { return c < 0x80 },
	}[name]
	if test == nil {
		return s, false
	}
	for c := range s {
		s[c] = test(byte(c))
	}
	return s, true
}

// class reads from behind the "[".
func (p *parser) class() (s set, err error) {
	negated := p.take("^")
	for first := true; ; first = false {
		if p.at >= len(p.text) {
			return s, p.bad("missing ]")
		}
		if p.text[p.at] == ']' && !first {
			p.at++
			break
		}
		if strings.HasPrefix(p.text[p.at:], "[:") && strings.Contains(p.text[p.at:], ":]") {
			name, _, _ := strings.Cut(p.text[p.at+2:], ":]")
			inner, ok := posix(strings.TrimPrefix(name, "^"))
			if !ok {
				return s, p.unsupported("[:" + name + ":]")
			}
			if p.fold && (name == "upper" || name == "lower") {
				inner.fold()
			}
			p.at += len(name) + 4
			s.addSet(inner, strings.HasPrefix(name, "^"))
			continue
		}
		if strings.HasPrefix(p.text[p.at:], "[.") || strings.HasPrefix(p.text[p.at:], "[=") {
			return s, p.unsupported("a collating element")
		}
		from, many, isSet, err := p.classByte()
		if err != nil {
			return s, err
		}
		if isSet {
			s.addSet(many, false)
			continue
		}
		if rest := p.text[p.at:]; len(rest) < 2 || rest[0] != '-' || rest[1] == ']' {
			s[from] = true
			continue
		}
		p.at++
		if strings.HasPrefix(p.text[p.at:], "[:") {
			return s, p.unsupported("a range to a class")
		}
		to, _, isSet, err := p.classByte()
		switch {
		case err != nil:
			return s, err
		case isSet:
			return s, p.unsupported("a range to a class")
		case to < from:
			return s, p.bad("range out of order")
		}
		s.addRange(from, to)
	}
	if p.fold {
		s.fold()
	}
	if negated {
		var other set
		other.addSet(s, true)
		return other, nil
	}
	return s, nil
}

// classByte reads one byte, or one escape, of a class.
func (p *parser) classByte() (c byte, many set, isSet bool, err error) {
	c = p.text[p.at]
	p.at++
	if c != '\\' {
		return c, many, false, nil
	}
	if p.at >= len(p.text) {
		return 0, many, false, p.bad("\\ at the end")
	}
	c = p.text[p.at]
	if many, isSet = types(c); isSet {
		p.at++
		return 0, many, true, nil
	}
	if c == 'b' {
		p.at++
		return '\b', many, false, nil
	}
	if '1' <= c && c <= '9' {
		return 0, many, false, p.unsupported("a number behind \\ in a class")
	}
	c, err = p.escapedByte()
	return c, many, false, err
}

// escape reads from behind the "\".
func (p *parser) escape() (node, bool, error) {
	if p.at >= len(p.text) {
		return nil, false, p.bad("\\ at the end")
	}
	c := p.text[p.at]
	if s, ok := types(c); ok {
		p.at++
		return s.node(), true, nil
	}
	switch c {
	case 'A':
		p.at++
		return assert(begins), false, nil
	case 'Z':
		p.at++
		return assert(ending), false, nil
	case 'z':
		p.at++
		return assert(ends), false, nil
	case 'b', 'B':
		p.at++
		return assert(func(text string, i int) bool {
			return wordEdge(text, i) == (c == 'b')
		}), false, nil
	case 'N':
		if strings.HasPrefix(p.text[p.at+1:], "{") {
			return nil, false, p.unsupported("\\N{")
		}
		p.at++
		var s set
		s.addSet(set{'\n': true}, true)
		return s.node(), true, nil
	case 'R':
		p.at++
		pair := sequence([]node{set{'\r': true}.node(), set{'\n': true}.node()})
		return atomic(alternatives([]node{pair, verticalSet.node()})), true, nil
	case 'Q':
		p.at++
		p.quote = true
		return nil, false, nil
	case 'E':
		p.at++
		return nil, false, nil
	case 'k', 'g':
		p.at++
		return p.referenceEscape(c)
	}
	if '1' <= c && c <= '9' {
		end := p.at
		for end < len(p.text) && digitSet[p.text[end]] {
			end++
		}
		number, err := strconv.Atoi(p.text[p.at:end])
		if err != nil || number > 9 && number > p.total {
			return nil, false, p.unsupported("an octal number behind \\")
		}
		p.at = end
		return p.backTo(number)
	}
	b, err := p.escapedByte()
	return p.literal(b), true, err
}

func (p *parser) referenceEscape(c byte) (node, bool, error) {
	switch {
	case p.take("{"):
		return p.reference("}")
	case c == 'k' && p.take("<"):
		return p.reference(">")
	case c == 'k' && p.take("'"):
		return p.reference("'")
	case c == 'g' && p.at < len(p.text) && digitSet[p.text[p.at]]:
		end := p.at
		for end < len(p.text) && digitSet[p.text[end]] {
			end++
		}
		number, _ := strconv.Atoi(p.text[p.at:end])
		p.at = end
		return p.backTo(number)
	}
	return nil, false, p.unsupported(`\` + string(c))
}

// escapedByte reads the characters behind "\" that stand for one byte.
func (p *parser) escapedByte() (byte, error) {
	c := p.text[p.at]
	p.at++
	switch c {
	case 't':
		return '\t', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 'f':
		return '\f', nil
	case 'a':
		return 7, nil
	case 'e':
		return 27, nil
	case 'x':
		return p.hex()
	case '0':
		return p.octal()
	}
	if wordSet[c] && c != '_' {
		p.at--
		return 0, p.unsupported(`\` + string(c))
	}
	return c, nil
}

func (p *parser) hex() (byte, error) {
	var text string
	if p.take("{") {
		inner, _, ok := strings.Cut(p.text[p.at:], "}")
		if !ok || inner == "" {
			return 0, p.unsupported("\\x{")
		}
		text = inner
		p.at += len(inner) + 1
	} else {
		end := p.at
		for end < len(p.text) && end < p.at+2 && strings.IndexByte("0123456789abcdefABCDEF",
			p.text[end]) >= 0 {
			end++
		}
		text = p.text[p.at:end]
		p.at = end
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 16, 8)
	if err != nil {
		return 0, p.unsupported("\\x{" + text + "}")
	}
	return byte(n), nil
}

// octal reads up to two digits behind \0.
func (p *parser) octal() (byte, error) {
	n := byte(0)
	for range 2 {
		if p.at < len(p.text) && '0' <= p.text[p.at] && p.text[p.at] <= '7' {
			n = n<<3 | p.text[p.at] - '0'
			p.at++
		}
	}
	return n, nil
}
