package vip

import (
	"net/netip"
	"slices"
	"sort"
)

// rangeIndex finds the thing that a range of addresses belongs to. The ranges do not overlap.
type rangeIndex[T any] []rangeOf[T]

type rangeOf[T any] struct {
	Range
	of T
}

func (x rangeIndex[T]) with(ranges []Range, of T) rangeIndex[T] {
	for _, r := range ranges {
		x = append(x, rangeOf[T]{r, of})
	}
	return x
}

func (x rangeIndex[T]) sort() {
	slices.SortFunc(x, func(a, b rangeOf[T]) int { return a.First.Compare(b.First) })
}

func (x rangeIndex[T]) find(addr netip.Addr) (of T, found bool) {
	i := sort.Search(len(x), func(i int) bool { return addr.Less(x[i].First) }) - 1
	if i < 0 || x[i].Last.Less(addr) || addr.Zone() != "" {
		return of, false
	}
	return x[i].of, true
}
