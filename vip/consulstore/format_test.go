package consulstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// TestFormat0 gives the records of testdata/formats/0/consul.json to an allocator:
// testdata/formats/README.md says how the file was made.
func TestFormat0(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../testdata/formats/0/consul.json")
	require.NoError(t, err)
	var pairs []struct {
		Key   string
		Value []byte
	}
	require.NoError(t, json.Unmarshal(data, &pairs))
	store := vip.NewMemStore()
	var owners []string
	for _, p := range pairs {
		key, ok := strings.CutPrefix(p.Key, "vip/records/")
		require.True(t, ok, p.Key)
		_, err := store.Commit(t.Context(), vip.Change{Key: key, Value: p.Value})
		require.NoError(t, err)
		if task, ok := strings.CutPrefix(key, "owner/"); ok {
			owners = append(owners, task)
		}
	}
	long := strings.Repeat("long task/", 100)
	for _, task := range []string{"second", "for a day", "names", long, "two"} {
		require.Contains(t, owners, task, "its record keeps two allocators from giving it two "+
			"leases")
	}

	trial, err := vip.ParsePool("trial", "10.58.0.0/28")
	require.NoError(t, err)
	six, err := vip.ParsePool("six", "fd00:58::/126")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{
		Store: store, Pools: []vip.Pool{trial, six},
		Now:     func() time.Time { return time.Date(2026, 3, 1, 14, 0, 30, 0, time.UTC) },
		Drained: func(context.Context, vip.Lease) (bool, error) { return false, nil },
	})
	require.NoError(t, err)
	var got []string
	for _, l := range a.List(vip.Query{}) {
		got = append(got, fmt.Sprintf("%s %s %.20s", l.Addr, l.State, l.Owner.Task))
	}
	require.Equal(t, []string{
		"10.58.0.2 leased second", "10.58.0.3 leased for a day", "10.58.0.4 cooling cools",
		"10.58.0.5 draining drains",
		"10.58.0.6 quarantined ", "10.58.0.7 quarantined taken away", "10.58.0.8 leased names",
		"10.58.0.9 leased long task/long task/", "10.58.0.10 leased expires",
		"fd00:58:: leased two", "fd00:58::1 leased two",
	}, got)

	// a task that holds a lease gets the same one again, and each lease can be released
	again, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: long,
		Overrides: map[string]string{"hello_web": "v9"}}})
	require.NoError(t, err)
	require.Equal(t, "10.58.0.9", again.Addr.String())
	leases := a.List(vip.Query{States: []vip.State{vip.Leased}})
	at := slices.IndexFunc(leases, func(l vip.Lease) bool { return l.Owner.Task == "names" })
	require.Equal(t, map[string]string{"hello web": "version 1", "商品": "第二", "a\nb": "c\nd"},
		leases[at].Owner.Overrides)
	for _, l := range leases {
		_, err := a.Release(t.Context(), l.ID, "by the newer program")
		require.NoError(t, err)
	}
}
