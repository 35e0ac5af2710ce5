package vip

import (
	"net/netip"
	"time"
	"unsafe"
)

// entry is one address that is or was in use. There is one for each: the order of its fields leaves
// no gaps, and the key and the record have their length apart. It takes 176 bytes, as many as the
// allocator of Go rounds up to.
type entry struct {
	addr       netip.Addr
	keyText    *byte // see key
	pool       *pool
	lease      *tenure    // see last; nil when it is not at hand
	recordText *byte      // see record
	rev        uint64     // in the store; 0 when it has no record
	stored     *memRecord // in a MemStore, when that has had it

	recordSize uint32
	keySize    uint16

	state     State
	dueClass  dueClass
	busy      bool // a commit is in flight; the entry is not to be touched
	uncertain bool // it has a commit whose outcome is not known: see Allocator.uncertainOf
	queued    bool // in the pool's free queue
	idle      bool // in pool.idles
	listed    bool // in the catalog
	chained   bool // in index.owned, or behind one that is
	overdue   bool // a lease that is over: in index.overdue
	counted   bool // a lease that is counted in pool.teams
	resent    bool // the store may still have a second commit that makes its first record

	asked     uint32 // see Snapshot.Asked
	heapIndex int32  // in the heap of its class in pool.due plus 1, or inChain; 0 when not there
	dirtyAt   int32  // in index.dirty plus 1; 0 when not there

	// when state ends by itself
	deadline time.Time
	// the expiry, in Unix ns, that has an Expiring event already; 0 for none
	announcedExpiry int64

	freed         int64         // see tenure.freed
	rests         time.Duration // until then by x.uptime; 0 when that does not measure it
	next          *entry        // of the same owner: see chained
	before, after *entry        // in the pool's free queue, or in a chain of pool.due
}

// newEntry is an entry that is in no pool yet. Its key is in the store, and begins with addrPrefix.
func newEntry(addr netip.Addr, key string) *entry {
	e := &entry{addr: addr}
	e.setKey(key)
	return e
}

func (e *entry) setKey(key string) {
	e.keyText, e.keySize = unsafe.StringData(key), uint16(len(key))
}

// key is that of the record in the store.
func (e *entry) key() string { return unsafe.String(e.keyText, e.keySize) }

// record is the last tenure as it is stored; nil when that is not at hand.
func (e *entry) record() []byte { return unsafe.Slice(e.recordText, e.recordSize) }

func (e *entry) setRecord(record []byte) {
	e.recordText, e.recordSize = unsafe.SliceData(record), uint32(len(record))
}

func (e *entry) tableKey() netip.Addr { return e.addr }

// resting is the last tenure of e if the address rests, as far as the record says; read at a glance
// when it is not at hand.
func (e *entry) resting() *tenure {
	if e.rev == 0 || e.state != Cooling && e.state != Quarantined {
		return nil
	}
	if e.lease == nil {
		if l, err := decodeTenure(e.record()); err == nil {
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
	if e.recordText == nil {
		return
	}
	// decodeAll could read it: the store does not keep to its contract
	if err := e.lease.read(e.record()); err != nil {
		*e.lease = damaged(e.addr, e.rev, err)
		e.setRecord(nil)
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
	if e.recordText == nil {
		e.setRecord(encodeTenure(e.last()))
	}
	return e.record()
}

// text is the address as text.
func (e *entry) text() string { return e.key()[len(addrPrefix):] }

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
