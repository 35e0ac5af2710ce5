package boltstore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/sluice-deploy/sluice/vip"
)

// pastBucket holds the past of addresses: records with a key "past/ADDRESS/NUMBER". Its keys are
// the number, 4 bytes, big endian, and the address. Addresses that end one after the other, mostly
// neighbors with as many records each, so write to one page and not to one each. Files of earlier
// versions have these records among the others: each stays there until it is written again. When an
// earlier version has had the file in between, a record is in both places; the later one counts.
var pastBucket = []byte("vip past")

const pastPrefix = "past/"

// records are the buckets within a transaction.
type records struct {
	main, past *bbolt.Bucket
	mixed      bool // main may have records of the past
}

func (s *Store) records(tx *bbolt.Tx) records {
	return records{tx.Bucket(bucket), tx.Bucket(pastBucket), s.mixed}
}

// hasPast reports whether records of the past are among the others.
func hasPast(main *bbolt.Bucket) bool {
	k, _ := main.Cursor().Seek([]byte(pastPrefix))
	return bytes.HasPrefix(k, []byte(pastPrefix))
}

// pastKey is the key in pastBucket of a record; nil when it belongs among the others.
func pastKey(key string) []byte {
	rest, ok := strings.CutPrefix(key, pastPrefix)
	at := strings.LastIndexByte(rest, '/')
	if !ok || at < 0 {
		return nil
	}
	n, err := strconv.ParseUint(rest[at+1:], 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != rest[at+1:] {
		return nil
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+at), uint32(n)), rest[:at]...)
}

// keyOf is the inverse of pastKey.
func keyOf(stored []byte) string {
	n := binary.BigEndian.Uint32(stored)
	return pastPrefix + string(stored[4:]) + "/" + strconv.FormatUint(uint64(n), 10)
}

// get returns the stored value of a key, nil without one.
func (r *records) get(key string) []byte {
	k := pastKey(key)
	if k == nil {
		return r.main.Get([]byte(key))
	}
	v := r.past.Get(k)
	if r.mixed {
		if other := r.main.Get([]byte(key)); v == nil || later(other, v) {
			return other
		}
	}
	return v
}

// later reports whether the stored value a has a higher revision than b: both begin with it.
func later(a, b []byte) bool {
	return len(a) >= 8 && len(b) >= 8 && bytes.Compare(a[:8], b[:8]) > 0
}

// put sets the stored value of a key; nil deletes it.
func (r *records) put(key string, value []byte) error {
	to, k := r.past, pastKey(key)
	switch {
	case k == nil:
		to, k = r.main, []byte(key)
	case r.mixed:
		if err := r.main.Delete([]byte(key)); err != nil {
			return err
		}
	}
	if value == nil {
		return to.Delete(k)
	}
	return to.Put(k, value)
}

// pastOf appends the records of pastBucket whose key begins with prefix, and puts found in order if
// there are any.
func (r *records) pastOf(found []vip.Record, prefix string) ([]vip.Record, error) {
	if !strings.HasPrefix(prefix, pastPrefix) && !strings.HasPrefix(pastPrefix, prefix) {
		return found, nil
	}
	before := len(found)
	var values []byte
	add := func(k, v []byte) error {
		key := keyOf(k)
		if !strings.HasPrefix(key, prefix) {
			return nil
		}
		one, err := record(key, v, &values)
		found = append(found, one)
		return err
	}
	addr, one := strings.CutSuffix(strings.TrimPrefix(prefix, pastPrefix), "/")
	c := r.past.Cursor()
	for k, v := c.First(); k != nil; {
		n := binary.BigEndian.Uint32(k)
		if one { // all records of one address: one for each number at most
			k = append(binary.BigEndian.AppendUint32(nil, n), addr...)
			v = r.past.Get(k)
		}
		if v != nil {
			if err := add(k, v); err != nil {
				return nil, err
			}
		}
		switch {
		case !one:
			k, v = c.Next()
		case n == 1<<32-1:
			k = nil
		default:
			k, v = c.Seek(binary.BigEndian.AppendUint32(nil, n+1))
		}
	}
	if len(found) > before {
		slices.SortFunc(found, func(a, b vip.Record) int {
			return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(b.Revision, a.Revision))
		})
		found = slices.CompactFunc(found, func(a, b vip.Record) bool { return a.Key == b.Key })
	}
	return found, nil
}
