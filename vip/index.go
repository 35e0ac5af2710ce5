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
	pools   []*pool
	byName  map[string]*pool // configured ones
	former  map[string]*pool // not configured any more, kept for the leases that they still have
	entries table[netip.Addr, *entry]
	// by the task that has, or was the last to have, the address
	owned table[string, chained]
	// allocations in flight or uncertain, by task: their steps are busy or uncertain
	claims map[string]*commit
	// that have changed since the catalog took them over
	dirty []*entry
	// no deadline of a pool is before it; zero without deadlines
	soonest time.Time
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

// entry is one address that is or was in use. There is one for each: the order of its fields leaves
// no gaps.
type entry struct {
	addr   netip.Addr
	key    string // in the store
	pool   *pool
	lease  *tenure // see last; nil when it is not at hand
	record []byte  // the last tenure as it is stored; nil when that is not at hand
	rev    uint64  // in the store; 0 when it has no record

	state    State
	dueClass dueClass
	busy     bool // a commit is in flight; the entry is not to be touched
	queued   bool // in the pool's free queue
	idle     bool // in pool.idles
	listed   bool // in the catalog
	chained  bool // in index.owned, or behind one that is
	overdue  bool // a lease that is over: in index.overdue
	counted  bool // a lease that is counted in pool.teams

	asked     uint32 // see Snapshot.Asked
	heapIndex int32  // in the heap of its class in pool.due plus 1; 0 when not there
	dirtyAt   int32  // in index.dirty plus 1; 0 when not there
	resent    bool   // the store may still have a second commit that makes its first record

	uncertain *commit // a commit whose outcome is not known

	// when state ends by itself
	deadline time.Time
	// the expiry, in Unix ns, that has an Expiring event already; 0 for none
	announcedExpiry int64

	freed         int64         // see tenure.freed
	rests         time.Duration // until then by x.uptime; 0 when that does not measure it
	next          *entry        // of the same owner: see chained
	before, after *entry        // in the pool's free queue
}

func (e *entry) tableKey() netip.Addr { return e.addr }

// newIndex is an index of pools, with room for so many entries.
func newIndex(
	pools []Pool, layouts []layout, grace time.Duration, sparse uint64, size int, warm *warmth,
) *index {
	x := &index{
		byName: map[string]*pool{}, former: map[string]*pool{},
		drains: map[*entry]struct{}{}, claims: map[string]*commit{}, grace: grace, warm: warm,
		sparseAbove: sparse,
	}
	x.entries.grow(size)
	x.owned.grow(size)
	for i, p := range pools {
		added := x.newPool(p.clone(), layouts[i])
		x.pools = append(x.pools, added)
		x.byName[p.Name] = added
	}
	return x
}

// newPool is a pool of the index that has no entries yet.
func (x *index) newPool(p Pool, l layout) *pool {
	added := &pool{Pool: p, layout: l, teams: map[string]int{}, sparseAbove: x.sparseAbove,
		countsTeams: len(p.Quotas) > 0, capacity: l.size - uint64(len(p.Reserved)),
		grace: x.grace, warm: x.warm}
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
}

// unknownPool is a placeholder for entries that load has not yet assigned to a pool.
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
	if p == nil && (e.state == Free || x.cooled(e.last(), now)) && !e.busy && e.uncertain == nil {
		return
	}
	if p == nil {
		p = x.formerPool(e.formerName())
	}
	e.pool = p
	e.next, e.before, e.after, e.queued, e.heapIndex, e.dirtyAt = nil, nil, nil, false, 0, 0
	e.chained = false
	e.overdue, e.idle, e.listed, e.counted = false, false, false, false
	if x.add(e); e.state == Reserved {
		p.counts[Reserved]--
	}
	x.link(e, now)
	x.chain(e)
}

// goneForGood stands for a pool that is not configured.
var goneForGood = pool{gone: true}

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

// settleEntry settles the rest of e, if it has one that has not ended.
func (x *index) settleEntry(e *entry, p *pool, now time.Time) {
	if l := e.resting(); l != nil && x.settle(l, p, now) {
		x.settle(e.last(), p, now) // when l was a glance
		e.record = nil
	}
}

// formerName is the name of the pool that e was in.
func (e *entry) formerName() string {
	if e.pool == &unknownPool && e.rev != 0 {
		return e.last().Pool
	}
	return e.pool.Name
}

// cooled says whether nothing but time was needed to make the address free, and it has passed.
func (x *index) cooled(l *tenure, now time.Time) bool {
	return (l.State == Cooling || l.State == Quarantined) && !l.CoolUntil.IsZero() &&
		!l.CoolUntil.After(now) && x.measured(l)-x.up <= restTolerance
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

// poolOf finds the pool that has addr, nil when none does.
func (x *index) poolOf(addr netip.Addr) *pool {
	for _, p := range x.pools {
		if p.contains(addr) {
			return p
		}
	}
	return nil
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
			sparseAbove: math.MaxUint64, grace: x.grace, warm: x.warm}
		p.public.Store(&Pool{Name: name})
		x.former[name] = p
		x.pools = append(x.pools, p)
	}
	return p
}

// entry returns the entry of an address of p, which is made when it was never used.
func (x *index) entry(p *pool, addr netip.Addr) *entry {
	if e := x.entries.get(addr); e != nil {
		return e
	}
	e := &entry{addr: addr, key: addrPrefix + addr.String(), pool: p}
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

// isDue reports whether advance has something to do, for which uptime has to be read before.
func (x *index) isDue(now time.Time) bool {
	return !x.soonest.IsZero() && !x.soonest.After(now) || x.putBack(now)
}

// putBack reports whether the clock was put back since the last advance.
func (x *index) putBack(now time.Time) bool { return now.Before(x.latest.Add(-time.Second)) }

// advance makes the addresses free that have cooled down by now, and moves leases that are over to
// overdue.
func (x *index) advance(now time.Time) effects {
	if !x.isDue(now) {
		x.latest = now
		return effects{} // the usual case
	}
	if x.putBack(now) {
		x.dueAgain(now)
	}
	x.latest = now
	var soonest time.Time
	for _, p := range x.pools {
		e := p.due.next()
		for ; e != nil && !e.deadline.After(now); e = p.due.next() {
			x.pass(e, now)
		}
		if e != nil && (soonest.IsZero() || e.deadline.Before(soonest)) {
			soonest = e.deadline
		}
	}
	x.soonest = soonest
	return x.flush()
}

// dueAgain computes all deadlines again, after the clock has jumped: link shortens the times that
// would be too long now.
func (x *index) dueAgain(now time.Time) {
	for _, p := range x.pools {
		for _, e := range slices.Concat(p.due[:]...) {
			x.settleEntry(e, p, now)
			x.place(e, e.last(), nil, e.rev, now)
		}
	}
}

// pass moves e to its next state at its deadline, which is not after now.
func (x *index) pass(e *entry, now time.Time) {
	if left := e.rests - x.up; left > restTolerance && e.state != Leased {
		e.last().CoolUntil, e.record = now.Add(left), nil // the clock was put forward
		e.deadline, e.freed = e.last().CoolUntil, e.last().freed()
		e.pool.due.set(e, e.dueClass)
		x.mark(e)
		return
	}
	if e.state == Cooling && x.rested(e) {
		x.note(e, prior{state: Cooling}, nil, now)
		return
	}
	was := e.prior()
	switch end := x.over(e); {
	case e.state != Leased:
		x.place(e, e.last(), nil, e.rev, now)
		x.note(e, was, nil, now)
	case e.deadline.Before(end):
		e.deadline, e.announcedExpiry = end, e.last().Expires.UnixNano()
		e.pool.due.set(e, over)
		x.note(e, was, nil, now)
	default:
		e.deadline = time.Time{}
		e.pool.due.set(e, over)
		e.overdue = true
		e.pool.overdue++
		x.overdue = append(x.overdue, e)
	}
}

// rested makes e free, which has cooled down, and reports whether it has: the usual case, in which
// place would put everything but the state back where it was. It has no need of the last tenure.
func (x *index) rested(e *entry) bool {
	_, reserved := e.pool.Reserved[e.addr]
	if reserved || e.busy || e.uncertain != nil || e.pool.gone {
		return false
	}
	e.pool.counts[Cooling]--
	e.state, e.deadline = Free, time.Time{}
	e.pool.due.set(e, cools)
	x.mark(e)
	x.release(e)
	return true
}

// release puts e, which is free, into the free queue.
func (x *index) release(e *entry) {
	e.pool.enqueue(e)
	e.pool.idle(e)
	if !slices.Contains(x.out.freed, e.pool) {
		x.out.freed = append(x.out.freed, e.pool)
	}
}

// over is when a lease that expires is over, grace included.
func (x *index) over(e *entry) time.Time { return e.last().Expires.Add(x.grace) }

func (x *index) expired(e *entry, now time.Time) bool {
	return e.state == Leased && !e.last().Expires.IsZero() && !x.over(e).After(now)
}

// coming returns when the first n addresses of p will be free if they stay untouched, at the
// soonest, in order; fewer when not so many are due.
func (x *index) coming(p *pool, n int) (all []time.Time) {
	later := func(times []time.Time, by time.Duration) {
		for _, at := range times {
			all = append(all, at.Add(by))
		}
	}
	rest := p.coolDown()
	later(p.due[expires].soonest(n), x.grace+rest)
	later(p.due[over].soonest(n), rest)
	later(p.due[cools].soonest(n), 0)
	later(p.due[recovers].soonest(n), 0)
	// a lease that is over ends in the next sweep; whether an address has drained is asked time and
	// again
	for range min(uint64(n), p.overdue+p.counts[Draining]) {
		all = append(all, x.latest.Add(rest))
	}
	slices.SortFunc(all, time.Time.Compare)
	return all[:min(n, len(all))]
}

// set makes l, at revision rev, the tenure of e: the zero tenure at 0 when it never had one. record
// is l as it is stored, nil when that is not at hand.
func (x *index) set(e *entry, l *tenure, record []byte, rev uint64, now time.Time) effects {
	x.place(e, l, record, rev, now)
	return x.flush()
}

// place is a part of a transition: set without its end.
func (x *index) place(e *entry, l *tenure, record []byte, rev uint64, now time.Time) {
	was := e.prior()
	told := record
	if rev == 0 && e.state == Leased {
		told = e.encoded() // the event of its end will hold it
	}
	x.unlink(e)
	if rev == 0 || e.owner() != l.Owner.Task {
		x.unchain(e)
	}
	other := l != e.last() // not just looked at again
	if other {
		*e.lease, e.record = *l, record
	}
	e.rev = rev
	x.link(e, now)
	x.chain(e)
	if held := e.state == Leased; held != (was.state == Leased) || held && e.lease.ID != was.id {
		x.out.owners = append(x.out.owners, e)
	}
	if other {
		if rev != 0 {
			told = e.record
		}
		x.note(e, was, told, now)
	}
}

// relink is set with the tenure that e has: it computes the state and the deadline again.
func (x *index) relink(e *entry, now time.Time) effects {
	return x.set(e, e.last(), nil, e.rev, now)
}

// prior is the state of an entry before a transition, as far as note compares it.
type prior struct {
	id    string
	state State
	since time.Time // of the binding
	rev   uint64
}

func (e *entry) prior() prior { return prior{e.last().ID, e.state, e.last().Binding.Since, e.rev} }

// draining lists the entries that are Draining, by address.
func (x *index) draining() []*entry {
	return slices.SortedFunc(maps.Keys(x.drains), func(a, b *entry) int {
		return a.addr.Compare(b.addr)
	})
}

func (x *index) unlink(e *entry) {
	if e.state != Free {
		e.pool.counts[e.state]--
	}
	e.pool.dequeue(e)
	if e.state == Draining {
		delete(x.drains, e)
	}
	if e.overdue {
		e.overdue = false
		e.pool.overdue--
	}
	if e.rev == 0 {
		return
	}
	if e.counted {
		e.pool.reserve(e.last().Owner.Team, -1)
		e.counted = false
	}
}

func (x *index) link(e *entry, now time.Time) {
	if e.lease == nil && e.record != nil {
		l, err := decodeTenure(e.record)
		if e.keepClock(&l); err == nil && !x.shorten(&l, e.pool, now) {
			x.linkAs(e, &l, now)
			return
		}
	}
	if e.rev != 0 && x.shorten(e.last(), e.pool, now) {
		e.record = nil
	}
	x.linkAs(e, e.last(), now)
}

// linkAs is link for an entry whose last tenure is l.
func (x *index) linkAs(e *entry, l *tenure, now time.Time) {
	x.mark(e)
	class := expires
	e.state, e.deadline, e.freed, e.rests = Free, time.Time{}, l.freed(), 0
	if e.rev != 0 {
		e.state = l.State
	}
	switch e.state {
	case Leased:
		if e.deadline = l.Expires; e.announcedExpiry != 0 &&
			e.announcedExpiry == l.Expires.UnixNano() {
			class, e.deadline = over, l.Expires.Add(x.grace)
		}
	case Draining:
		x.drains[e] = struct{}{}
	case Cooling, Quarantined:
		if class = cools; e.state == Quarantined {
			class = recovers
		}
		e.rests = x.measured(l)
		if e.deadline = l.CoolUntil; x.cooled(l, now) {
			e.state, e.deadline = Free, time.Time{}
		}
	}
	if _, reserved := e.pool.Reserved[e.addr]; reserved && e.state == Free {
		e.state = Reserved
	}
	e.pool.due.set(e, class)
	if !e.deadline.IsZero() && (x.soonest.IsZero() || e.deadline.Before(x.soonest)) {
		x.soonest = e.deadline
	}
	if e.state != Free {
		e.pool.counts[e.state]++
	} else if !e.pool.gone && !e.busy && e.uncertain == nil {
		x.release(e)
	}
	if e.rev == 0 {
		return
	}
	if e.state == Leased && e.pool.countsTeams {
		e.pool.reserve(l.Owner.Team, 1)
		e.counted = true
	}
}

// mark notes that the catalog has to take over e.
func (x *index) mark(e *entry) {
	if e.dirtyAt == 0 {
		x.dirty = append(x.dirty, e)
		e.dirtyAt = int32(len(x.dirty))
	}
}

// clean returns one of the entries that are marked, and takes the mark off.
func (x *index) clean() *entry {
	last := len(x.dirty) - 1
	e := x.dirty[last]
	x.dirty[last], x.dirty = nil, x.dirty[:last]
	e.dirtyAt, e.listed = 0, e.rev != 0
	return e
}

// shorten brings forward an expiry or a cool-down that ends later than one that begins now: a clock
// that was put back must not hold an address for hours. How long the cool-down of a former pool was
// is not known. A rest that Config.Uptime measures is left to settle.
func (x *index) shorten(l *tenure, p *pool, now time.Time) (shortened bool) {
	switch {
	case l.State == Leased && l.TTL > 0 && l.Expires.After(now.Add(l.TTL)):
		l.Expires = now.Add(l.TTL)
	case l.State == Cooling && !p.gone && (l.rest == nil || x.boot == "") &&
		l.CoolUntil.After(now.Add(p.coolDown())):
		l.CoolUntil = now.Add(p.coolDown())
	default:
		return false
	}
	return true
}
