package pcre

import (
	"fmt"
	"strconv"
	"strings"
)

// flags are the options of a part of an expression.
type flags struct{ fold, dotAll, lines, extended bool }

type parser struct {
	text   string
	at     int
	groups int
	total  int // groups of the whole expression
	names  map[int]string
	byName map[string]int
	depth  int
	quote  bool // between \Q and \E
	flags
}

// Compile reads an expression. caseless ignores case, as "~*" does. The error has ErrUnsupported in
// its chain when PCRE may take the expression all the same.
func Compile(text string, caseless bool) (*Regexp, error) {
	p := &parser{text: text, total: countGroups(text)}
	p.names, p.byName, p.fold = map[int]string{}, map[string]int{}, caseless
	n, err := p.alternatives()
	if err == nil && p.at < len(text) {
		err = p.bad("unmatched closing parenthesis")
	}
	if err == nil && p.groups != p.total {
		err = p.unsupported("groups that are counted in another way")
	}
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", text, err)
	}
	return &Regexp{match: n, groups: p.groups, names: p.names}, nil
}

// countGroups counts the openings of groups that capture, outside of classes, quotes and escapes.
func countGroups(text string) int {
	n := 0
	for i := 0; i < len(text); i++ {
		rest := text[i:]
		switch {
		case strings.HasPrefix(rest, `\Q`):
			end := strings.Index(rest, `\E`)
			if end < 0 {
				return n
			}
			i += end + 1
		case rest[0] == '\\':
			i++
		case rest[0] == '[':
			i += classEnd(rest)
		case strings.HasPrefix(rest, "(?#"):
			if end := strings.IndexByte(rest, ')'); end > 0 {
				i += end
			}
		case rest[0] == '(' && (len(rest) == 1 || rest[1] != '?' && rest[1] != '*'),
			strings.HasPrefix(rest, "(?P<"), strings.HasPrefix(rest, "(?'"),
			strings.HasPrefix(rest, "(?<") && len(rest) > 3 && rest[3] != '=' && rest[3] != '!':
			n++
		}
	}
	return n
}

// classEnd is the offset of the "]" that ends the class at the beginning of the text.
func classEnd(text string) int {
	i := 1
	if i < len(text) && text[i] == '^' {
		i++
	}
	for first := true; i < len(text); i, first = i+1, false {
		switch {
		case text[i] == '\\':
			i++
		case strings.HasPrefix(text[i:], "[:"):
			if end := strings.Index(text[i:], ":]"); end > 0 {
				i += end + 1
			}
		case text[i] == ']' && !first:
			return i
		}
	}
	return len(text)
}

func (p *parser) bad(format string, args ...any) error {
	return fmt.Errorf("byte %d: %s", p.at, fmt.Sprintf(format, args...))
}

func (p *parser) unsupported(what string) error {
	return fmt.Errorf("byte %d: %s: %w", p.at, what, ErrUnsupported)
}

// take consumes the prefix if it is there.
func (p *parser) take(prefix string) bool {
	if !strings.HasPrefix(p.text[p.at:], prefix) {
		return false
	}
	p.at += len(prefix)
	return true
}

// alternatives reads up to the ")" that ends the group, or the end. Flags that a part sets hold for
// the rest of the group.
func (p *parser) alternatives() (node, error) {
	if p.depth++; p.depth > 200 {
		return nil, p.unsupported("groups nest deeper than 200")
	}
	defer func(before flags) { p.flags = before; p.depth-- }(p.flags)
	var all, current []node
	for p.at < len(p.text) {
		switch {
		case p.quote:
		case p.text[p.at] == ')':
			return alternatives(append(all, sequence(current))), nil
		case p.take("|"):
			all, current = append(all, sequence(current)), nil
			continue
		}
		n, quantifiable, err := p.atom()
		if err != nil {
			return nil, err
		}
		if n == nil {
			continue
		}
		if n, err = p.quantified(n, quantifiable); err != nil {
			return nil, err
		}
		current = append(current, n)
	}
	return alternatives(append(all, sequence(current))), nil
}

// quantified reads the quantifiers that may stand behind an atom.
func (p *parser) quantified(n node, quantifiable bool) (node, error) {
	for {
		if p.quote {
			if p.quote = !p.take(`\E`); p.quote {
				return n, nil
			}
		}
		p.space()
		low, high, ok, err := p.quantifier()
		if err != nil || !ok {
			return n, err
		}
		if !quantifiable {
			return nil, p.unsupported("a quantifier behind an assertion")
		}
		lazy, possessive := p.take("?"), false
		if !lazy {
			possessive = p.take("+")
		}
		if n = repeat(n, low, high, lazy); possessive {
			n = atomic(n)
		}
	}
}

// space passes over the white space and comments that (?x) ignores.
func (p *parser) space() {
	for p.extended && p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == '#':
			if end := strings.IndexByte(p.text[p.at:], '\n'); end >= 0 {
				p.at += end + 1
				continue
			}
			p.at = len(p.text)
		case spaceSet[c]:
			p.at++
		default:
			return
		}
	}
}

func (p *parser) quantifier() (low, high int, ok bool, err error) {
	switch {
	case p.take("*"):
		return 0, -1, true, nil
	case p.take("+"):
		return 1, -1, true, nil
	case p.take("?"):
		return 0, 1, true, nil
	case p.at >= len(p.text) || p.text[p.at] != '{':
		return 0, 0, false, nil
	}
	body, _, closed := strings.Cut(p.text[p.at+1:], "}")
	from, to, comma := strings.Cut(body, ",")
	if !closed || !digits(from) || comma && to != "" && !digits(to) {
		if closed && digits(strings.Trim(body, ", ")) {
			return 0, 0, false, p.unsupported("{" + body + "}, which newer versions read as a " +
				"quantifier")
		}
		return 0, 0, false, nil // literal
	}
	low, _ = strconv.Atoi(from)
	switch {
	case !comma:
		high = low
	case to == "":
		high = -1
	default:
		high, _ = strconv.Atoi(to)
	}
	if low > 65535 || high > 65535 || high >= 0 && high < low {
		return 0, 0, false, p.bad("bad numbers in {%s}", body)
	}
	p.at += len(body) + 2
	return low, high, true, nil
}

func digits(s string) bool { return s != "" && len(s) < 7 && strings.Trim(s, "0123456789") == "" }

// atom reads one atom. It is nil for a flag or a comment.
func (p *parser) atom() (n node, quantifiable bool, err error) {
	if p.quote {
		if p.take(`\E`) {
			p.quote = false
			return nil, false, nil
		}
		p.at++
		return p.literal(p.text[p.at-1]), true, nil
	}
	p.space()
	if p.at >= len(p.text) || p.text[p.at] == ')' || p.text[p.at] == '|' {
		return nil, false, nil
	}
	c := p.text[p.at]
	p.at++
	switch c {
	case '(':
		return p.group()
	case '[':
		s, err := p.class()
		return s.node(), true, err
	case '\\':
		return p.escape()
	case '.':
		var s set
		s.addSet(set{'\n': !p.dotAll}, true)
		return s.node(), true, nil
	case '^':
		if p.lines {
			return assert(lineBegins), false, nil
		}
		return assert(begins), false, nil
	case '$':
		if p.lines {
			return assert(lineEnds), false, nil
		}
		return assert(ending), false, nil
	case '*', '+', '?':
		return nil, false, p.bad("quantifier without something before it")
	}
	return p.literal(c), true, nil
}

func (p *parser) literal(c byte) node {
	s := set{}
	s[c] = true
	if p.fold {
		s.fold()
	}
	return s.node()
}

// group reads from behind the "(".
func (p *parser) group() (node, bool, error) {
	if p.take("*") {
		return nil, false, p.unsupported("a verb (*…)")
	}
	if !p.take("?") {
		return p.capture("")
	}
	switch {
	case p.take("#"):
		end := strings.IndexByte(p.text[p.at:], ')')
		if end < 0 {
			return nil, false, p.bad("missing ) after (?#")
		}
		p.at += end + 1
		return nil, false, nil
	case p.take(":"):
		return p.closed(func(n node) node { return n }, true)
	case p.take(">"):
		return p.closed(atomic, true)
	case p.take("="):
		return p.closed(func(n node) node { return look(n, false, false) }, false)
	case p.take("!"):
		return p.closed(func(n node) node { return look(n, false, true) }, false)
	case p.take("<="):
		return p.closed(func(n node) node { return look(n, true, false) }, false)
	case p.take("<!"):
		return p.closed(func(n node) node { return look(n, true, true) }, false)
	case p.take("P="):
		return p.reference(")")
	case p.take("P<"), p.take("<"):
		return p.named(">")
	case p.take("'"):
		return p.named("'")
	}
	return p.setFlags()
}

func (p *parser) named(end string) (node, bool, error) {
	name, _, ok := strings.Cut(p.text[p.at:], end)
	if !ok || name == "" || strings.Trim(name, wordBytes) != "" || '0' <= name[0] &&
		name[0] <= '9' {
		return nil, false, p.bad("bad name of a group")
	}
	if _, taken := p.byName[name]; taken {
		return nil, false, p.bad("two groups with the name %q", name)
	}
	p.at += len(name) + len(end)
	return p.capture(name)
}

func (p *parser) capture(name string) (node, bool, error) {
	p.groups++
	number := p.groups
	if name != "" {
		p.names[number], p.byName[name] = name, number
	}
	return p.closed(func(n node) node { return group(number, n) }, true)
}

// closed reads the inside of a group and its ")".
func (p *parser) closed(wrap func(node) node, quantifiable bool) (node, bool, error) {
	n, err := p.alternatives()
	if err != nil {
		return nil, false, err
	}
	if !p.take(")") {
		return nil, false, p.bad("missing )")
	}
	return wrap(n), quantifiable, nil
}

// setFlags reads (?i), (?i-s), (?i:…).
func (p *parser) setFlags() (node, bool, error) {
	before, on := p.flags, true
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.at++
		switch c {
		case 'i':
			p.fold = on
		case 's':
			p.dotAll = on
		case 'm':
			p.lines = on
		case 'x':
			p.extended = on
		case '-':
			on = false
		case ')':
			return nil, false, nil
		case ':':
			n, quantifiable, err := p.closed(func(n node) node { return n }, true)
			p.flags = before
			return n, quantifiable, err
		default:
			p.at--
			return nil, false, p.unsupported(fmt.Sprintf("(?%c", c))
		}
	}
	return nil, false, p.bad("missing )")
}

// reference reads the name of a back reference up to end.
func (p *parser) reference(end string) (node, bool, error) {
	name, _, ok := strings.Cut(p.text[p.at:], end)
	if !ok || name == "" {
		return nil, false, p.bad("bad reference")
	}
	p.at += len(name) + len(end)
	if n, err := strconv.Atoi(name); err == nil {
		if n < 0 {
			n = p.groups + 1 + n
		}
		return p.backTo(n)
	}
	if _, ok := p.byName[name]; !ok {
		return nil, false, p.unsupported("a reference to a group that comes later, or to none")
	}
	return p.backTo(p.byName[name])
}

func (p *parser) backTo(number int) (node, bool, error) {
	if number < 1 || number > p.total {
		return nil, false, p.bad("reference to group %d of %d", number, p.total)
	}
	return backReference(func() int { return number }, p.fold), true, nil
}
