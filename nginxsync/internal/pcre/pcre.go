// Package pcre matches regular expressions as Nginx does: Perl's syntax and rules, over bytes,
// without UTF. It has look-around, back references, atomic groups and possessive quantifiers.
// Syntax that it does not have, recursion, conditions, \K, verbs such as (*UTF8), is
// ErrUnsupported, never another meaning.
//
// The rules are those of pcre2pattern(3).
package pcre

import (
	"errors"
	"fmt"
)

// ErrUnsupported is in the chain of the error about an expression that PCRE may take and this
// package does not.
var ErrUnsupported = errors.New("unsupported")

// ErrTooComplex is in the chain of the error about a match that takes too many steps.
var ErrTooComplex = errors.New("too complex")

// maxSteps bounds a match. PCRE's own limit is higher; an expression that comes near to it is none
// for a request.
const maxSteps = 1_000_000

// Regexp is a compiled expression. It is safe for concurrent use.
type Regexp struct {
	match  node
	groups int // without the whole match
	names  map[int]string
}

// Names returns the names of the groups that have one, by number. The caller does not change it.
func (re *Regexp) Names() map[int]string { return re.names }

// node matches at i and goes on with next. It leaves the captures as they were when it fails.
type node func(m *matcher, i int, next func(int) bool) bool

type matcher struct {
	text  string
	caps  []int // start and end by group; -1 for none
	steps int
}

// step counts, and ends the match when there were too many.
func (m *matcher) step() {
	if m.steps++; m.steps > maxSteps {
		panic(ErrTooComplex)
	}
}

// Match finds the leftmost match and returns the texts of the groups, the whole match first. A
// group that took no part is "". Nil means that nothing matches.
func (re *Regexp) Match(text string) (groups []string, err error) {
	m := &matcher{text: text, caps: make([]int, 2*(re.groups+1))}
	defer func() {
		if r := recover(); r == ErrTooComplex {
			groups, err = nil, fmt.Errorf("match: more than %d steps: %w", maxSteps, ErrTooComplex)
		} else if r != nil {
			panic(r)
		}
	}()
	for start := 0; start <= len(text); start++ {
		for i := range m.caps {
			m.caps[i] = -1
		}
		if re.match(m, start, func(end int) bool {
			m.caps[0], m.caps[1] = start, end
			return true
		}) {
			groups = make([]string, re.groups+1)
			for g := range groups {
				if from, to := m.caps[2*g], m.caps[2*g+1]; from >= 0 && to >= from {
					groups[g] = text[from:to]
				}
			}
			return groups, nil
		}
	}
	return nil, nil
}

// set is a set of bytes.
type set [256]bool

func (s *set) addRange(from, to byte) {
	for c := int(from); c <= int(to); c++ {
		s[c] = true
	}
}

func (s *set) addSet(other set, negated bool) {
	for c := range s {
		s[c] = s[c] || other[c] != negated
	}
}

// fold adds the other case of each ASCII letter.
func (s *set) fold() {
	for c := 'a'; c <= 'z'; c++ {
		either := s[c] || s[c-32]
		s[c], s[c-32] = either, either
	}
}

func (s set) node() node {
	return func(m *matcher, i int, next func(int) bool) bool {
		m.step()
		return i < len(m.text) && s[m.text[i]] && next(i+1)
	}
}

func empty(_ *matcher, i int, next func(int) bool) bool { return next(i) }

func sequence(list []node) node {
	if len(list) == 0 {
		return empty
	}
	if len(list) == 1 {
		return list[0]
	}
	first, rest := list[0], sequence(list[1:])
	return func(m *matcher, i int, next func(int) bool) bool {
		return first(m, i, func(j int) bool { return rest(m, j, next) })
	}
}

func alternatives(list []node) node {
	if len(list) == 1 {
		return list[0]
	}
	return func(m *matcher, i int, next func(int) bool) bool {
		for _, n := range list {
			if m.step(); n(m, i, next) {
				return true
			}
		}
		return false
	}
}

// group keeps the text that the inner node matches.
func group(number int, inner node) node {
	return func(m *matcher, i int, next func(int) bool) bool {
		from, to := m.caps[2*number], m.caps[2*number+1]
		ok := inner(m, i, func(j int) bool {
			wasFrom, wasTo := m.caps[2*number], m.caps[2*number+1]
			m.caps[2*number], m.caps[2*number+1] = i, j
			if next(j) {
				return true
			}
			m.caps[2*number], m.caps[2*number+1] = wasFrom, wasTo
			return false
		})
		if !ok {
			m.caps[2*number], m.caps[2*number+1] = from, to
		}
		return ok
	}
}

// repeat matches the inner node from low to high times, -1 for no bound.
func repeat(inner node, low, high int, lazy bool) node {
	var loop func(m *matcher, count, i int, next func(int) bool) bool
	loop = func(m *matcher, count, i int, next func(int) bool) bool {
		m.step()
		more := func() bool {
			return (high < 0 || count < high) && inner(m, i, func(j int) bool {
				if j == i && count >= low {
					return next(j) // one iteration of nothing is enough
				}
				return loop(m, count+1, j, next)
			})
		}
		switch {
		case count < low:
			return more()
		case lazy:
			return next(i) || more()
		}
		return more() || next(i)
	}
	return func(m *matcher, i int, next func(int) bool) bool { return loop(m, 0, i, next) }
}

// atomic matches the inner node once, and does not come back to it.
func atomic(inner node) node {
	return func(m *matcher, i int, next func(int) bool) bool {
		before := append([]int(nil), m.caps...)
		end := -1
		if inner(m, i, func(j int) bool { end = j; return true }) && next(end) {
			return true
		}
		copy(m.caps, before)
		return false
	}
}

// look asserts that the inner node matches here, or does not, and consumes nothing.
func look(inner node, behind, negated bool) node {
	return func(m *matcher, i int, next func(int) bool) bool {
		before := append([]int(nil), m.caps...)
		found := false
		if !behind {
			found = inner(m, i, func(int) bool { return true })
		}
		for from := i; behind && !found && from >= 0; from-- {
			found = inner(m, from, func(j int) bool { return j == i })
		}
		if negated {
			copy(m.caps, before)
		}
		if found != negated && next(i) {
			return true
		}
		copy(m.caps, before)
		return false
	}
}

// assert consumes nothing and matches where holds returns true.
func assert(holds func(text string, i int) bool) node {
	return func(m *matcher, i int, next func(int) bool) bool { return holds(m.text, i) && next(i) }
}

func begins(_ string, i int) bool  { return i == 0 }
func ends(text string, i int) bool { return i == len(text) }
func ending(text string, i int) bool {
	return i == len(text) || i == len(text)-1 && text[i] == '\n'
}
func lineBegins(text string, i int) bool {
	return i == 0 || text[i-1] == '\n' && i < len(text)
}
func lineEnds(text string, i int) bool { return i == len(text) || text[i] == '\n' }

func wordEdge(text string, i int) bool {
	before := i > 0 && wordSet[text[i-1]]
	after := i < len(text) && wordSet[text[i]]
	return before != after
}

// backReference matches the text that the group matched before. A group that took no part never
// matches.
func backReference(number func() int, fold bool) node {
	return func(m *matcher, i int, next func(int) bool) bool {
		m.step()
		g := number()
		from, to := m.caps[2*g], m.caps[2*g+1]
		if from < 0 || i+to-from > len(m.text) {
			return false
		}
		for k := range to - from {
			a, b := m.text[from+k], m.text[i+k]
			if a != b && (!fold || lower(a) != lower(b)) {
				return false
			}
		}
		return next(i + to - from)
	}
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 32
	}
	return c
}
