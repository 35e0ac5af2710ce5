package vip

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// catalog is the copy of the index that List and Snapshot read, in order of addresses. It has a
// lock of its own, so that reading holds up no change. The index marks the entries that have
// changed; syncCatalog takes them over. Without a reader nothing is copied.
type catalog struct {
	mu     sync.RWMutex
	of     *index // the index that it is a copy of
	byAddr viewSet
	kinds  traitKinds // of the traits below: those that queries have asked for
	traits map[trait]*viewSet
}

// view is an entry at one moment. It is never changed.
type view struct {
	addr   netip.Addr
	pool   *pool
	record []byte // the last tenure as it is stored
	rev    uint64
	asked  uint32
	state  State
}

// trait is something that leases are found by.
type trait struct {
	kind traitKind
	name string
	addr netip.AddrPort
}

type traitKind uint8

// The kinds of traits. The index knows the leases of a task: see Allocator.viewsOf.
const (
	ofTeam traitKind = iota
	ofCluster
	ofInstance
	atHostPort
)

// traitKinds is a set of kinds.
type traitKinds uint8

func (k traitKinds) has(kind traitKind) bool { return k&(1<<kind) != 0 }

// syncAtOnce is how many entries syncCatalog copies before it lets others have the allocator's
// lock.
const syncAtOnce = 256

// view is e as it is now, nil when it has no record.
func (e *entry) view() *view {
	if e.rev == 0 {
		return nil
	}
	return &view{e.addr, e.pool, e.encoded(), e.rev, e.asked, e.state}
}

// last is the tenure of the view.
func (v *view) last() tenure {
	l, err := decodeTenure(v.record)
	if err != nil {
		return damaged(v.addr, v.rev, err)
	}
	return l
}

// syncCatalog brings the catalog up to now, with traits of the kinds wanted, and returns now. When
// it returns, the catalog's lock is held for reading, and the catalog is the index as it was at
// that moment. It is called without mu.
func (a *Allocator) syncCatalog(wanted traitKinds) time.Time {
	c := &a.catalog
	c.mu.Lock()
	var changes []viewChange
	var now time.Time
	for more := true; more; {
		a.mu.Lock()
		now = a.cfg.Now()
		a.advance(now)
		if c.of != a.x {
			c.of, c.byAddr, c.kinds, c.traits, changes = a.x, viewSet{}, 0, nil, nil
		}
		first := c.byAddr.len == 0 && c.kinds == 0 // all together are put in faster
		if !first {
			changes = changes[:0]
		}
		for n := min(syncAtOnce, len(a.x.dirty)); n > 0; n-- {
			e := a.x.clean()
			if e.rev == 0 { // it was forgotten: another may have taken its place
				if now := a.x.entries.get(e.addr); now != nil {
					e = now
					e.listed = e.rev != 0
				}
			}
			changes = append(changes, viewChange{e.addr, e.view()})
		}
		more = len(a.x.dirty) > 0
		a.mu.Unlock()
		switch {
		case !first:
			for _, change := range changes {
				c.put(change.addr, change.to)
			}
		case !more:
			c.byAddr.fill(changes)
		}
	}
	if more := wanted &^ c.kinds; more != 0 {
		if c.kinds |= more; c.traits == nil {
			c.traits = map[trait]*viewSet{}
		}
		for v := range c.byAddr.after(netip.Addr{}) {
			c.addTraits(v, more)
		}
	}
	c.mu.Unlock()
	c.mu.RLock()
	return now
}

// viewChange is the view that the catalog takes over for an address: nil when it has no record any
// more.
type viewChange struct {
	addr netip.Addr
	to   *view
}

// put makes v the view of addr; nil takes it out.
func (c *catalog) put(addr netip.Addr, v *view) {
	if old := c.byAddr.get(addr); old != nil {
		for _, t := range old.traits(c.kinds) {
			set := c.traits[t]
			if set.remove(addr); set.len == 0 {
				delete(c.traits, t)
			}
		}
	}
	if v == nil {
		c.byAddr.remove(addr)
		return
	}
	c.byAddr.put(v)
	c.addTraits(v, c.kinds)
}

func (c *catalog) addTraits(v *view, kinds traitKinds) {
	for _, t := range v.traits(kinds) {
		set := c.traits[t]
		if set == nil {
			set = &viewSet{}
			c.traits[t] = set
		}
		set.put(v)
	}
}

// traits are all of the kinds that the lease of the view can be found by, each once.
func (v *view) traits(kinds traitKinds) []trait {
	if kinds == 0 {
		return nil
	}
	l, err := decodeTenure(v.record)
	if err != nil {
		return nil
	}
	var all []trait
	add := func(t trait) {
		if kinds.has(t.kind) && (t.name != "" || t.addr.IsValid()) && !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	add(trait{kind: ofTeam, name: l.Owner.Team})
	for cluster := range l.Owner.Overrides {
		add(trait{kind: ofCluster, name: cluster})
	}
	for _, i := range l.Binding.Instances {
		add(trait{kind: ofInstance, name: i.ID})
		add(trait{kind: ofCluster, name: i.Cluster})
		add(trait{kind: atHostPort, addr: i.Addr})
	}
	return all
}

// narrowest is the smallest set that has all leases of q, and reports whether each of them matches
// q as far as owner and instances go.
func (c *catalog) narrowest(q *Query) (set *viewSet, exact bool) {
	set, exact = &c.byAddr, q.Version == ""
	asked := 0
	for t := range q.traits {
		asked++
		some := c.traits[t]
		if some == nil {
			return &viewSet{}, true
		}
		if some.len < set.len || asked == 1 {
			set = some
		}
	}
	return set, exact && asked < 2
}

// traits yields the traits that q asks for.
func (q *Query) traits(yield func(trait) bool) {
	for _, t := range [...]trait{
		{kind: ofTeam, name: q.Team}, {kind: ofCluster, name: q.Cluster},
		{kind: ofInstance, name: q.Instance}, {kind: atHostPort, addr: q.InstanceAddr},
	} {
		if (t.name != "" || t.addr.IsValid()) && !yield(t) {
			return
		}
	}
}

// kinds are the kinds of the traits that q asks for.
func (q *Query) kinds() (all traitKinds) {
	for t := range q.traits {
		all |= 1 << t.kind
	}
	return all
}

// longestChunk is how many views a chunk of a viewSet has at most.
const longestChunk = 256

// viewSet is a set of views, one for each address, in order of addresses: chunks that are not
// empty, of which an insertion moves one.
type viewSet struct {
	chunks [][]*view
	len    int
}

// at finds the place of the first view with an address of addr or above.
func (s *viewSet) at(addr netip.Addr) (chunk, i int) {
	chunk, _ = slices.BinarySearchFunc(s.chunks, addr, func(c []*view, addr netip.Addr) int {
		return c[len(c)-1].addr.Compare(addr)
	})
	if chunk < len(s.chunks) {
		i, _ = slices.BinarySearchFunc(s.chunks[chunk], addr, func(v *view, addr netip.Addr) int {
			return v.addr.Compare(addr)
		})
	}
	return chunk, i
}

func (s *viewSet) get(addr netip.Addr) *view {
	if c, i := s.at(addr); c < len(s.chunks) && s.chunks[c][i].addr == addr {
		return s.chunks[c][i]
	}
	return nil
}

// put adds v, in place of the one of its address.
func (s *viewSet) put(v *view) {
	c, i := s.at(v.addr)
	switch {
	case c == len(s.chunks) && c == 0:
		s.chunks = append(s.chunks, []*view{v})
		s.len++
		return
	case c == len(s.chunks): // above all others
		c, i = c-1, len(s.chunks[c-1])
	case s.chunks[c][i].addr == v.addr:
		s.chunks[c][i] = v
		return
	}
	s.len++
	full := slices.Insert(s.chunks[c], i, v)
	s.chunks[c] = full
	if len(full) <= longestChunk {
		return
	}
	keep := longestChunk / 2
	if i == longestChunk { // addresses that come in order fill their chunks
		keep = longestChunk
	}
	s.chunks = slices.Insert(s.chunks, c+1, slices.Clone(full[keep:]))
	clear(full[keep:])
	s.chunks[c] = full[:keep:keep]
}

// fill puts views into s, which is empty, all at once. The last change of an address counts.
func (s *viewSet) fill(changes []viewChange) {
	slices.Reverse(changes) // after a start they are in order then: clean takes the last
	slices.SortStableFunc(changes, func(a, b viewChange) int { return a.addr.Compare(b.addr) })
	for i, change := range changes {
		if change.to == nil || i > 0 && changes[i-1].addr == change.addr {
			continue
		}
		if s.len%longestChunk == 0 {
			left := min(len(changes)-i, longestChunk)
			s.chunks = append(s.chunks, make([]*view, 0, left))
		}
		last := &s.chunks[len(s.chunks)-1]
		*last = append(*last, change.to)
		s.len++
	}
}

func (s *viewSet) remove(addr netip.Addr) {
	c, i := s.at(addr)
	if c == len(s.chunks) || s.chunks[c][i].addr != addr {
		return
	}
	s.len--
	if s.chunks[c] = slices.Delete(s.chunks[c], i, i+1); len(s.chunks[c]) == 0 {
		s.chunks = slices.Delete(s.chunks, c, c+1)
	}
}

// after yields the views of addresses above addr, in order.
func (s *viewSet) after(addr netip.Addr) func(yield func(*view) bool) {
	return func(yield func(*view) bool) {
		c, i := s.at(addr)
		if c < len(s.chunks) && s.chunks[c][i].addr == addr {
			i++
		}
		for ; c < len(s.chunks); c, i = c+1, 0 {
			for _, v := range s.chunks[c][i:] {
				if !yield(v) {
					return
				}
			}
		}
	}
}
