package vip

// warmSize is how many tenures are at hand in decoded form, besides the stored form that each entry
// keeps. A call for a lease is mostly followed by another one soon.
const warmSize = 256

// warmth holds the entries whose tenure is at hand, in a ring: a further one takes the place of the
// one that came first, which goes back to the stored form.
type warmth struct {
	ring [warmSize]*entry
	next int
}

// take returns a zero tenure for e.
func (w *warmth) take(e *entry) *tenure {
	if w == nil { // of an entry that load has not yet assigned to a pool
		return new(tenure)
	}
	old := w.ring[w.next]
	w.ring[w.next] = e
	w.next = (w.next + 1) % warmSize
	if old == nil || old.lease == nil {
		return new(tenure)
	}
	l := old.lease
	if old.rev != 0 {
		old.encoded()
	}
	old.lease = nil
	*l = tenure{}
	return l
}
