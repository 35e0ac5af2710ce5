package vip

import (
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// choice are the pools that requests of one kind may use: one, or the matching ones before others.
type choice struct {
	one              *pool
	matching, others poolSet
	bounded          string // a pool that was left out because of its MaxLease
}

// choiceKey is what the choice of a request without a pool's name depends on.
type choiceKey struct {
	selector          string
	fallback, endless bool
	family            family
}

// mostChoices is how many choices the index keeps.
const mostChoices = 1000

// noPools is the choice of a request that no pool may serve.
var noPools choice

// choose is the choice of a request that names no pool.
func (x *index) choose(selector map[string]string, key choiceKey) *choice {
	key.selector = labelsText(selector)
	if c := x.choices[key]; c != nil {
		return c
	}
	if len(x.choices) == mostChoices {
		clear(x.choices)
	}
	c := &choice{}
	x.choices[key] = c
	for i, p := range x.pools {
		matches := p.has(selector)
		switch {
		case p.gone || p.Disabled || !matches && !key.fallback:
		case key.family != anyFamily && p.family() != key.family:
		case key.endless && p.MaxLease > 0:
			c.bounded = p.Name
		case matches:
			c.matching.add(i)
		default:
			c.others.add(i)
		}
	}
	return c
}

// labelsText is a text that no other labels have.
func labelsText(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		for _, text := range [...]string{k, labels[k]} {
			b.WriteString(strconv.Quote(text))
		}
	}
	return b.String()
}

func (c *choice) has(p *pool) bool {
	return p == c.one || c.matching.has(p.number) || c.others.has(p.number)
}

func (c *choice) empty() bool { return c.one == nil && c.matching == nil && c.others == nil }

// len is how many pools c has.
func (c *choice) len() (n int) {
	if c.one != nil {
		return 1
	}
	for _, some := range [...]poolSet{c.matching, c.others} {
		for _, word := range some {
			n += bits.OnesCount64(word)
		}
	}
	return n
}

// among yields the numbers of the pools of c that are in s, best first.
func (c *choice) among(s poolSet) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		if c.one != nil {
			if s.has(c.one.number) {
				yield(c.one.number)
			}
			return
		}
		for _, some := range [...]poolSet{c.matching, c.others} {
			for i := range min(len(some), len(s)) {
				for word := some[i] & s[i]; word != 0; word &= word - 1 {
					if !yield(i*64 + bits.TrailingZeros64(word)) {
						return
					}
				}
			}
		}
	}
}
