package vip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Event is one change of one address. It is as large as a few words, and the same for all watchers:
// its lease is decoded when it is asked for.
type Event struct {
	Revision uint64 // grows from event to event
	Kind     EventKind
	At       time.Time

	in *segment
}

// Lease is the lease as it was after the change. Each call decodes it; the caller owns it.
func (e Event) Lease() Lease {
	if e.in == nil {
		return Lease{}
	}
	k := &e.in.kept[e.Revision-e.in.first]
	v := view{record: unsafe.Slice(k.record, k.recordSize), rev: e.Revision}
	l := v.last()
	l.show(l.Addr, k.state, k.pool)
	return l.Lease
}

// MarshalJSON implements json.Marshaler: revision (as text), kind, at and lease. The event is
// encoded once for all watchers: the caller does not change the result.
func (e Event) MarshalJSON() ([]byte, error) {
	if e.in == nil {
		return e.encode()
	}
	kept := &e.in.read.Load().json[e.Revision-e.in.first]
	if shared := kept.Load(); shared != nil {
		return *shared, nil
	}
	text, err := e.encode()
	if err == nil {
		kept.Store(&text)
	}
	return text, err
}

func (e Event) encode() ([]byte, error) {
	return json.Marshal(struct {
		Revision uint64    `json:"revision,string"`
		Kind     EventKind `json:"kind"`
		At       time.Time `json:"at"`
		Lease    Lease     `json:"lease"`
	}{e.Revision, e.Kind, e.At, e.Lease()})
}

// EventKind is the kind of a change.
type EventKind string

// The kinds of events.
const (
	Allocated EventKind = "allocated"
	Renewed   EventKind = "renewed"
	Bound     EventKind = "bound"
	// Expires has passed, Config.Grace has not: told once, by Sweep
	Expiring EventKind = "expiring"
	// released, expired or taken away: Lease.Reason says which
	Ended EventKind = "ended"
	// the cool-down begins after a drain
	Drained EventKind = "drained"
	// as a bad address
	Quarantine EventKind = "quarantined"
	// taken out of quarantine: it drains or cools down
	Restored EventKind = "restored"
	// it has rested, or the store has lost its record; Lease.State is Reserved when the pool reserves
	// it by now
	BecameFree EventKind = "free"
)

const (
	epochKey    = "epoch"
	epochBits   = 40      // a revision is the epoch of its allocator, shifted by this, and a count
	firstEpochs = 1 << 23 // a new store begins with one of so many
	keptEvents  = 32768   // at least
	segmentSize = 256
	// wakePause is the pause before the waiters are woken again, for each of them, between the
	// shortest and the longest.
	wakePause     = 50 * time.Microsecond
	shortestPause = time.Millisecond
	longestPause  = 20 * time.Millisecond
)

// ErrCompacted is returned by Watch when it cannot return the events after a revision: too much has
// happened since, or the revision is another allocator's. The caller takes Revision, lists, and
// watches from there.
var ErrCompacted = errors.New("compacted")

// Revision is the revision of the last event. The results of List afterwards include it.
func (a *Allocator) Revision() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	return a.events.last()
}

// Watch returns some of the events after a revision, oldest first, and waits until there is one.
// The next call takes the revision of the last. The events are shared with other callers, which do
// not change them. An event after a quiet time is returned at once, the events of a busy time
// together: the more callers wait, the longer, up to 20 ms. Nothing is kept for a caller that does
// not come back: revisions survive a reconnection, not a restart of the allocator; after that, and
// when more than 32,768 events have passed, the error is ErrCompacted. The event that an address
// became free comes when the allocator sees it, at the latest in the next sweep.
func (a *Allocator) Watch(ctx context.Context, after uint64) ([]Event, error) {
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("watch after %d: %w", after, context.Cause(ctx))
		}
		more := a.events.more()
		events, err := a.events.since(after)
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-more:
		case <-ctx.Done():
		}
	}
}

// eventLog keeps the latest events. One at a time adds, any number read, and no reader holds up the
// one that adds.
type eventLog struct {
	segments atomic.Pointer[[]*segment] // oldest first, at least one; the slice is never changed
	awaited  atomic.Bool                // a reader may wait for the next event

	mu    sync.Mutex    // guards the fields below
	told  time.Time     // when the readers that waited were last told
	count int           // of readers that may wait
	ahead chan struct{} // closed at the next event; nil without a waiter
}

// segment is a run of events, of which the first len are there and are never changed. It holds them
// in short form until the first reader comes.
type segment struct {
	first uint64 // revision of the first
	len   atomic.Int32
	kept  [segmentSize]keptEvent
	read  atomic.Pointer[readEvents] // nil before the first reader
}

// keptEvent holds the data from which an event is decoded when it is asked for.
type keptEvent struct {
	record     *byte // the tenure as it is stored
	pool       *pool
	at         int64 // in Unix ns
	recordSize uint32
	kind       eventCode
	state      State
}

// readEvents are the events of a segment as its readers share them.
type readEvents struct {
	len    atomic.Int32 // that are there, and are never changed
	events [segmentSize]Event
	json   [segmentSize]atomic.Pointer[[]byte]
}

// eventCode is an EventKind as a number.
type eventCode uint8

const (
	allocated eventCode = iota
	renewed
	bound
	expiring
	ended
	drained
	quarantined
	restored
	becameFree
)

var eventKinds = [...]EventKind{allocated: Allocated, renewed: Renewed, bound: Bound,
	expiring: Expiring, ended: Ended, drained: Drained, quarantined: Quarantine,
	restored: Restored, becameFree: BecameFree}

// pendingEvent is an event that has no revision yet.
type pendingEvent struct {
	kind   eventCode
	at     time.Time
	record []byte
	state  State
	pool   *pool
}

// begin makes last the revision of the event before the first.
func (n *eventLog) begin(last uint64) { n.segments.Store(&[]*segment{{first: last + 1}}) }

func (n *eventLog) newest() *segment {
	all := *n.segments.Load()
	return all[len(all)-1]
}

func (n *eventLog) last() uint64 {
	s := n.newest()
	return s.first + uint64(s.len.Load()) - 1
}

func (n *eventLog) add(h *pendingEvent) {
	s := n.newest()
	i := s.len.Load()
	if i == segmentSize {
		all := *n.segments.Load()
		if len(all) > keptEvents/segmentSize {
			all = all[1:]
		}
		s = &segment{first: s.first + segmentSize}
		all = append(slices.Clone(all), s)
		n.segments.Store(&all)
		i = 0
	}
	s.kept[i] = keptEvent{unsafe.SliceData(h.record), h.pool, h.at.UnixNano(),
		uint32(len(h.record)), h.kind, h.state}
	s.len.Store(i + 1)
	if n.awaited.Load() && n.awaited.CompareAndSwap(true, false) {
		n.wake()
	}
}

// wake wakes the readers that wait, not before a pause since the last time: many readers that wake
// for every single event would take all processors.
func (n *eventLog) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	pause := min(max(time.Duration(n.count)*wakePause, shortestPause), longestPause)
	time.AfterFunc(pause-time.Since(n.told), func() {
		n.mu.Lock()
		ahead := n.ahead
		n.ahead, n.told, n.count = nil, time.Now(), 0
		n.mu.Unlock()
		if ahead != nil {
			close(ahead)
		}
	})
}

// more returns a channel that is closed after the next event.
func (n *eventLog) more() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ahead == nil {
		n.ahead = make(chan struct{})
	}
	n.count++
	n.awaited.Store(true)
	return n.ahead
}

// since returns events after a revision, as many as are in one segment.
func (n *eventLog) since(after uint64) ([]Event, error) {
	all := *n.segments.Load()
	oldest, newest := all[0].first, all[len(all)-1]
	last := newest.first + uint64(newest.len.Load()) - 1
	if after > last || after+1 < oldest {
		return nil, fmt.Errorf("watch after %d: the events from %d to %d are kept: %w", after,
			oldest, last, ErrCompacted)
	}
	if after == last {
		return nil, nil
	}
	s := all[(after+1-oldest)/segmentSize]
	there := s.len.Load()
	read := s.read.Load()
	if read == nil || read.len.Load() < there {
		read = n.unfold(s, there)
	}
	return read.events[after+1-s.first : there : there], nil
}

// unfold makes at least the first n events of s ready for readers.
func (n *eventLog) unfold(s *segment, there int32) *readEvents {
	n.mu.Lock()
	defer n.mu.Unlock()
	read := s.read.Load()
	if read == nil {
		read = &readEvents{}
		s.read.Store(read)
	}
	for i := read.len.Load(); i < there; i++ {
		k := &s.kept[i]
		read.events[i] = Event{s.first + uint64(i), eventKinds[k.kind],
			time.Unix(0, k.at).UTC(), s}
		read.len.Store(i + 1)
	}
	return read
}

// note adds the event of e's change from was. record is the encoded tenure, that of the ended lease
// when there is none any more; nil to encode it here.
func (x *index) note(e *entry, was prior, record []byte, now time.Time) {
	kind := renewed
	switch {
	case e.rev == 0 && was.state == Leased: // the store was restored to before it
		kind = ended
	case e.rev == 0 && was.rev == 0:
		return
	case e.state == Leased && (was.id != e.last().ID || was.state != Leased):
		kind = allocated
	case e.state == Leased && !was.since.Equal(e.last().Binding.Since):
		kind = bound
	case e.state == Leased && was.rev == e.rev:
		kind = expiring
	case e.state == Leased:
	case e.state == Quarantined:
		kind = quarantined
	case was.state == Leased,
		e.state == Draining && (was.state == Free || was.state == Reserved || was.state == Cooling):
		kind = ended // the second: a store that was restored has its records again
	case was.state == Quarantined && (e.state == Draining || e.state == Cooling):
		kind = restored
	case e.state == Cooling:
		kind = drained
	case (e.state == Free || e.state == Reserved) && was.state != Free && was.state != Reserved:
		kind = becameFree
	default:
		return
	}
	if record == nil {
		record = e.encoded()
	}
	x.out.events = append(x.out.events, pendingEvent{kind, now, record, e.state, e.pool})
}

// begin takes a new epoch from the store, so that the revisions of this allocator are above those
// of any before in this store.
func (a *Allocator) begin(ctx context.Context) error {
	for range maxRounds {
		found, err := a.store.Get(ctx, epochKey, forgetsKey)
		if err != nil {
			return fmt.Errorf("load epoch: %w", err)
		}
		// at random: the allocator before may have begun with an empty store, too
		epoch := rand.Uint64N(firstEpochs)
		if len(found[0].Value) > 0 {
			if epoch, err = strconv.ParseUint(string(found[0].Value), 10,
				64-epochBits); err != nil {
				return fmt.Errorf("load epoch: record %q: %w", epochKey, err)
			}
		}
		value := strconv.AppendUint(nil, epoch+1, 10)
		rev, err := a.store.Commit(ctx, Change{Key: epochKey, Value: value,
			Revision: found[0].Revision})
		if err == nil {
			a.revision, a.forgets = max(a.revision, rev), found[1].Revision != 0
			a.events.begin((epoch + 1) << epochBits)
			return nil
		}
		if !errors.Is(err, ErrRevision) {
			return fmt.Errorf("begin epoch %d: %w", epoch+1, err)
		}
	}
	return fmt.Errorf("begin epoch: %w", ErrContended)
}
