package vip

import (
	"net/netip"
	"time"
)

// entry is one address that is or was in use. There is one for each: the order of its fields leaves
// no gaps.
type entry struct {
	addr   netip.Addr
	key    string // in the store
	pool   *pool
	lease  *tenure    // see last; nil when it is not at hand
	record []byte     // the last tenure as it is stored; nil when that is not at hand
	rev    uint64     // in the store; 0 when it has no record
	stored *memRecord // in a MemStore, when that has had it

	state    State
	dueClass dueClass
	busy     bool // a commit is in flight; the entry is not to be touched
	queued   bool // in the pool's free queue
	idle     bool // in pool.idles
	listed   bool // in the catalog
	chained  bool // in index.owned, or behind one that is
	overdue  bool // a lease that is over: in index.overdue
	counted  bool // a lease that is counted in pool.teams
	resent   bool // the store may still have a second commit that makes its first record

	asked     uint32 // see Snapshot.Asked
	heapIndex int32  // in the heap of its class in pool.due plus 1, or inChain; 0 when not there
	dirtyAt   int32  // in index.dirty plus 1; 0 when not there

	uncertain *commit // a commit whose outcome is not known

	// when state ends by itself
	deadline time.Time
	// the expiry, in Unix ns, that has an Expiring event already; 0 for none
	announcedExpiry int64

	freed         int64         // see tenure.freed
	rests         time.Duration // until then by x.uptime; 0 when that does not measure it
	next          *entry        // of the same owner: see chained
	before, after *entry        // in the pool's free queue, or in a chain of pool.due
}

func (e *entry) tableKey() netip.Addr { return e.addr }

// resting is the last tenure of e if the address rests, as far as the record says; read at a glance
// when it is not at hand.
func (e *entry) resting() *tenure {
	if e.rev == 0 || e.state != Cooling && e.state != Quarantined {
		return nil
	}
	if e.lease == nil {
		if l, err := decodeTenure(e.record); err == nil {
			return &l
		}
	}
	return e.last()
}

// formerName is the name of the pool that e was in.
func (e *entry) formerName() string {
	if e.pool == &unknownPool && e.rev != 0 {
		return e.last().Pool
	}
	return e.pool.Name
}

// last is the last tenure, zero before the first. Its State is the stored one, e.state is the
// present one. The result is good until others have been asked for: see warmth.
func (e *entry) last() *tenure {
	if e.lease == nil {
		e.unfold()
	}
	return e.lease
}

func (e *entry) unfold() {
	e.lease = e.pool.warm.take(e)
	if e.record == nil {
		return
	}
	// decodeAll could read it: the store does not keep to its contract
	if err := e.lease.read(e.record); err != nil {
		*e.lease, e.record = damaged(e.addr, e.rev, err), nil
	}
	e.keepClock(e.lease)
}

// keepClock gives the time at which l, the last tenure of e as it is stored, ends or has cooled
// down the reading of the monotonic clock that it had when it was made.
func (e *entry) keepClock(l *tenure) {
	at := &l.CoolUntil
	if l.State == Leased {
		at = &l.Expires
	}
	kept := e.deadline
	if e.dueClass == over && !kept.IsZero() {
		kept = kept.Add(-e.pool.grace)
	}
	if !kept.IsZero() && kept.Equal(*at) {
		*at = kept
	}
}

// encoded is the last tenure as it is stored.
func (e *entry) encoded() []byte {
	if e.record == nil {
		e.record = encodeTenure(e.last())
	}
	return e.record
}

// text is the address as text.
func (e *entry) text() string { return e.key[len(addrPrefix):] }

// freed is when an address with the last tenure l became free, or will; in Unix ns, 0 for always.
func (l *tenure) freed() int64 {
	switch {
	case !l.CoolUntil.IsZero():
		return l.CoolUntil.UnixNano()
	case !l.Ended.IsZero():
		return l.Ended.UnixNano()
	}
	return 0
}

// prior is the state of an entry before a transition, as far as note compares it.
type prior struct {
	id    string
	state State
	since time.Time // of the binding
	rev   uint64
}

func (e *entry) prior() prior { return prior{e.last().ID, e.state, e.last().Binding.Since, e.rev} }
