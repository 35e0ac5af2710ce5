package boltstore_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

// A store is a map, also of a file in which an earlier version has put the past of addresses among
// the other records, before and after a restart.
func TestPastOfEarlierVersions(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(rt, err)
		db, err := bbolt.Open(filepath.Join(dir, "vip.db"), 0o600, &bbolt.Options{NoSync: true})
		require.NoError(rt, err)
		defer db.Close()
		var keys []string
		for _, addr := range []string{"10.0.0.1", "10.0.0.10", "fd00::1"} {
			keys = append(keys, "addr/"+addr, "past/"+addr)
			for _, n := range []string{"0", "1", "10", "01", "-1", "4294967295", "4294967296"} {
				keys = append(keys, "past/"+addr+"/"+n)
			}
		}
		want := map[string]vip.Record{}
		earlier := func(keys ...string) {
			require.NoError(rt, db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists([]byte("vip"))
				for _, key := range keys {
					seq, seqErr := b.NextSequence()
					require.NoError(rt, seqErr)
					value := binary.BigEndian.AppendUint64(nil, seq)
					require.NoError(rt, b.Put([]byte(key), append(value, "earlier"...)))
					want[key] = vip.Record{Key: key, Value: []byte("earlier"), Revision: seq}
				}
				return err
			}))
		}
		earlier(rapid.SliceOfDistinct(rapid.SampledFrom(keys),
			func(key string) string { return key }).Draw(rt, "there before")...)
		s, err := boltstore.New(db)
		require.NoError(rt, err)
		for i := range rapid.IntRange(1, 12).Draw(rt, "commits") {
			if rapid.IntRange(0, 3).Draw(rt, "restart") == 0 {
				earlier(rapid.SampledFrom(keys).Draw(rt, "written by the earlier version"))
				s, err = boltstore.New(db)
				require.NoError(rt, err)
			}
			var changes []vip.Change
			for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 4,
				func(key string) string { return key }).Draw(rt, "keys") {
				c := vip.Change{Key: key, Revision: want[key].Revision}
				if rapid.Bool().Draw(rt, "any") {
					c.Revision = vip.AnyRevision
				}
				if rapid.IntRange(0, 2).Draw(rt, "set") > 0 {
					c.Value = fmt.Append(nil, i)
				}
				changes = append(changes, c)
			}
			rev, err := s.Commit(t.Context(), changes...)
			require.NoError(rt, err)
			for _, c := range changes {
				if delete(want, c.Key); c.Value != nil {
					want[c.Key] = vip.Record{Key: c.Key, Value: c.Value, Revision: rev}
				}
			}
			prefix := rapid.SampledFrom(append(keys, "", "pa", "past/", "past/10.0.0.1/",
				"past/fd00::1/", "past/10.0.0.1/1", "addr/")).Draw(rt, "prefix")
			all := []vip.Record{}
			for _, r := range want {
				if strings.HasPrefix(r.Key, prefix) {
					all = append(all, r)
				}
			}
			slices.SortFunc(all, func(a, b vip.Record) int { return strings.Compare(a.Key, b.Key) })
			got, err := s.List(t.Context(), prefix)
			require.NoError(rt, err)
			require.Equal(rt, all, append([]vip.Record{}, got...))
			got, err = s.Get(t.Context(), keys...)
			require.NoError(rt, err)
			for i, key := range keys {
				require.Equal(rt, want[key].Revision, got[i].Revision, key)
				require.Equal(rt, string(want[key].Value), string(got[i].Value), key)
			}
		}
	})
}

// TestFormat2 opens testdata/formats/2/vip.db: testdata/formats/README.md says how it was made.
func TestFormat2(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../testdata/formats/2/vip.db")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "vip.db")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	pool, err := vip.ParsePool("trial", "10.58.0.0/28")
	require.NoError(t, err)
	pool.CoolDown = -1
	a, err := vip.Open(t.Context(), vip.Config{
		Store: open(t, path), Pools: []vip.Pool{pool}, History: 2,
		Now: func() time.Time { return time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC) },
	})
	require.NoError(t, err)
	past := func(addr string) (got []string) {
		t.Helper()
		tenures, err := a.History(t.Context(), netip.MustParseAddr(addr))
		require.NoError(t, err)
		for _, l := range tenures {
			got = append(got, fmt.Sprint(l.Owner.Task, " ", l.State, " ", l.Generation))
		}
		return got
	}
	require.Equal(t, []string{"fourth free 4", "fifth free 5", "sixth leased 6"}, past("10.58.0.1"))
	require.Equal(t, []string{"other free 1"}, past("10.58.0.2"))

	l := a.List(vip.Query{Task: "sixth"})[0]
	_, err = a.Release(t.Context(), l.ID, "by the newer program")
	require.NoError(t, err)
	require.Equal(t, []string{"fifth free 5", "sixth free 6"}, past("10.58.0.1"))
}
