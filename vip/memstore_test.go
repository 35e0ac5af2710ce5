package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A MemStore holds what a map would, whether a commit names keys or entries, and whether the past
// of an address came before its record, with it, or stays behind.
func TestMemStoreIsAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ctx := t.Context()
		s, want := NewMemStore(), map[string]Record{}
		entries := make([]*entry, 3)
		var keys []string
		for i := range entries {
			addr := fmt.Sprintf("10.0.0.%d", i)
			entries[i] = newEntry(netip.Addr{}, addrPrefix+addr)
			keys = append(keys, entries[i].key(), historyPrefix+addr)
			for slot := range 4 {
				keys = append(keys, fmt.Sprintf("%s%s/%d", historyPrefix, addr, slot))
			}
			keys = append(keys, historyPrefix+addr+"/01", historyPrefix+addr+"/-1")
		}
		value := func() []byte { return []byte(rapid.StringN(0, 3, -1).Draw(t, "value")) }
		for range rapid.IntRange(1, 40).Draw(t, "commits") {
			if rapid.Bool().Draw(t, "by entry") {
				e := rapid.SampledFrom(entries).Draw(t, "entry")
				e.rev = want[e.key()].Revision
				st := step{e: e, record: value()}
				if rapid.Bool().Draw(t, "past") {
					st.past, st.pastSlot = value(), rapid.IntRange(0, 3).Draw(t, "slot")
				}
				rev, err := s.commitSteps(ctx, []step{st})
				require.NoError(t, err)
				want[e.key()] = Record{e.key(), st.record, rev}
				if st.past != nil {
					key := pastKey(e, st.pastSlot)
					want[key] = Record{key, st.past, rev}
				}
				e.rev = rev + 1
				_, err = s.commitSteps(ctx, []step{st})
				require.ErrorIs(t, err, ErrRevision)
			} else {
				some := rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 4,
					func(key string) string { return key }).Draw(t, "keys")
				var changes []Change
				for _, key := range some {
					c := Change{Key: key, Revision: want[key].Revision}
					if rapid.Bool().Draw(t, "set") {
						c.Value = value()
					}
					changes = append(changes, c)
				}
				rev, err := s.Commit(ctx, changes...)
				require.NoError(t, err)
				for _, c := range changes {
					if delete(want, c.Key); c.Value != nil {
						want[c.Key] = Record{c.Key, c.Value, rev}
					}
				}
			}
			prefix := rapid.SampledFrom(append(keys, "", "pa", historyPrefix, addrPrefix)).
				Draw(t, "prefix")
			all := []Record{}
			for _, r := range want {
				if strings.HasPrefix(r.Key, prefix) {
					all = append(all, r)
				}
			}
			slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
			got, err := s.List(ctx, prefix)
			require.NoError(t, err)
			require.Equal(t, all, append([]Record{}, got...))
			got, err = s.Get(ctx, keys...)
			require.NoError(t, err)
			for i, key := range keys {
				r, ok := want[key]
				if !ok {
					r = Record{Key: key}
				}
				require.Equal(t, r.Revision, got[i].Revision)
				require.Equal(t, r.Key, got[i].Key)
				require.Equal(t, string(r.Value), string(got[i].Value))
			}
		}
	})
}
