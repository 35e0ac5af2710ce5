package vip

import (
	"container/heap"
	"time"
)

// deadlines holds the entries that have one. Most come in the order of their deadlines, as rests
// and leases of one length do: those are a chain, to which one is added, and from which one is
// taken, without a look at the others. The rest are a heap.
type deadlines struct {
	first, last *entry // of the chain, soonest first: by entry.before and entry.after
	chained     int
	heap        dueHeap
}

// dueHeap is a heap of entries, soonest first.
type dueHeap []*entry

// inChain as entry.heapIndex says that the entry is in the chain of its class.
const inChain = -1

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
		for _, e := range [...]*entry{d[i].first, d[i].heap.top()} {
			if e != nil && (first == nil || e.deadline.Before(first.deadline)) {
				first = e
			}
		}
	}
	return first
}

// set puts e where its deadline says: to a class, or, when the deadline is zero, to none.
func (d *dues) set(e *entry, class dueClass) {
	if e.heapIndex == inChain {
		d[e.dueClass].unchain(e)
	}
	if e.heapIndex > 0 {
		if h := &d[e.dueClass].heap; e.deadline.IsZero() || class != e.dueClass {
			h.remove(int(e.heapIndex) - 1)
		} else if i := int(e.heapIndex) - 1; !h.up(i) {
			h.down(i)
		}
	}
	if e.dueClass = class; e.heapIndex == 0 && !e.deadline.IsZero() {
		d[class].add(e)
	}
}

// all returns the entries of all classes.
func (d *dues) all() []*entry {
	var all []*entry
	for i := range d {
		for e := d[i].first; e != nil; e = e.after {
			all = append(all, e)
		}
		all = append(all, d[i].heap...)
	}
	return all
}

func (d *deadlines) len() int { return d.chained + len(d.heap) }

func (d *deadlines) add(e *entry) {
	if d.last != nil && e.deadline.Before(d.last.deadline) {
		d.heap.push(e)
		return
	}
	if d.last == nil {
		d.first = e
	} else {
		d.last.after, e.before = e, d.last
	}
	d.last, e.heapIndex = e, inChain
	d.chained++
}

func (d *deadlines) unchain(e *entry) {
	if e.before != nil {
		e.before.after = e.after
	} else {
		d.first = e.after
	}
	if e.after != nil {
		e.after.before = e.before
	} else {
		d.last = e.before
	}
	e.before, e.after, e.heapIndex = nil, nil, 0
	d.chained--
}

// firstThat returns the entry that is due first among the ones that fit, nil without one. It looks
// at the ones that do not fit and at few more.
func (d *deadlines) firstThat(fits func(*entry) bool) *entry {
	found := d.heap.first(fits)
	for e := d.first; e != nil && (found == nil || e.deadline.Before(found.deadline)); e = e.after {
		if fits(e) {
			return e
		}
	}
	return found
}

// soonest returns the first n deadlines in order, fewer when there are not so many.
func (d *deadlines) soonest(n int) []time.Time {
	all, e := make([]time.Time, 0, min(n, d.len())), d.first
	heap := d.heap.soonest(n)
	for len(all) < cap(all) {
		if e == nil || len(heap) > 0 && heap[0].Before(e.deadline) {
			all, heap = append(all, heap[0]), heap[1:]
			continue
		}
		all, e = append(all, e.deadline), e.after
	}
	return all
}

// top is the entry that is due first, nil without one.
func (d dueHeap) top() *entry {
	if len(d) == 0 {
		return nil
	}
	return d[0]
}

func (d *dueHeap) push(e *entry) {
	*d = append(*d, e)
	e.heapIndex = int32(len(*d))
	d.up(len(*d) - 1)
}

func (d *dueHeap) remove(i int) {
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
func (d dueHeap) up(i int) bool {
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

func (d dueHeap) down(i int) {
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
func (d dueHeap) first(fits func(*entry) bool) (found *entry) {
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
func (d dueHeap) soonest(n int) []time.Time {
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
	of     dueHeap
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
