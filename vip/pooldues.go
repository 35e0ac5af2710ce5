package vip

import (
	"container/heap"
	"time"
)

// poolDues is a heap of pools that have deadlines, by pool.dueAt: the one that is due first is the
// first.
type poolDues []*pool

// dueBy notes that p has a deadline.
func (x *index) dueBy(p *pool, deadline time.Time) {
	switch {
	case p.dueIndex == 0:
		p.dueAt = deadline
		heap.Push(&x.dues, p)
	case deadline.Before(p.dueAt):
		p.dueAt = deadline
		heap.Fix(&x.dues, p.dueIndex-1)
	default:
		return
	}
	x.soonest = x.dues[0].dueAt
}

// dueNext makes the deadline of e that by which p is due next; nil for none.
func (x *index) dueNext(p *pool, e *entry) {
	if e == nil {
		heap.Remove(&x.dues, p.dueIndex-1)
	} else {
		p.dueAt = e.deadline
		heap.Fix(&x.dues, p.dueIndex-1)
	}
	x.soonest = time.Time{}
	if len(x.dues) > 0 {
		x.soonest = x.dues[0].dueAt
	}
}

func (d poolDues) Len() int { return len(d) }

func (d poolDues) Less(i, j int) bool { return d[i].dueAt.Before(d[j].dueAt) }

func (d poolDues) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].dueIndex, d[j].dueIndex = i+1, j+1
}

// Push implements heap.Interface.
func (d *poolDues) Push(p any) {
	*d = append(*d, p.(*pool))
	(*d)[len(*d)-1].dueIndex = len(*d)
}

// Pop implements heap.Interface.
func (d *poolDues) Pop() any {
	last := len(*d) - 1
	p := (*d)[last]
	(*d)[last], *d = nil, (*d)[:last]
	p.dueAt, p.dueIndex = time.Time{}, 0
	return p
}
