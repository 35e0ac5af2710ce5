package vip

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
	"unsafe"
)

// A tenure is stored as a version byte, its fields in the order of encodeTenure, and a CRC-32C of
// all that. Numbers are varints, strings have their length before them, times are nanoseconds since
// 1970 with 0 for the zero time. A tenure without the fields that version 2 added is written as
// version 1.
const (
	tenureVersion1 = 1
	tenureVersion2 = 2 // adds tenure.rest and Lease.Peer
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errCorrupt = errors.New("damaged")

// scratch holds buffers that encodeTenure writes to. An array on the stack would not stay there:
// the argument of crc32.Checksum escapes.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

func encodeTenure(l *tenure) []byte {
	room := scratch.Get().(*[]byte)
	defer scratch.Put(room)
	return encodeIn(room, l)
}

// encodeIn is encodeTenure for a caller that has a buffer of its own.
func encodeIn(room *[]byte, l *tenure) []byte {
	*room = appendTenure((*room)[:0], l)
	return slices.Clone(*room) // it is kept: without spare room
}

func appendTenure(b []byte, l *tenure) []byte {
	version := byte(tenureVersion1)
	if l.rest != nil || l.Peer != "" {
		version = tenureVersion2
	}
	b = append(b, version, byte(l.State))
	b = appendText(b, l.ID)
	b = binary.AppendUvarint(b, l.Generation)
	b = appendAddr(b, l.Addr)
	b = appendText(b, l.Pool)
	b = appendText(b, l.Owner.Task)
	b = appendText(b, l.Owner.Team)
	b = appendPairs(b, l.Owner.Overrides)
	b = appendText(b, l.RequestID)
	b = binary.AppendUvarint(b, uint64(l.Count))
	b = binary.AppendUvarint(b, l.history)
	b = binary.AppendVarint(b, int64(l.TTL))
	b = appendTime(b, l.Acquired)
	b = appendTime(b, l.Expires)
	b = appendTime(b, l.Ended)
	b = appendTime(b, l.CoolUntil)
	b = appendTime(b, l.Binding.Since)
	b = appendText(b, l.Reason)
	b = binary.AppendUvarint(b, uint64(len(l.Binding.Instances)))
	for _, i := range l.Binding.Instances {
		b = appendText(b, i.ID)
		b = appendAddr(b, i.Addr.Addr())
		b = binary.AppendUvarint(b, uint64(i.Addr.Port()))
		b = appendText(b, i.Cluster)
		b = appendText(b, i.Version)
		b = appendText(b, i.Digest)
	}
	if version == tenureVersion2 {
		r := cmp.Or(l.rest, &rest{}) // without a name there is none
		b = appendText(b, r.boot)
		b = binary.AppendUvarint(b, uint64(r.since))
		b = binary.AppendUvarint(b, uint64(r.length))
		b = appendText(b, l.Peer)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeTenure reads a record. The texts of the result are parts of data, which does not change any
// more.
func decodeTenure(data []byte) (l tenure, err error) {
	err = l.read(data)
	return l, err
}

// taskIn is the task of the owner in a record that read has found good.
func taskIn(data []byte) string {
	d := decoder{rest: data[2:], ok: true}
	d.str() // ID
	d.uint()
	d.addr()
	d.str() // pool
	return d.str()
}

// read fills l, which is zero, from a record.
func (l *tenure) read(data []byte) error {
	if len(data) < 6 {
		return fmt.Errorf("%d bytes: %w", len(data), errCorrupt)
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return fmt.Errorf("checksum does not match: %w", errCorrupt)
	}
	if body[0] != tenureVersion1 && body[0] != tenureVersion2 {
		return fmt.Errorf("record has version %d, this program reads up to %d: use the newer "+
			"program", body[0], tenureVersion2)
	}
	l.State = State(body[1])
	d := decoder{rest: body[2:], ok: l.State < states}
	l.ID = d.str()
	l.Generation = d.uint()
	l.Addr = d.addr()
	l.Pool = d.str()
	l.Owner.Task = d.str()
	l.Owner.Team = d.str()
	l.Owner.Overrides = d.pairs()
	l.RequestID = d.str()
	l.Count = int(d.uint())
	l.history = d.uint()
	l.TTL = time.Duration(d.int())
	for _, t := range []*time.Time{&l.Acquired, &l.Expires, &l.Ended, &l.CoolUntil,
		&l.Binding.Since} {
		*t = d.time()
	}
	l.Reason = d.str()
	for n := d.count(); n > 0; n-- {
		var i Instance
		i.ID = d.str()
		i.Addr = netip.AddrPortFrom(d.addr(), uint16(d.uint()))
		i.Cluster = d.str()
		i.Version = d.str()
		i.Digest = d.str()
		l.Binding.Instances = append(l.Binding.Instances, i)
	}
	if body[0] == tenureVersion2 {
		r := rest{d.str(), time.Duration(d.uint()), time.Duration(d.uint())}
		if r.boot != "" {
			l.rest = &r
		}
		d.ok = d.ok && r.valid()
		l.Peer = d.str()
	}
	if !d.ok || len(d.rest) != 0 {
		*l = tenure{}
		return fmt.Errorf("fields do not add up: %w", errCorrupt)
	}
	return nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case a.Is4():
		four := a.As4()
		return append(append(b, 4), four[:]...)
	case a.IsValid():
		sixteen := a.As16()
		return append(append(b, 16), sixteen[:]...)
	}
	return append(b, 0)
}

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendVarint(b, t.UnixNano())
}

func appendPairs(b []byte, m map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(m)))
	if len(m) == 0 {
		return b
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = appendText(appendText(b, k), m[k])
	}
	return b
}

// decoder reads the output of encodeTenure; after the first field that is not there ok is false and
// every value is zero.
type decoder struct {
	rest []byte
	ok   bool
}

func (d *decoder) readN(n int) []byte {
	if !d.ok || n < 0 || n > len(d.rest) {
		d.ok = false
		return nil
	}
	taken := d.rest[:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) uint() uint64 {
	if len(d.rest) > 0 && d.rest[0] < 0x80 && d.ok { // mostly it is short
		n := d.rest[0]
		d.rest = d.rest[1:]
		return uint64(n)
	}
	n, size := binary.Uvarint(d.rest)
	if d.readN(size); size <= 0 || !d.ok {
		d.ok = false
		return 0
	}
	return n
}

func (d *decoder) int() int64 { // as binary.Varint
	n := d.uint()
	return int64(n>>1) ^ -int64(n&1)
}

// count reads a number of elements, each of which takes a byte or more.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.rest)) {
		d.ok = false
		return 0
	}
	return int(n)
}

// str returns a part of the record without a copy: records do not change, as Store says.
func (d *decoder) str() string {
	b := d.readN(d.count())
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func (d *decoder) addr() netip.Addr {
	n := d.readN(1)
	if !d.ok || n[0] == 0 {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(d.readN(int(n[0])))
	d.ok = d.ok && ok
	return a
}

func (d *decoder) time() time.Time {
	n := d.int()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func (d *decoder) pairs() map[string]string {
	n := d.count()
	if n == 0 {
		return nil
	}
	m := make(map[string]string, n)
	for ; n > 0; n-- {
		k := d.str()
		m[k] = d.str()
	}
	return m
}
