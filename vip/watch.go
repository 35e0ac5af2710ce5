package vip

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Event is one change of one address.
type Event struct {
	Revision uint64    `json:"revision,string"` // grows from event to event
	Kind     EventKind `json:"kind"`
	At       time.Time `json:"at"`
	Lease    Lease     `json:"lease"` // as it is after the change
}

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	Allocated  EventKind = "allocated"
	Renewed    EventKind = "renewed"
	Bound      EventKind = "bound"
	Expiring   EventKind = "expiring"    // Expires has passed, Config.Grace has not: told once, by Sweep
	Ended      EventKind = "ended"       // released, expired or taken away: Lease.Reason says which
	Drained    EventKind = "drained"     // the cool-down begins after a drain
	Quarantine EventKind = "quarantined" // as a bad address
	Restored   EventKind = "restored"    // taken out of quarantine: it drains or cools down
	BecameFree EventKind = "free"
)

const (
	epochKey   = "epoch"
	epochBits  = 40 // a revision is the epoch of its allocator, shifted by this, and a count
	keptEvents = 8192
)

// ErrCompacted is what Watch returns when it cannot say what came after a revision: too much has
// happened since, or the revision is another allocator's. The caller takes Revision, lists, and
// watches from there.
var ErrCompacted = errors.New("compacted")

// Revision is the revision of the last event. What List says afterwards includes it.
func (a *Allocator) Revision() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(a.cfg.Now())
	return a.events.last
}

// Watch returns the events after a revision, oldest first, and waits until there is one. The
// next call takes the revision of the last. Revisions survive a reconnection, not a restart of the
// allocator: after that, and when more than 8192 events have passed, the error is ErrCompacted.
// That an address became free is told when the allocator sees it, at the latest in the next sweep.
func (a *Allocator) Watch(ctx context.Context, after uint64) ([]Event, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("watch after %d: %w", after, context.Cause(ctx))
		}
		events, err := a.events.since(after)
		if err != nil || len(events) > 0 {
			return events, err
		}
		if a.events.more == nil {
			a.events.more = make(chan struct{})
		}
		more := a.events.more
		a.unlocked(func() {
			select {
			case <-more:
			case <-ctx.Done():
			}
		})
	}
}

// eventLog is the ring of events that are kept.
type eventLog struct {
	ring   []pendingEvent
	oldest int           // in the ring
	last   uint64        // revision of the latest
	more   chan struct{} // closed at the next event; made by the first who waits
}

// pendingEvent is an event as it is kept: Watch decodes it.
type pendingEvent struct {
	kind   EventKind
	at     time.Time
	record []byte // the tenure as it is stored
	state  State
	pool   *pool
}

func (n *eventLog) add(h pendingEvent) {
	n.last++
	if len(n.ring) < keptEvents {
		n.ring = append(n.ring, h)
	} else {
		n.ring[n.oldest] = h
		n.oldest = (n.oldest + 1) % keptEvents
	}
	if n.more != nil {
		close(n.more)
		n.more = nil
	}
}

func (n *eventLog) since(after uint64) ([]Event, error) {
	if after > n.last || n.last-after > uint64(len(n.ring)) {
		return nil, fmt.Errorf("watch after %d: the latest is %d: %w", after, n.last, ErrCompacted)
	}
	var events []Event
	for rev := after + 1; rev <= n.last; rev++ {
		back := int(n.last - rev) // from the latest
		h := n.ring[(n.oldest+len(n.ring)-1-back)%len(n.ring)]
		l, err := decodeTenure(h.record)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w: %w", rev, err, ErrCompacted)
		}
		e := entry{addr: l.Addr, lease: &l, rev: rev, state: h.state, pool: h.pool}
		events = append(events, Event{rev, h.kind, h.at.Round(0).UTC(), e.shown()})
	}
	return events, nil
}

// note adds the event of e's change from was. record is the encoded tenure, that of the ended lease
// when there is none any more; nil to encode it here.
func (x *index) note(e *entry, was prior, record []byte, now time.Time) {
	kind := Renewed
	switch {
	case e.rev == 0 && was.state == Leased: // the store was put back to before it
		kind = Ended
	case e.rev == 0:
		return
	case e.state == Leased && (was.id != e.last().ID || was.state != Leased):
		kind = Allocated
	case e.state == Leased && !was.since.Equal(e.last().Binding.Since):
		kind = Bound
	case e.state == Leased && was.rev == e.rev:
		kind = Expiring
	case e.state == Leased:
	case e.state == Quarantined:
		kind = Quarantine
	case was.state == Leased:
		kind = Ended
	case was.state == Quarantined && (e.state == Draining || e.state == Cooling):
		kind = Restored
	case e.state == Cooling:
		kind = Drained
	case e.state == Free && was.state != Free:
		kind = BecameFree
	default:
		return
	}
	if record == nil {
		record = e.encoded()
	}
	x.out.events = append(x.out.events, pendingEvent{kind, now, record, e.state, e.pool})
}

// begin takes a new epoch from the store, so that the revisions of this allocator are above those
// of any before.
func (a *Allocator) begin(ctx context.Context) error {
	for range maxRounds {
		found, err := a.store.Get(ctx, epochKey)
		if err != nil {
			return fmt.Errorf("load epoch: %w", err)
		}
		var epoch uint64
		if len(found[0].Value) > 0 {
			if epoch, err = strconv.ParseUint(string(found[0].Value), 10, 64-epochBits); err != nil {
				return fmt.Errorf("load epoch: record %q: %w", epochKey, err)
			}
		}
		value := strconv.AppendUint(nil, epoch+1, 10)
		_, err = a.store.Commit(ctx, Change{Key: epochKey, Value: value, Revision: found[0].Revision})
		if err == nil {
			a.events.last = (epoch + 1) << epochBits
			return nil
		}
		if !errors.Is(err, ErrRevision) {
			return fmt.Errorf("begin epoch %d: %w", epoch+1, err)
		}
	}
	return fmt.Errorf("begin epoch: %w", ErrContended)
}
