package vip

import (
	"container/heap"
	"time"
)

// deadlines is a heap of the entries that have one, soonest first.
type deadlines []*entry

// dueClass classifies deadlines by the address's next state.
type dueClass uint8

const (
	expires  dueClass = iota // a lease expires: after Config.Grace it is over
	over                     // that has been told, and the lease is over
	cools                    // the cool-down ends
	recovers                 // the quarantine ends
	dueClasses
)

// dues are the deadlines of a pool.
type dues [dueClasses]deadlines

// next is the entry that is due first, nil without one.
func (d *dues) next() (first *entry) {
	for i := range d {
		if h := d[i]; len(h) > 0 && (first == nil || h[0].deadline.Before(first.deadline)) {
			first = h[0]
		}
	}
	return first
}

// set puts e where its deadline says: into the heap of a class, or, when the deadline is zero, into
// none.
func (d *dues) set(e *entry, class dueClass) {
	if e.heapIndex > 0 {
		if h := &d[e.dueClass]; e.deadline.IsZero() || class != e.dueClass {
			h.remove(int(e.heapIndex) - 1)
		} else if i := int(e.heapIndex) - 1; !h.up(i) {
			h.down(i)
		}
	}
	if e.dueClass = class; e.heapIndex == 0 && !e.deadline.IsZero() {
		d[class].push(e)
	}
}

func (d *deadlines) push(e *entry) {
	*d = append(*d, e)
	e.heapIndex = int32(len(*d))
	d.up(len(*d) - 1)
}

func (d *deadlines) remove(i int) {
	last := len(*d) - 1
	e, moved := (*d)[i], (*d)[last]
	(*d)[last], *d = nil, (*d)[:last]
	e.heapIndex = 0
	if i < last {
		(*d)[i] = moved
		moved.heapIndex = int32(i + 1)
		if !d.up(i) {
			d.down(i)
		}
	}
}

// up reports whether it has moved the entry at i.
func (d deadlines) up(i int) bool {
	e, from := d[i], i
	for i > 0 {
		parent := (i - 1) / 2
		if !e.deadline.Before(d[parent].deadline) {
			break
		}
		d[i] = d[parent]
		d[i].heapIndex = int32(i + 1)
		i = parent
	}
	d[i] = e
	e.heapIndex = int32(i + 1)
	return i < from
}

func (d deadlines) down(i int) {
	e := d[i]
	for {
		child := 2*i + 1
		if child >= len(d) {
			break
		}
		if right := child + 1; right < len(d) && d[right].deadline.Before(d[child].deadline) {
			child = right
		}
		if !d[child].deadline.Before(e.deadline) {
			break
		}
		d[i] = d[child]
		d[i].heapIndex = int32(i + 1)
		i = child
	}
	d[i] = e
	e.heapIndex = int32(i + 1)
}

// first returns the entry that is due first among the ones that fit, nil without one. It looks at
// the ones that do not fit and at two more for each.
func (d deadlines) first(fits func(*entry) bool) (found *entry) {
	var look func(i int)
	look = func(i int) {
		switch {
		case i >= len(d) || found != nil && !d[i].deadline.Before(found.deadline):
		case fits(d[i]):
			found = d[i]
		default:
			look(2*i + 1)
			look(2*i + 2)
		}
	}
	look(0)
	return found
}

// soonest returns the first n deadlines in order, fewer when there are not so many.
func (d deadlines) soonest(n int) []time.Time {
	all := make([]time.Time, 0, min(n, len(d)))
	border := frontier{of: d}
	if len(d) > 0 {
		border.places = append(border.places, 0)
	}
	for len(border.places) > 0 && len(all) < n {
		i := heap.Pop(&border).(int)
		all = append(all, d[i].deadline)
		for child := 2*i + 1; child <= 2*i+2 && child < len(d); child++ {
			heap.Push(&border, child)
		}
	}
	return all
}

// frontier is a heap of places in a heap that may be next.
type frontier struct {
	of     deadlines
	places []int
}

func (f *frontier) Len() int { return len(f.places) }

func (f *frontier) Less(i, j int) bool {
	return f.of[f.places[i]].deadline.Before(f.of[f.places[j]].deadline)
}

func (f *frontier) Swap(i, j int) { f.places[i], f.places[j] = f.places[j], f.places[i] }

// Push implements heap.Interface.
func (f *frontier) Push(i any) { f.places = append(f.places, i.(int)) }

// Pop implements heap.Interface.
func (f *frontier) Pop() any {
	last := f.places[len(f.places)-1]
	f.places = f.places[:len(f.places)-1]
	return last
}
