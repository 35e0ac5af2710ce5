package vip

import "container/heap"

// deadlines is a heap of the entries that have one, soonest first.
type deadlines []*entry

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].heapIndex, d[j].heapIndex = i+1, j+1
}

// Push implements heap.Interface.
func (d *deadlines) Push(e any) {
	*d = append(*d, e.(*entry))
	e.(*entry).heapIndex = len(*d)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	e := (*d)[len(*d)-1]
	(*d)[len(*d)-1] = nil
	*d = (*d)[:len(*d)-1]
	e.heapIndex = 0
	return e
}

// update puts e where its deadline says, or takes it out when it has none.
func (d *deadlines) update(e *entry) {
	switch {
	case e.deadline.IsZero() && e.heapIndex > 0:
		heap.Remove(d, e.heapIndex-1)
	case e.deadline.IsZero():
	case e.heapIndex > 0:
		heap.Fix(d, e.heapIndex-1)
	default:
		heap.Push(d, e)
	}
}
