package vip

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// poolsAtOnce is how many entries SetPools looks at, or gives another pool, before it lets others
// have the allocator's lock; Allocator.poolsAtOnce in tests.
const poolsAtOnce = 256

// SetPools replaces the pools: to grow or shrink one, to disable it, to change its quotas. No live
// lease is touched: one whose address is in no pool any more stays in a pool of its old name, which
// Stats shows as Gone, until it has ended and cooled down. Requests that wait look at the new pools
// at the end, in their order; the part of a quota that an allocation in progress or an uncertain
// one has reserved stays reserved.
//
// Other calls go on meanwhile. Addresses that change their pool do so a few hundred at a time, in
// order: each is in its old pool or in its new one at any moment. The other rules of a pool that
// stays come into force when all have. Free addresses that come into a pool are handed out after
// the ones that it has. Once the store has been read, a ctx that is done stops nothing; then, and
// when a shared store does not answer at the end, the pools are the new ones. Calls of SetPools
// wait for each other.
func (a *Allocator) SetPools(ctx context.Context, pools []Pool) error {
	layouts, err := layOutAll(pools)
	if err != nil {
		return err
	}
	a.settingPools.Lock()
	defer a.settingPools.Unlock()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("set pools: %w", err)
	}
	if a.changeRules(pools, layouts) {
		if !a.shared {
			return nil
		}
		if err := a.readAll(ctx); err != nil {
			return fmt.Errorf("load leases: %w", err)
		}
		return nil
	}
	began := a.cfg.Now()
	var records []Record
	if a.shared || a.grows(layouts) {
		if records, err = a.store.List(ctx, addrPrefix); err != nil {
			return fmt.Errorf("load leases: %w", err)
		}
	}
	r, err := a.beginRepool(pools, layouts, records)
	if err != nil {
		return fmt.Errorf("load leases: %w", err)
	}
	r.look()
	r.count()
	r.move()
	r.adapt()
	if !a.shared {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.takeAll(ctx, records, began); err != nil {
		return fmt.Errorf("load leases: %w", err)
	}
	return nil
}

// grows reports whether the layouts have addresses that no pool has now: the store may have records
// of them.
func (a *Allocator) grows(layouts []layout) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range layouts {
		for _, r := range l.ranges {
			for first := r.First; first.IsValid() && !r.Last.Less(first); {
				p := a.x.poolOf(first)
				if p == nil {
					return true
				}
				first = p.endOf(first).Next()
			}
		}
	}
	return false
}

// repool is one call of SetPools that changes which addresses the pools have.
type repool struct {
	a       *Allocator
	changes []poolChange
	will    rangeIndex[*poolChange] // by the ranges that the pools will have
	// of which the pool or the reservation changes, or that come from the store
	moves  []*entry
	counts []*entry // to be counted for the quotas of a pool that had none
	adapts []*entry // which a longer or shorter cool-down, or forgetting, may concern
}

// poolChange is the change of one pool. Its fields are not changed once look has begun.
type poolChange struct {
	p        *pool
	from, to layout
	reserved map[netip.Addr]string // from
	next     *Pool                 // nil when the pool is taken away
	counted  bool                  // its teams are to be counted
	adapted  bool                  // its entries are to be looked at in the end
}

// beginRepool makes the new pools, without addresses yet, and plans the rest. From now on the index
// notes which entries are made.
func (a *Allocator) beginRepool(
	pools []Pool, layouts []layout, records []Record,
) (*repool, error) {
	next := make([]Pool, len(pools))
	for i := range pools {
		next[i] = pools[i].clone()
	}
	stored, err := a.decodeAll(records)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &repool{a: a}
	x := a.x
	order := make([]*pool, 0, len(x.pools))
	kept := map[*pool]bool{}
	for i := range next {
		p := x.byName[next[i].Name]
		if p == nil {
			empty := next[i]
			empty.Reserved = nil
			p = x.newPool(empty, layout{})
			p.public.Store(&next[i])
			x.byName[p.Name] = p
		}
		c := poolChange{p: p, from: p.layout, to: layouts[i], reserved: p.Reserved, next: &next[i]}
		if len(next[i].Quotas) > 0 && !p.countsTeams {
			c.counted = true
			p.countsTeams = true
			for _, claimed := range x.claims {
				claimed.reserveIn(p)
			}
		}
		p.capacity = max(p.capacity, c.to.size-uint64(len(next[i].Reserved)))
		c.adapted = p.CoolDown != next[i].CoolDown || c.to.size > p.sparseAbove && !p.sparse()
		r.changes = append(r.changes, c)
		order = append(order, p)
		kept[p] = true
	}
	for _, p := range x.pools {
		if !kept[p] {
			if !p.gone {
				r.changes = append(r.changes, poolChange{p: p, from: p.layout,
					reserved: p.Reserved})
			}
			order = append(order, p)
		}
	}
	x.pools = order
	x.renumber()
	for i := range r.changes {
		if c := &r.changes[i]; c.next != nil {
			r.will = r.will.with(c.to.ranges, c)
		}
	}
	r.will.sort()
	x.created, x.notesCreated = nil, true
	for _, e := range stored {
		if x.entries.get(e.addr) == nil && r.to(e.addr) != nil {
			if l := e.resting(); l != nil {
				x.learn(l)
			}
			r.moves = append(r.moves, e)
		}
	}
	for _, rec := range records {
		a.revision = max(a.revision, rec.Revision)
	}
	return r, nil
}

// to is the change of the pool that will have addr, nil for none.
func (r *repool) to(addr netip.Addr) *poolChange {
	c, _ := r.will.find(addr)
	return c
}

// look looks at all entries, a part of the table at a time, for the ones that the change concerns.
// It reads their pools without mu: only SetPools changes these.
func (r *repool) look() {
	changeOf := map[*pool]*poolChange{}
	for i := range r.changes {
		changeOf[r.changes[i].p] = &r.changes[i]
	}
	for part := range tableParts {
		r.a.mu.Lock()
		entries := r.a.x.entries.part(part)
		r.a.mu.Unlock()
		for _, e := range entries {
			from, to := changeOf[e.pool], r.to(e.addr)
			if from == nil && to == nil {
				continue // it stays in a former pool
			}
			if from != to || from.reserves(e.addr) {
				r.moves = append(r.moves, e)
			}
			if from != nil && from.counted {
				r.counts = append(r.counts, e)
			}
			if from != nil && from.adapted {
				r.adapts = append(r.adapts, e)
			}
		}
	}
	slices.SortStableFunc(r.moves, func(a, b *entry) int { return a.addr.Compare(b.addr) })
}

// reserves reports whether addr is reserved before the change or after it, but not both.
func (c *poolChange) reserves(addr netip.Addr) bool {
	_, was := c.reserved[addr]
	_, will := c.next.Reserved[addr]
	return was != will
}

// inSlices calls do with mu for each of the entries that is still in the index.
func (r *repool) inSlices(entries []*entry, do func(x *index, e *entry)) {
	for some := range slices.Chunk(entries, r.a.poolsAtOnce) {
		r.a.mu.Lock()
		for _, e := range some {
			if x := r.a.x; x.entries.get(e.addr) == e {
				do(x, e)
			}
		}
		r.a.react(r.a.x.flush())
		r.a.mu.Unlock()
	}
}

// count counts the leases that teams have in pools that had no quotas. The quotas come into force
// later, so that none is exceeded for want of a count.
func (r *repool) count() {
	r.inSlices(r.counts, func(_ *index, e *entry) {
		if e.state == Leased && !e.counted && e.pool.countsTeams {
			e.pool.reserve(e.last().Owner.Team, 1)
			e.counted = true
		}
	})
}

// move gives the pools their new addresses, from the lowest on, and after the last their new rules.
func (r *repool) move() {
	for first := true; first || len(r.moves) > 0; first = false {
		n := min(len(r.moves), r.a.poolsAtOnce)
		var border netip.Addr // from which on the pools are the old ones; not valid for none
		for n < len(r.moves) && r.moves[n].addr == r.moves[n-1].addr {
			n++
		}
		if n < len(r.moves) {
			border = r.moves[n].addr
		}
		layouts := make([]layout, len(r.changes))
		reserved := make([]map[netip.Addr]string, len(r.changes))
		for i := range r.changes {
			layouts[i], reserved[i] = r.changes[i].upTo(border)
		}
		r.step(r.moves[:n], border, layouts, reserved)
		r.moves = r.moves[n:]
	}
}

// upTo is the layout of the pool, with its reserved addresses, when addresses below border have
// their new pool.
func (c *poolChange) upTo(border netip.Addr) (layout, map[netip.Addr]string) {
	var will map[netip.Addr]string
	if c.next != nil {
		will = c.next.Reserved
	}
	if !border.IsValid() {
		return c.to, will
	}
	var l layout
	for _, r := range c.to.ranges {
		if r.First.Less(border) {
			l.ranges = append(l.ranges, Range{r.First, lower(r.Last, border.Prev())})
		}
	}
	for _, r := range c.from.ranges {
		if !r.Last.Less(border) {
			l.ranges = append(l.ranges, Range{higher(r.First, border), r.Last})
		}
	}
	l.measure()
	reserved := map[netip.Addr]string{}
	for addr, why := range will {
		if addr.Less(border) {
			reserved[addr] = why
		}
	}
	for addr, why := range c.reserved {
		if !addr.Less(border) {
			reserved[addr] = why
		}
	}
	return l, reserved
}

func lower(a, b netip.Addr) netip.Addr {
	if b.Less(a) {
		return b
	}
	return a
}

func higher(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

// step moves entries, which are below border, and the addresses below it that have none. Without a
// border it is the last step.
func (r *repool) step(
	entries []*entry, border netip.Addr, layouts []layout, reserved []map[netip.Addr]string,
) {
	a := r.a
	a.mu.Lock()
	defer a.mu.Unlock()
	now, x := a.cfg.Now(), a.x
	a.advance(now)
	a.readUptime()
	later := x.created[:0:0]
	moving := make([]*entry, 0, len(entries)+len(x.created))
	for _, e := range entries {
		if have := x.entries.get(e.addr); have == e || have == nil && e.pool == &unknownPool {
			moving = append(moving, e)
		}
	}
	for _, e := range x.created { // since look
		switch {
		case x.entries.get(e.addr) != e || slices.Contains(moving, e):
		case border.IsValid() && !e.addr.Less(border):
			later = append(later, e)
		default:
			moving = append(moving, e)
		}
	}
	x.created, x.notesCreated = later, border.IsValid()
	// as far as they become free, in the order of their freedom
	slices.SortStableFunc(moving, func(a, b *entry) int { return cmp.Compare(a.freed, b.freed) })
	for _, c := range x.claims {
		c.reserve(-1)
	}
	priors := make([]prior, len(moving))
	for i, e := range moving {
		if e.pool != &unknownPool {
			priors[i] = e.prior()
			x.detach(e)
		}
	}
	for i := range r.changes {
		r.changes[i].p.layOut(layouts[i], reserved[i])
	}
	x.renumber()
	for i, e := range moving {
		x.attach(e, priors[i], now)
	}
	for _, c := range x.claims {
		c.reserve(1)
	}
	if !border.IsValid() {
		r.end()
	}
	a.react(x.flush())
	if !border.IsValid() {
		a.poolsChanged()
	}
}

// end is the end of the last step: it puts the new rules into force.
func (r *repool) end() {
	x, away := r.a.x, map[*pool]bool{}
	for i := range r.changes {
		switch c := &r.changes[i]; {
		case c.next == nil:
			delete(x.byName, c.p.Name)
			away[c.p] = true
		default:
			c.p.Pool = *c.next
			c.p.capacity = c.p.size - uint64(len(c.next.Reserved))
			c.p.public.Store(c.next)
		}
	}
	x.pools = slices.DeleteFunc(x.pools, func(p *pool) bool { return away[p] })
	x.renumber()
	r.a.lost.keep(func(addr netip.Addr) bool { return x.poolOf(addr) != nil })
}

// adapt brings the rests to the new cool-downs, and notes free addresses that may be forgotten.
func (r *repool) adapt() {
	r.inSlices(r.adapts, func(x *index, e *entry) {
		if e.state == Cooling || e.state == Quarantined {
			was, now := e.prior(), r.a.cfg.Now()
			x.settleEntry(e, e.pool, now)
			x.place(e, e.last(), nil, e.rev, now)
			if e.state != was.state {
				x.note(e, was, nil, now)
			}
		}
		if e.queued {
			e.pool.idle(e)
		}
	})
}

// layOut gives p other addresses. The entries of addresses that it loses or gets, reserves or
// reserves no more, are not in it.
func (p *pool) layOut(l layout, reserved map[netip.Addr]string) {
	var fresh netip.Addr
	if p.size > 0 {
		if fresh = p.at(min(p.fresh, p.size-1)); p.fresh >= p.size {
			fresh = fresh.Next()
		}
	}
	p.counts[Reserved] += uint64(len(reserved)) - uint64(len(p.Reserved))
	p.layout, p.Reserved, p.fresh = l, reserved, 0
	if fresh.IsValid() {
		p.fresh = l.below(fresh)
	}
}

// detach takes e out of its pool.
func (x *index) detach(e *entry) {
	p, deadline := e.pool, e.deadline
	x.unlink(e)
	e.deadline = time.Time{}
	p.due.set(e, e.dueClass)
	e.deadline, e.idle = deadline, false
	p.known--
	x.flags.ready.add(p.number)
	if _, reserved := p.Reserved[e.addr]; reserved {
		p.knownReserved--
		p.counts[Reserved]++
	}
}

// attach puts e, which is in no pool, into the one that has its address now; a former one when none
// has it and it is in use. Otherwise it drops e.
func (x *index) attach(e *entry, was prior, now time.Time) {
	p, isNew := x.poolOf(e.addr), e.pool == &unknownPool
	x.settleEntry(e, cmp.Or(p, &goneForGood), now)
	idle := !e.busy && !e.uncertain
	rested := e.state == Free || e.state == Reserved || x.cooled(e.last(), now)
	if p == nil && rested && idle {
		if !isNew {
			x.drop(e, was, now)
		}
		return
	}
	if p == nil {
		p = x.formerPool(e.formerName())
	}
	e.pool = p
	if x.add(e); e.state == Reserved {
		p.counts[Reserved]--
	}
	x.link(e, now)
	x.chain(e)
	if isNew || e.state != was.state && was.state != Free && was.state != Leased {
		x.note(e, was, nil, now)
	}
}

// drop takes e, whose address is in no pool and free, out of the index. Its record stays.
func (x *index) drop(e *entry, was prior, now time.Time) {
	if was.state != Free && was.state != Reserved {
		e.state = Free
		x.note(e, was, nil, now)
	}
	x.unchain(e)
	x.entries.remove(e.addr)
	e.rev = 0
	x.unlist(e)
}
