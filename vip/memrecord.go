package vip

import (
	"strconv"
	"strings"
	"unsafe"
)

// memRecord is a record in a MemStore: the bytes of its key and of its value, without the words
// that a string and a slice have beside them, so that it takes 32 bytes and not 48. The record of
// an address has the past of the address with it, unless that was there before: so a lease that
// ends finds the place of both at once.
type memRecord struct {
	key       *byte
	value     unsafe.Pointer // *byte; *memPast if there is one
	keySize   uint32         // and hasPast
	valueSize uint32
	revision  uint64 // 0 when the record has been removed
}

// hasPast is added to memRecord.keySize when there is a memPast.
const hasPast = 1 << 31

// memPast is the value of a record of an address, and the past of the address.
type memPast struct {
	value *byte
	slots []memSlot // historyPrefix, the address, and the index in slots are a key
}

// memSlot is a value that has its key from its place; the zero slot has none.
type memSlot struct {
	value    *byte
	size     uint32
	revision uint64
}

// set makes value the value of the slot; nil removes it.
func (s *memSlot) set(value []byte, revision uint64) {
	if value == nil {
		*s = memSlot{}
		return
	}
	*s = memSlot{unsafe.SliceData(value), uint32(len(value)), revision}
}

func (r *memRecord) tableKey() string { return unsafe.String(r.key, r.keySize&^hasPast) }

func (r *memRecord) past() *memPast {
	if r.keySize&hasPast == 0 {
		return nil
	}
	return (*memPast)(r.value)
}

func (r *memRecord) set(value []byte, revision uint64) {
	r.valueSize, r.revision = uint32(len(value)), revision
	if past := r.past(); past != nil {
		past.value = unsafe.SliceData(value)
		return
	}
	r.value = unsafe.Pointer(unsafe.SliceData(value))
}

func (r *memRecord) record() Record {
	value := (*byte)(r.value)
	if past := r.past(); past != nil {
		value = past.value
	}
	return Record{r.tableKey(), unsafe.Slice(value, r.valueSize), r.revision}
}

// pastKey is the key of a slot of the past of r, which is of an address.
func (r *memRecord) pastKey(slot int) string {
	addr := strings.TrimPrefix(r.tableKey(), addrPrefix)
	return historyPrefix + addr + "/" + strconv.Itoa(slot)
}

// appendPast appends the past that r has, as far as its keys have the prefix.
func (r *memRecord) appendPast(found []Record, prefix string) []Record {
	past := r.past()
	if past == nil {
		return found
	}
	for i, s := range past.slots {
		if s.revision == 0 {
			continue
		}
		if key := r.pastKey(i); strings.HasPrefix(key, prefix) {
			found = append(found, Record{key, unsafe.Slice(s.value, s.size), s.revision})
		}
	}
	return found
}

// memPlace is the place of a key: a record, or a slot of the past of one; zero for none.
type memPlace struct {
	r    *memRecord
	slot *memSlot
}

// record is the record in that place, without a key when it is in a slot.
func (p memPlace) record() Record {
	switch {
	case p.slot != nil:
		return Record{Value: unsafe.Slice(p.slot.value, p.slot.size), Revision: p.slot.revision}
	case p.r != nil:
		return p.r.record()
	}
	return Record{}
}

// find returns the place of a key.
func (s *MemStore) find(key string) memPlace {
	if r := s.records.get(key); r != nil {
		return memPlace{r: r}
	}
	addr, slot, ok := strings.Cut(strings.TrimPrefix(key, historyPrefix), "/")
	if !ok || !strings.HasPrefix(key, historyPrefix) {
		return memPlace{}
	}
	i, err := strconv.Atoi(slot)
	r := s.records.get(addrPrefix + addr)
	if err != nil || r == nil || r.past() == nil || i < 0 || i >= len(r.past().slots) ||
		r.past().slots[i].revision == 0 || strconv.Itoa(i) != slot {
		return memPlace{}
	}
	return memPlace{r, &r.past().slots[i]}
}

// put adds a record to the table, at the present revision.
func (s *MemStore) put(key string, value []byte) *memRecord {
	r := &memRecord{key: unsafe.StringData(key), keySize: uint32(len(key))}
	r.set(value, s.revision)
	s.records.put(r)
	if strings.HasPrefix(key, historyPrefix) {
		s.past++
	}
	return r
}

// remove takes a record out of the table. The past that it has gets places there.
func (s *MemStore) remove(r *memRecord) {
	key := r.tableKey()
	s.records.remove(key)
	if strings.HasPrefix(key, historyPrefix) {
		s.past--
	}
	r.revision = 0
	for _, was := range r.appendPast(nil, historyPrefix) {
		moved := s.put(was.Key, was.Value)
		moved.revision = was.Revision
	}
}

// setPast makes value, at the present revision, a slot of the past of an address that has a record.
func (s *MemStore) setPast(e *entry, slot int, value []byte) {
	past := e.stored.past()
	known := 0
	if past != nil {
		known = len(past.slots)
	}
	if s.past > 0 || slot > known {
		key := e.stored.pastKey(slot)
		if r := s.records.get(key); r != nil {
			r.set(value, s.revision)
			return
		}
		if slot > known {
			s.put(key, value)
			return
		}
	}
	if past == nil {
		past = &memPast{value: (*byte)(e.stored.value)}
		e.stored.value = unsafe.Pointer(past)
		e.stored.keySize |= hasPast
	}
	if slot == known {
		past.slots = append(past.slots, memSlot{})
	}
	past.slots[slot].set(value, s.revision)
}
