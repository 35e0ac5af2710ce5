package nginxsync

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
)

// key names a row.
type key struct {
	vip     netip.Addr // the zero Addr for the baseline and for a branch
	branch  string     // as in Row
	cluster string
}

// row is the row as it should be; nil stands for none.
func (k key) row(there *kept) Row {
	row := Row{VIP: k.vip, Branch: k.branch, Cluster: k.cluster, Gone: there == nil}
	if there != nil {
		row.Instances, row.Note = there.instances, there.note
	}
	return row
}

func keyOf(r Row) key { return key{r.VIP, r.Branch, r.Cluster} }

// notes are the notes of a snapshot.
func notes(s Snapshot) map[key]string {
	out := make(map[key]string, len(s.Scopes)+1)
	for vip, scope := range s.Scopes {
		out[key{vip: vip, cluster: noteCluster}] = scope.note()
	}
	if len(s.Pools) > 0 {
		out[key{branch: poolScope, cluster: noteCluster}] = poolNote(s.Pools)
	}
	for task, vip := range s.Tasks {
		row := taskRow(task, vip)
		out[keyOf(row)] = row.Note
	}
	return out
}

// kept is a row that Nginx should have.
type kept struct {
	instances []Instance
	note      string
	sum       uint64
}

// table is the pure part of an Agent: the offers of the source, the changes that the guard holds,
// and the rows that Nginx should have, with the rows that it does not have yet. A change costs a
// look at the maps that the snapshot does not share with the snapshot before, and work for the rows
// that changed.
type table struct {
	guard Guard

	scopes       map[netip.Addr]Scope // as the source gave them
	pools        []Range              // canonical
	offeredPools []Range              // as the source gave them
	tasks        map[string]netip.Addr

	stocks    stocks
	sifted    bool         // the last snapshot needed Usable
	unchecked bool         // so did the one before: Usable keeps some names that are not valid
	odd       []SetAside   // what Usable set aside
	bad       map[key]bool // the offers with records that are not valid

	have   bool // there are rows to be had, perhaps none
	rows   map[key]*kept
	digest uint64
	named  uint64 // the digest that number stands for
	number uint64
	base   Generation // that Nginx has accepted last
	dirty  map[key]bool

	revision uint64
	intents  []Intent
	used     map[Intent]bool
	first    map[Intent]time.Time // when intents came
	released map[key]bool
	held     map[key]Held
}

func newTable(guard Guard) *table {
	return &table{guard: guard, stocks: newStocks(), bad: map[key]bool{},
		rows: map[key]*kept{}, dirty: map[key]bool{}, used: map[Intent]bool{},
		first:    map[Intent]time.Time{},
		released: map[key]bool{}, held: map[key]Held{}}
}

func (t *table) desired() Generation {
	if !t.have {
		return Generation{}
	}
	return numbered(t.number, t.digest)
}

// adopt takes over routes that are in force or were.
func (t *table) adopt(r Routes) {
	clear(t.rows)
	clear(t.bad)
	clear(t.used)
	t.stocks = newStocks()
	t.digest, t.number, t.have = 0, r.Generation.Number, true
	t.scopes, t.pools, t.offeredPools = r.Snapshot.Scopes, r.Snapshot.Pools, r.Snapshot.Pools
	t.tasks = r.Snapshot.Tasks
	r.Snapshot.each(func(row Row) {
		t.set(keyOf(row), &kept{instances: row.Instances, note: row.Note})
	})
	t.named = t.digest
}

// set makes a row one that Nginx should have, or not for nil.
func (t *table) set(k key, next *kept) {
	if was := t.rows[k]; was != nil {
		t.digest ^= was.sum
		delete(t.rows, k)
	}
	t.dirty[k] = true
	if next != nil {
		var buf [512]byte
		row := k.row(next)
		next.sum = row.sum(row.appendBody(buf[:0]))
		t.digest ^= next.sum
		t.rows[k] = next
	}
}

// accept takes a snapshot: without the records that are not valid, and guarded. The generation is
// another one only if the rows are.
func (t *table) accept(s Snapshot, revision uint64, now time.Time) {
	first := t.stocks.walk == 0
	changed := map[key]bool{}
	t.sifted, t.unchecked, t.odd = false, t.sifted, nil
	if !t.lookThrough(s, changed) {
		t.sifted = true
		s, t.odd = s.Usable()
		t.lookThrough(s, changed)
	}
	if first {
		for k := range t.rows {
			if k.cluster != noteCluster {
				changed[k] = true // it may be gone since
			}
		}
	}
	t.intents = s.Planned
	came := make(map[Intent]time.Time, len(s.Planned))
	for _, in := range s.Planned {
		came[in] = now
		if before, ok := t.first[in]; ok {
			came[in] = before
		}
	}
	t.first = came
	for in := range t.used {
		if _, ok := came[in]; !ok {
			delete(t.used, in)
		}
	}
	after := t.revision
	t.revision = revision
	t.decide(changed, after, now)
}

// lookThrough notes the offers of a snapshot. It returns false for names and addresses that are not
// valid as they are: Usable tells their meaning.
func (t *table) lookThrough(s Snapshot, changed map[key]bool) bool {
	t.stocks.walk++
	if !same(t.stocks.baseline.from, s.Baseline) &&
		!t.look(&t.stocks.baseline, key{}, s.Baseline, changed) {
		return false
	}
	return lookAll(t, &t.stocks.overlays, s.Overlays, func(vip netip.Addr) key {
		return key{vip: vip}
	}, func(vip netip.Addr) bool {
		return vip.IsValid() && !vip.IsUnspecified() && plain(vip) == vip
	}, changed) && lookAll(t, &t.stocks.branches, s.Branches, func(name string) key {
		return key{branch: name}
	}, func(name string) bool { return names.Task(name) == nil }, changed) && t.annotate(s)
}

// annotate takes over the scopes and the pools of a snapshot. It returns false for scopes and
// pools that are not valid as they are.
func (t *table) annotate(s Snapshot) bool {
	pools := t.pools
	if !slices.Equal(t.offeredPools, s.Pools) {
		pools = canonicalPools(s.Pools)
	}
	if !t.sifted {
		f := &sifter{grammar: strict,
			out: Snapshot{Overlays: map[netip.Addr]map[string][]Instance{}}}
		for vip, scope := range s.Scopes {
			if was, ok := t.scopes[vip]; !ok || !was.equal(scope) {
				if f.scope(vip, scope, s); plain(vip) != vip {
					return false
				}
			}
		}
		for task, vip := range s.Tasks {
			if t.tasks[task] != vip {
				f.named(task, vip)
			}
		}
		if f.pools(s.Pools); len(f.aside) > 0 {
			return false
		}
	}
	for vip, scope := range s.Scopes {
		if was, ok := t.scopes[vip]; !ok || !was.equal(scope) {
			t.set(key{vip: vip, cluster: noteCluster}, &kept{note: scope.note()})
		}
	}
	for vip := range t.scopes {
		if _, ok := s.Scopes[vip]; !ok {
			t.set(key{vip: vip, cluster: noteCluster}, nil)
		}
	}
	k := key{branch: poolScope, cluster: noteCluster}
	switch {
	case len(pools) == 0 && len(t.pools) > 0:
		t.set(k, nil)
	case !slices.Equal(pools, t.pools):
		t.set(k, &kept{note: poolNote(pools)})
	}
	t.scopes, t.pools, t.offeredPools = s.Scopes, pools, s.Pools
	t.annotateTasks(s.Tasks)
	return true
}

// annotateTasks takes over the VIPs of tasks.
func (t *table) annotateTasks(tasks map[string]netip.Addr) {
	for task, vip := range tasks {
		if t.tasks[task] != vip {
			row := taskRow(task, vip)
			t.set(keyOf(row), &kept{note: row.Note})
		}
	}
	for task := range t.tasks {
		if _, ok := tasks[task]; !ok {
			t.set(key{branch: taskScope + task, cluster: noteCluster}, nil)
		}
	}
	t.tasks = tasks
}

// decide gives the rows that changed, and the rows that are held, to the guard.
func (t *table) decide(changed map[key]bool, after uint64, now time.Time) {
	for k := range t.held {
		changed[k] = true
	}
	var shrinks []shrink
	for k := range changed {
		o, row := t.stocks.offer(k), t.rows[k]
		switch {
		case o == nil && row == nil:
		case row == nil:
			t.set(k, &kept{instances: o.instances})
		case o != nil && len(o.instances) >= len(row.instances):
			if !slices.Equal(o.instances, row.instances) {
				t.set(k, &kept{instances: o.instances})
			}
		default:
			s := shrink{key: k, have: len(row.instances), gone: o == nil}
			if o != nil {
				s.want = len(o.instances)
			}
			shrinks = append(shrinks, s)
			continue
		}
		delete(t.held, k)
		delete(t.released, k)
	}
	if len(shrinks) > 0 {
		t.shrink(shrinks, after, now)
	}
	if t.digest != t.named || !t.have {
		t.number++
	}
	t.have, t.named = true, t.digest
}

// shrink lets rows shrink or holds them.
func (t *table) shrink(shrinks []shrink, after uint64, now time.Time) {
	t.guard.judge(shrinks, t.rows, func(k key) bool {
		h, held := t.held[k]
		return t.released[k] || t.plan(k, now) != nil || held && !h.Release.IsZero() &&
			!now.Before(h.Release)
	})
	plans := map[Intent]bool{}
	for _, s := range shrinks {
		k := s.key
		if s.have == 0 {
			s.reason = ""
		}
		if s.reason == "" {
			if plan := t.plan(k, now); plan != nil && s.want == 0 {
				plans[*plan] = true
			}
			var next *kept
			if o := t.stocks.offer(k); o != nil && !s.gone {
				next = &kept{instances: o.instances}
			}
			t.set(k, next)
			delete(t.held, k)
			delete(t.released, k)
			continue
		}
		h, ok := t.held[k]
		if !ok {
			h = Held{VIP: k.vip, Branch: k.branch, Cluster: k.cluster, Since: now, after: after,
				at: t.revision}
			if t.guard.ReleaseAfter > 0 {
				h.Release = now.Add(t.guard.ReleaseAfter)
			}
		}
		h.Instances, h.Offered, h.Reason = s.have, s.want, s.reason
		h.Alarm = now.Sub(h.Since) >= t.guard.AlarmAfter
		t.held[k] = h
	}
	for plan := range plans {
		t.used[plan] = true
		for k, row := range t.rows {
			if len(row.instances) > 0 && plan.covers(k) {
				delete(t.used, plan) // there is more to come
				break
			}
		}
	}
}

// plan is an intent that covers a row, or nil.
func (t *table) plan(k key, now time.Time) *Intent {
	for i, in := range t.intents {
		until := in.Until
		if until.IsZero() {
			until = t.first[in].Add(planLife)
		}
		if in.covers(k) && !t.used[in] && now.Before(until) {
			return &t.intents[i]
		}
	}
	return nil
}

// release lets changes take effect that are held: of the cluster, or of all clusters of the VIP for
// an empty one. It returns their number.
func (t *table) release(i Intent, now time.Time) int {
	n := 0
	for k := range t.held {
		if i.covers(k) {
			t.released[k] = true
			n++
		}
	}
	if n > 0 {
		t.decide(map[key]bool{}, t.revision, now)
	}
	return n
}

// setAside lists the records of the last snapshot that are not valid.
func (t *table) setAside() []SetAside {
	if t.sifted {
		return t.odd
	}
	var list []SetAside
	for _, k := range slices.SortedFunc(maps.Keys(t.bad), compareKeys) {
		list = append(list, t.stocks.offer(k).aside...)
	}
	return list
}

func compareKeys(a, b key) int {
	return cmp.Or(a.vip.Compare(b.vip), cmp.Compare(a.branch, b.branch),
		cmp.Compare(a.cluster, b.cluster))
}

func (t *table) heldList() []Held {
	list := slices.Collect(maps.Values(t.held))
	sortHeld(list)
	return list
}

// delta leads from the routes of Nginx to the rows of the table: it has only the rows that changed
// where Nginx has the generation that it accepted last.
func (t *table) delta(applied Generation) Delta {
	d := Delta{From: applied, To: t.desired()}
	if applied != t.base || applied == (Generation{}) {
		d.Full = true
		for k, row := range t.rows {
			d.Rows = append(d.Rows, k.row(row))
		}
		return d
	}
	for k := range t.dirty {
		d.Rows = append(d.Rows, k.row(t.rows[k]))
	}
	return d
}

// accepted notes that Nginx has the rows.
func (t *table) accepted() {
	t.base = t.desired()
	clear(t.dirty)
}

// agree makes the generation one that Nginx can go to from its own. It returns true when Nginx
// has the rows already.
func (t *table) agree(applied Generation) bool {
	if applied.Number > 0 && applied.Digest == t.desired().Digest {
		t.number = applied.Number
		t.accepted()
		return true
	}
	t.number = max(t.number, applied.Number+1)
	return false
}

// appendText appends the line form of the rows.
func (t *table) appendText(b []byte) []byte {
	b = appendHeader(b, t.desired())
	var body []byte
	for k, there := range t.rows {
		row := k.row(there)
		body = row.appendBody(body[:0])
		b = row.appendSummed(b, there.sum, body)
	}
	return fmt.Appendf(b, "end %d\n", len(t.rows))
}
