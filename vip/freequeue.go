package vip

import (
	"sync/atomic"
	"time"
)

// pool is a Pool with its free queue: first the addresses never used, in order, then the others,
// longest free first.
type pool struct {
	Pool                        // its name never changes
	layout                      // SetPools changes it
	public atomic.Pointer[Pool] // the Pool that List and Watch read, without the lock
	gone   bool
	number int    // its place in index.pools
	alone  choice // of it alone
	// the index's
	flags *poolFlags
	// see holds
	capacity uint64
	// but for Free, which is the rest of size
	counts [states]uint64
	// addresses that have an entry
	known uint64
	// the reserved ones among them
	knownReserved uint64
	// index of the address that popFree looks at next for one without an entry
	fresh uint64
	// see sparse
	sparseAbove uint64
	// the index's
	grace time.Duration
	// the index's
	warm *warmth
	// that became free and may be forgotten, in that order
	idles []*entry
	// free queue
	first, last *entry
	// its length
	queue uint64
	due   dues
	// no deadline in due is before it
	dueAt time.Time
	// in index.dues plus 1; 0 when not there
	dueIndex int
	// leases that are over and have not been ended yet
	overdue uint64
	// of requests that wait for it, one for each team while there are quotas
	queues []*waitQueue
	// leases of each team, those in flight included; while countsTeams
	teams map[string]int
	// once there have been quotas
	countsTeams bool
}

// popFree takes the next address out of the free queue of p; nil when there is none.
func (x *index) popFree(p *pool) *entry {
	for p.ready() > p.queue { // an address that has no entry
		if p.fresh == p.size {
			p.fresh = 0 // some were forgotten
		}
		addr := p.at(p.fresh)
		p.fresh++
		if _, reserved := p.Reserved[addr]; !reserved && x.entries.get(addr) == nil {
			return x.entry(p, addr)
		}
	}
	if e := p.first; e != nil {
		p.dequeue(e)
		return e
	}
	return nil
}

// ready is how many addresses popFree would find.
func (p *pool) ready() uint64 {
	return p.queue + p.size - p.known - (uint64(len(p.Reserved)) - p.knownReserved)
}

// enqueue puts e at the end of the free queue. One that was taken out and not handed out after all
// goes back to its place near the start: at the start if it was never used, else before the first
// that became free with it or later. No request takes out more than MaxTogether, so enqueue looks
// no further.
func (p *pool) enqueue(e *entry) {
	if p.first == nil || e.rev == 0 {
		p.enqueueFirst(e)
		return
	}
	if e.freed < p.last.freed {
		at := p.first
		for range MaxTogether {
			if at.freed >= e.freed {
				p.enqueueBefore(at, e)
				return
			}
			at = at.after // not nil: the last one became free later
		}
	}
	p.count(e)
	e.before, p.last.after, p.last = p.last, e, e
}

func (p *pool) enqueueBefore(at, e *entry) {
	if at == p.first {
		p.enqueueFirst(e)
		return
	}
	p.count(e)
	e.before, e.after = at.before, at
	at.before.after, at.before = e, e
}

// count counts e, which goes into the free queue.
func (p *pool) count(e *entry) {
	e.queued = true
	p.queue++
	p.flags.ready.add(p.number)
}

func (p *pool) enqueueFirst(e *entry) {
	p.count(e)
	if p.first == nil {
		p.first, p.last = e, e
		return
	}
	e.after, p.first.before, p.first = p.first, e, e
}

func (p *pool) dequeue(e *entry) {
	if !e.queued {
		return
	}
	if e.before != nil {
		e.before.after = e.after
	} else {
		p.first = e.after
	}
	if e.after != nil {
		e.after.before = e.before
	} else {
		p.last = e.before
	}
	e.before, e.after, e.queued = nil, nil, false
	p.queue--
}

// free returns the number of addresses of p without a holder, including the ones with a commit in
// progress.
func (p *pool) free() uint64 {
	if p.gone {
		return 0
	}
	taken := p.counts[Reserved]
	for _, s := range [...]State{Leased, Draining, Cooling, Quarantined} {
		taken += p.counts[s]
	}
	return p.size - taken
}
