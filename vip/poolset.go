package vip

import (
	"math/bits"
	"net/netip"
)

// poolSet is a set of pools by their number, a bit for each: 64 pools are looked through at once.
type poolSet []uint64

func (s *poolSet) add(number int) {
	for len(*s) <= number/64 {
		*s = append(*s, 0)
	}
	(*s)[number/64] |= 1 << (number % 64)
}

func (s poolSet) remove(number int) { s[number/64] &^= 1 << (number % 64) }

func (s poolSet) has(number int) bool {
	return number/64 < len(s) && s[number/64]>>(number%64)&1 != 0
}

// in yields the pools of the set, the lowest number first.
func (s poolSet) in(pools []*pool) func(yield func(*pool) bool) {
	return func(yield func(*pool) bool) {
		for i, word := range s {
			for ; word != 0; word &= word - 1 {
				if !yield(pools[i*64+bits.TrailingZeros64(word)]) {
					return
				}
			}
		}
	}
}

// poolFlags save a look at every pool. Each set has all pools that belong to it and may have
// others, which a reader of the set takes out.
type poolFlags struct {
	every poolSet
	// pools that have something to hand out
	ready poolSet
	// pools with a MaxCooling, of which more may be cooling
	warm poolSet
	// pools that have addresses to forget
	idle poolSet
	// pools that have changed since Stats has counted them
	uncounted poolSet
	// pools that have changed since exhausted has counted them
	untallied poolSet
}

// changed says that the counts of p, or its deadlines, have changed.
func (p *pool) changed() {
	p.flags.uncounted.add(p.number)
	p.flags.untallied.add(p.number)
}

// all puts the first n pools into each set.
func (f *poolFlags) all(n int) {
	for _, s := range [...]*poolSet{&f.every, &f.ready, &f.warm, &f.idle, &f.uncounted,
		&f.untallied} {
		*s = (*s)[:0]
		for number := range n {
			s.add(number)
		}
	}
}

// renumber follows a change of the pools, of their order, addresses or rules.
func (x *index) renumber() {
	for i, p := range x.pools {
		p.number = i
	}
	x.flags.all(len(x.pools))
	x.ranges, x.choices = nil, map[choiceKey]*choice{}
	x.numbering++
}

// poolOf finds the pool that has addr, nil when none does.
func (x *index) poolOf(addr netip.Addr) *pool {
	if x.ranges == nil {
		x.ranges = rangeIndex[*pool]{}
		for _, p := range x.pools {
			x.ranges = x.ranges.with(p.ranges, p)
		}
		x.ranges.sort()
	}
	p, _ := x.ranges.find(addr)
	return p
}
