package vip

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// index is the allocator's picture of the store. It is pure: no clock, no lock, no call into the
// allocator; the work that a transition asks for comes back as effects. Every operation of the hot
// path costs the same at any occupancy, and addresses that were never used cost nothing.
type index struct {
	pools   []*pool          // by pool.number
	byName  map[string]*pool // configured ones
	former  map[string]*pool // not configured any more, kept for the leases that they still have
	entries table[netip.Addr, *entry]
	// by the task that has, or was the last to have, the address
	owned table[string, chained]
	// by task, of those that have many addresses
	crowds map[string]*crowd
	// allocations in flight or uncertain, by task: their steps are busy or uncertain
	claims map[string]*commit
	// that have changed since the catalog took them over
	dirty []*entry
	// no deadline of a pool is before it; zero without deadlines
	soonest time.Time
	// the pools that have deadlines
	dues  poolDues
	flags poolFlags
	// see choose
	choices map[choiceKey]*choice
	// see poolOf; nil until that is called
	ranges rangeIndex[*pool]
	// grows whenever pools get other numbers
	numbering uint64
	// by pool.number: see exhausted
	tallies []tally
	// leases that were due when advance last looked, for Sweep
	overdue []*entry
	// entries that are Draining
	drains map[*entry]struct{}
	// that was given to advance
	latest time.Time
	warm   *warmth
	grace  time.Duration // after Expires, in which a lease still lives
	// see pool.sparse
	sparseAbove uint64
	// entries that were made, while notesCreated
	created      []*entry
	notesCreated bool
	uptime               // as it was read last
	out          effects // of the transition that is being made: see flush
}

// effects are the work that a transition of the index asks of its caller. The slices are valid
// until the next transition.
type effects struct {
	events []pendingEvent // to append to the event log, in order
	owners []*entry       // entries that have got a lease, or lost it
	freed  []*pool        // whose free queue has grown
}

// maxScratch is up to how many effects of a transition leave their room to the next one.
const maxScratch = 64

// flush ends a transition and returns its effects.
func (x *index) flush() effects {
	fx := x.out
	x.out = effects{}
	if cap(fx.events) <= maxScratch && cap(fx.owners) <= maxScratch {
		x.out.events, x.out.owners, x.out.freed = fx.events[:0], fx.owners[:0], fx.freed[:0]
	}
	return fx
}

// newIndex is an index of pools, with room for so many entries.
func newIndex(
	pools []Pool, layouts []layout, grace time.Duration, sparse uint64, size int, warm *warmth,
) *index {
	x := &index{
		byName: map[string]*pool{}, former: map[string]*pool{},
		drains: map[*entry]struct{}{}, crowds: map[string]*crowd{}, claims: map[string]*commit{},
		grace: grace, warm: warm,
		sparseAbove: sparse,
	}
	x.entries.grow(size)
	x.owned.grow(size)
	for i, p := range pools {
		added := x.newPool(p.clone(), layouts[i])
		x.pools = append(x.pools, added)
		x.byName[p.Name] = added
	}
	x.renumber()
	return x
}

// newPool is a pool of the index that has no entries yet.
func (x *index) newPool(p Pool, l layout) *pool {
	added := &pool{Pool: p, layout: l, teams: map[string]int{}, sparseAbove: x.sparseAbove,
		countsTeams: len(p.Quotas) > 0, capacity: l.size - uint64(len(p.Reserved)),
		grace: x.grace, warm: x.warm, flags: &x.flags}
	added.alone.one = added
	added.public.Store(&p)
	added.counts[Reserved] = uint64(len(p.Reserved))
	return added
}

func (p Pool) clone() Pool {
	p.Reserved, p.Labels = maps.Clone(p.Reserved), maps.Clone(p.Labels)
	p.Quotas, p.Details = maps.Clone(p.Quotas), maps.Clone(p.Details)
	return p
}

// changeRules gives the pools other rules. They have the names and addresses that they had, and
// count the teams that have quotas.
func (x *index) changeRules(pools []Pool) {
	order := make([]*pool, 0, len(x.pools))
	for i := range pools {
		p, next := x.byName[pools[i].Name], pools[i].clone()
		p.Pool = next
		p.public.Store(&next)
		order = append(order, p)
	}
	for _, p := range x.pools {
		if p.gone {
			order = append(order, p)
		}
	}
	x.pools = order
	x.renumber()
}

// unknownPool is a placeholder for entries that load has not yet assigned to a pool. Until then
// deadline and rests of a Leased one are the expiry and the TTL of its lease.
var unknownPool pool

// load gives the entries to the index, the ones that became free first before others. Of those
// whose address is in no pool it takes the ones that are not free, or have a commit in progress,
// into a former pool.
func (x *index) load(entries []*entry, now time.Time) effects {
	ended := entries[:0:0]
	for _, e := range entries {
		if e.state == Leased {
			x.insert(e, now)
		} else {
			ended = append(ended, e)
		}
	}
	slices.SortStableFunc(ended, func(a, b *entry) int { return cmp.Compare(a.freed, b.freed) })
	for _, e := range ended {
		x.insert(e, now)
	}
	return x.flush()
}

func (x *index) insert(e *entry, now time.Time) {
	p := x.poolOf(e.addr)
	x.settleEntry(e, cmp.Or(p, &goneForGood), now)
	if p == nil && (e.state == Free || x.cooled(e.last(), now)) && !e.busy && !e.uncertain {
		return
	}
	if p == nil {
		p = x.formerPool(e.formerName())
	}
	loaded := e.pool == &unknownPool && e.state == Leased // add changes the state
	e.pool = p
	e.next, e.before, e.after, e.queued, e.heapIndex, e.dirtyAt = nil, nil, nil, false, 0, 0
	e.chained = false
	e.overdue, e.idle, e.listed, e.counted = false, false, false, false
	if x.add(e); e.state == Reserved {
		p.counts[Reserved]--
	}
	if !loaded || !x.linkLoaded(e, now) {
		x.link(e, now)
	}
	x.chain(e)
}

// linkLoaded is link for a live lease that load has read, with what decodeAll has noted of it. It
// reports false when more of the record is needed.
func (x *index) linkLoaded(e *entry, now time.Time) bool {
	if e.recordText == nil || e.pool.countsTeams {
		return false
	}
	l := tenure{Lease: Lease{State: Leased, Expires: e.deadline, TTL: e.rests}}
	if x.shorten(&l, e.pool, now) {
		return false
	}
	x.linkAs(e, &l, now)
	return true
}

// goneForGood stands for a pool that is not configured.
var goneForGood = pool{gone: true}

// settleEntry settles the rest of e, if it has one that has not ended.
func (x *index) settleEntry(e *entry, p *pool, now time.Time) {
	if l := e.resting(); l != nil && x.settle(l, p, now) {
		x.settle(e.last(), p, now) // when l was a glance
		e.setRecord(nil)
	}
}

// cooled says whether nothing but time was needed to make the address free, and it has passed.
func (x *index) cooled(l *tenure, now time.Time) bool {
	return (l.State == Cooling || l.State == Quarantined) && !l.CoolUntil.IsZero() &&
		!l.CoolUntil.After(now) && x.measured(l)-x.up <= restTolerance
}

// byKey is the entry of an address by its key in the store; nil when there is none.
func (x *index) byKey(key string) *entry {
	addr, err := netip.ParseAddr(strings.TrimPrefix(key, addrPrefix))
	if err != nil {
		return nil
	}
	return x.entries.get(addr)
}

func (x *index) formerPool(name string) *pool {
	p := x.former[name]
	if p == nil {
		p = &pool{Pool: Pool{Name: name}, gone: true, teams: map[string]int{},
			sparseAbove: math.MaxUint64, grace: x.grace, warm: x.warm, flags: &x.flags}
		p.public.Store(&Pool{Name: name})
		x.former[name] = p
		p.number, x.pools = len(x.pools), append(x.pools, p)
		x.flags.every.add(p.number)
		p.changed()
	}
	return p
}

// entry returns the entry of an address of p, which is made when it was never used.
func (x *index) entry(p *pool, addr netip.Addr) *entry {
	if e := x.entries.get(addr); e != nil {
		return e
	}
	e := newEntry(addr, addrPrefix+addr.String())
	e.pool = p
	x.add(e)
	if x.notesCreated {
		x.created = append(x.created, e)
	}
	return e
}

// add makes e known to its pool.
func (x *index) add(e *entry) {
	x.entries.put(e)
	e.state = Free
	e.pool.known++
	if _, reserved := e.pool.Reserved[e.addr]; reserved {
		e.state = Reserved // as it was counted until now
		e.pool.knownReserved++
	}
}
