package promote

import (
	"container/heap"
	"context"
	"fmt"
	"sort"
)

// Recent returns the newest n entries of the journal that match t and have an At below before,
// newest first; before 0 stands for the journal's end. As in History, an empty field of t matches
// everything. Its cost grows with n and with the number of clusters, not with the journal's
// length, unless t names an environment or a task. A negative n is ErrInvalid.
func (p *Promoter) Recent(ctx context.Context, t Target, before uint64, n int) (list []Entry,
	err error) {
	if n < 0 {
		return nil, fmt.Errorf("recent: n %d: want 0 or more: %w", n, ErrInvalid)
	}
	err = p.view(ctx, func(s *state) { list = s.recent(t, before, n) })
	return list, err
}

func (s *state) recent(t Target, before uint64, n int) []Entry {
	var left tails
	for name, c := range s.clusters {
		if t.Cluster == "" || t.Cluster == name {
			if rest := matching(c.entries, t, before); len(rest) > 0 {
				left = append(left, rest)
			}
		}
	}
	heap.Init(&left)
	var list []Entry
	for len(left) > 0 && len(list) < n {
		rest := left[0]
		last := len(rest) - 1
		list = append(list, rest[last])
		if left[0] = matching(rest[:last], t, before); len(left[0]) == 0 {
			heap.Pop(&left)
		} else {
			heap.Fix(&left, 0)
		}
	}
	return list
}

// matching cuts entries from the end until the last one matches t and is below before.
func matching(entries []Entry, t Target, before uint64) []Entry {
	n := len(entries)
	if before > 0 {
		n = sort.Search(n, func(i int) bool { return entries[i].At >= before })
	}
	for ; n > 0; n-- {
		e := &entries[n-1]
		if (t.Environment == "" || t.Environment == e.Environment) &&
			(t.Task == "" || t.Task == e.Task) {
			return entries[:n]
		}
	}
	return nil
}

// tails is a heap of lists of entries, none of them empty; the one with the newest entry is first.
type tails [][]Entry

func (h tails) at(i int) uint64    { return h[i][len(h[i])-1].At }
func (h tails) Len() int           { return len(h) }
func (h tails) Less(i, j int) bool { return h.at(i) > h.at(j) }
func (h tails) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *tails) Push(x any) { *h = append(*h, x.([]Entry)) }

// Pop implements heap.Interface.
func (h *tails) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
