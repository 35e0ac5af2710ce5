package vip

import "hash/maphash"

// table is a hash table of things that know their key. Beside a map it takes half of the memory,
// its slots hold the whole hash, so that a search reads the one thing that it finds, and it grows
// by a part at a time: an insertion moves a sixty-fourth of the table at most.
type table[K comparable, V keyed[K]] struct {
	parts [tableParts]tablePart[V]
	len   int
}

// keyed is a thing in a table. The zero value is none, and has no key.
type keyed[K comparable] interface {
	comparable
	tableKey() K
}

// tablePart has the things whose hash ends in its number. A thing stands in the slot of its hash,
// or behind it with no empty slot between; after the last slot comes the first.
type tablePart[V comparable] struct {
	slots []tableSlot[V]
	len   int
}

type tableSlot[V comparable] struct {
	hash uint64
	v    V // zero when the slot is empty
}

const (
	tableParts = 64
	tableLeast = 4 // slots of a part that has any
)

var tableSeed = maphash.MakeSeed()

// grow makes room for n things in all.
func (t *table[K, V]) grow(n int) {
	if n < tableParts*tableLeast {
		return
	}
	for i := range t.parts {
		if p := &t.parts[i]; p.len <= n/tableParts {
			p.resize((n/tableParts + n/tableParts/16) * 8 / 7)
		}
	}
}

// get returns the thing of that key, zero when there is none.
func (t *table[K, V]) get(key K) (v V) {
	if s := t.slot(key); s != nil {
		v = *s
	}
	return v
}

// slot is where the thing of that key is, to be replaced by another of the same key; nil when there
// is none. It is valid until the table changes.
func (t *table[K, V]) slot(key K) *V {
	h := maphash.Comparable(tableSeed, key)
	p := &t.parts[h%tableParts]
	if i := find(p, h, key); i >= 0 {
		return &p.slots[i].v
	}
	return nil
}

// put adds v, in place of the thing of its key, which it returns: zero when there was none.
func (t *table[K, V]) put(v V) (before V) {
	key := v.tableKey()
	h := maphash.Comparable(tableSeed, key)
	p := &t.parts[h%tableParts]
	if i := find(p, h, key); i >= 0 {
		before, p.slots[i].v = p.slots[i].v, v
		return before
	}
	if (p.len+1)*8 > len(p.slots)*7 {
		p.resize(max(tableLeast, len(p.slots)*3/2))
	}
	p.insert(h, v)
	t.len++
	return before
}

// remove takes out the thing of that key.
func (t *table[K, V]) remove(key K) {
	h := maphash.Comparable(tableSeed, key)
	p := &t.parts[h%tableParts]
	if i := find(p, h, key); i >= 0 {
		p.remove(i)
		t.len--
	}
}

// part returns the things of one of the parts, which all together have each thing once.
func (t *table[K, V]) part(i int) []V {
	var none V
	p := &t.parts[i]
	all := make([]V, 0, p.len)
	for _, s := range p.slots {
		if s.v != none {
			all = append(all, s.v)
		}
	}
	return all
}

// all yields the things in no order. The table does not change meanwhile.
func (t *table[K, V]) all(yield func(V) bool) {
	var none V
	for i := range t.parts {
		for _, s := range t.parts[i].slots {
			if s.v != none && !yield(s.v) {
				return
			}
		}
	}
}

// find returns the slot of a thing, -1 when it is not there.
func find[K comparable, V keyed[K]](p *tablePart[V], h uint64, key K) int {
	if p.len == 0 {
		return -1
	}
	var none V
	for i := p.home(h); ; {
		s := &p.slots[i]
		switch {
		case s.v == none:
			return -1
		case s.hash == h && s.v.tableKey() == key:
			return i
		}
		if i++; i == len(p.slots) {
			i = 0
		}
	}
}

// home is the first slot that a hash may have.
func (p *tablePart[V]) home(h uint64) int {
	return int(h >> 32 * uint64(len(p.slots)) >> 32)
}

// insert adds a thing that is not there. There is an empty slot.
func (p *tablePart[V]) insert(h uint64, v V) {
	var none V
	i := p.home(h)
	for p.slots[i].v != none {
		if i++; i == len(p.slots) {
			i = 0
		}
	}
	p.slots[i] = tableSlot[V]{h, v}
	p.len++
}

// remove empties slot i, and moves back the entries that stand behind it only because i was taken.
func (p *tablePart[V]) remove(i int) {
	var none V
	n := len(p.slots)
	p.len--
	for j := i; ; {
		if j++; j == n {
			j = 0
		}
		if p.slots[j].v == none {
			break
		}
		// as far as the thing is from its home, it may move back
		if away := (j - p.home(p.slots[j].hash) + n) % n; away >= (j-i+n)%n {
			p.slots[i] = p.slots[j]
			i = j
		}
	}
	p.slots[i] = tableSlot[V]{}
	if p.len*4 < n && n > tableLeast {
		p.resize(max(tableLeast, n/2))
	}
}

func (p *tablePart[V]) resize(n int) {
	var none V
	old := p.slots
	p.slots, p.len = make([]tableSlot[V], max(n, tableLeast)), 0
	for _, s := range old {
		if s.v != none {
			p.insert(s.hash, s.v)
		}
	}
}
