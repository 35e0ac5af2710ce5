package boltstore_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// TestFormat0 opens testdata/formats/0/vip.db: testdata/formats/README.md says how it was made.
func TestFormat0(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../testdata/formats/0/vip.db")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "vip.db")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	trial, err := vip.ParsePool("trial", "10.58.0.0/28")
	require.NoError(t, err)
	trial.Quotas, trial.CoolDown = map[string]int{"blue": 2}, time.Hour
	six, err := vip.ParsePool("six", "fd00:58::/126")
	require.NoError(t, err)
	now := time.Date(2026, 3, 1, 14, 0, 30, 0, time.UTC) // 15 s after the last record
	a, err := vip.Open(t.Context(), vip.Config{
		Store: open(t, path), Pools: []vip.Pool{trial, six},
		Now:     func() time.Time { return now },
		Drained: func(context.Context, vip.Lease) (bool, error) { return false, nil },
	})
	require.NoError(t, err)

	var got []string
	leases := map[string]vip.Lease{}
	for _, l := range a.List(vip.Query{}) {
		got = append(got, line(l))
		leases[l.Addr.String()] = l
	}
	long := strings.Repeat("long task/", 100)
	require.Equal(t, []string{
		`10.58.0.2 leased generation 2 task "second" of blue overrides greet_api=v7 hello_web=v2`,
		`10.58.0.3 leased generation 1 task "for a day" of blue overrides hello_web=v3 expires 03-02 14:00:06`,
		`10.58.0.4 cooling generation 1 task "cools" overrides hello_web=v4 ended 14:00:08 until 03-01 15:00:09 done`,
		`10.58.0.5 draining generation 1 task "drains" overrides hello_web=v5 ended 14:00:10 done`,
		`10.58.0.6 quarantined generation 0 task "" answers ARP of another host`,
		`10.58.0.7 quarantined generation 1 task "taken away" overrides hello_web=v6 ended 14:00:12 until 06-09 14:00:12 drops packets`,
		`10.58.0.8 leased generation 1 task "names" overrides a` + "\n" + `b=c` + "\n" +
			`d hello web=version 1 商品=第二`,
		`10.58.0.9 leased generation 1 task "` + long + `" overrides hello_web=v9`,
		`10.58.0.10 leased generation 1 task "expires" overrides hello_web=v10 expires 03-01 14:01:14`,
		`fd00:58:: leased generation 1 task "two" overrides hello_web=v11 one of 2`,
		`fd00:58::1 leased generation 1 task "two" overrides hello_web=v11 one of 2`,
	}, got)
	second := leases["10.58.0.2"]
	require.Equal(t, "10.58.0.2-2-nxzds", second.ID)
	require.Equal(t, "request of second", second.RequestID)
	require.Equal(t, vip.Forever, second.TTL)
	require.Equal(t, time.Date(2026, 3, 1, 14, 0, 3, 0, time.UTC), second.Acquired)
	require.Equal(t, vip.Binding{
		Instances: []vip.Instance{{
			ID: "hello_web-3", Addr: netip.MustParseAddrPort("[2001:db8::3]:8080"),
			Cluster: "hello_web",
			Version: "v2", Digest: "sha256:" + strings.Repeat("58", 32),
		}},
		Since: time.Date(2026, 3, 1, 14, 0, 5, 0, time.UTC),
	}, second.Binding)

	past, err := a.History(t.Context(), second.Addr)
	require.NoError(t, err)
	got = nil
	for _, l := range past {
		got = append(got, fmt.Sprintf("%s %s %s", l.Owner.Task, l.State, l.Binding.Instances[0].ID))
	}
	require.Equal(t, []string{"first draining hello_web-1", "second leased hello_web-2",
		"second leased hello_web-3"}, got)

	// the stored leases are counted, renewed and released, also with names of an older grammar
	_, err = a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "third", Team: "blue"},
		Pool: "trial"})
	require.ErrorIs(t, err, vip.ErrQuota)
	for _, addr := range []string{"10.58.0.2", "10.58.0.3", "10.58.0.8", "10.58.0.9",
		"fd00:58::1"} {
		l := leases[addr]
		_, err := a.Renew(t.Context(), l.ID, time.Hour)
		require.NoError(t, err)
		l, err = a.Release(t.Context(), l.ID, "by the newer program")
		require.NoError(t, err)
		require.Equal(t, vip.Draining, l.State)
	}
	now = now.Add(time.Hour)
	require.NoError(t, a.Sweep(t.Context()))
	expired, err := a.Get(t.Context(), leases["10.58.0.10"].ID)
	require.NoError(t, err)
	require.Equal(t, "expired", expired.Reason)
}

// line returns the essential fields of a lease in one line.
func line(l vip.Lease) string {
	s := fmt.Sprintf("%s %s generation %d task %q", l.Addr, l.State, l.Generation, l.Owner.Task)
	if l.Owner.Team != "" {
		s += " of " + l.Owner.Team
	}
	if len(l.Owner.Overrides) > 0 {
		s += " overrides"
	}
	for _, cluster := range slices.Sorted(maps.Keys(l.Owner.Overrides)) {
		s += " " + cluster + "=" + l.Owner.Overrides[cluster]
	}
	if l.Count > 0 {
		s += fmt.Sprintf(" one of %d", l.Count)
	}
	if !l.Expires.IsZero() {
		s += l.Expires.Format(" expires 01-02 15:04:05")
	}
	if !l.Ended.IsZero() {
		s += l.Ended.Format(" ended 15:04:05")
	}
	if !l.CoolUntil.IsZero() {
		s += l.CoolUntil.Format(" until 01-02 15:04:05")
	}
	return strings.TrimSuffix(s+" "+l.Reason, " ")
}

// TestFormat1 opens testdata/formats/1/vip.db a minute after it was written: in the same start of
// the machine, of whose clock it is three hours later, and after the next one.
func TestFormat1(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../testdata/formats/1/vip.db")
	require.NoError(t, err)
	for boot, want := range map[string][]string{
		"a start of the machine": {
			`10.58.0.1 leased generation 1 task "dual" one of 2`,
			`10.58.0.2 cooling generation 1 task "released" ended 12:00:00 until 03-01 15:00:10 done`,
			`10.58.0.3 cooling generation 1 task "dual-over" one of 2 ended 12:01:00 until 03-01 15:01:10 done`,
			`10.58.0.4 quarantined generation 1 task "taken-away" ended 12:01:00 until 03-01 15:59:00 bad`,
			`fd00:58::1 leased generation 1 task "dual" one of 2`,
			`fd00:58::2 cooling generation 1 task "dual-over" one of 2 ended 12:01:00 until 03-01 15:01:10 done`,
		},
		"the next one": {
			`10.58.0.1 leased generation 1 task "dual" one of 2`,
			`10.58.0.2 cooling generation 1 task "released" ended 12:00:00 until 03-01 15:02:10 done`,
			`10.58.0.3 cooling generation 1 task "dual-over" one of 2 ended 12:01:00 until 03-01 15:02:10 done`,
			`10.58.0.4 quarantined generation 1 task "taken-away" ended 12:01:00 until 03-01 16:00:00 bad`,
			`fd00:58::1 leased generation 1 task "dual" one of 2`,
			`fd00:58::2 cooling generation 1 task "dual-over" one of 2 ended 12:01:00 until 03-01 15:02:10 done`,
		},
	} {
		path := filepath.Join(t.TempDir(), "vip.db")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		trial, err := vip.ParsePool("trial", "10.58.0.0/28")
		require.NoError(t, err)
		six, err := vip.ParsePool("six", "fd00:58::/126")
		require.NoError(t, err)
		now := time.Date(2026, 3, 1, 15, 0, 0, 0, time.UTC)
		a, err := vip.Open(t.Context(), vip.Config{
			Store: open(t, path), Pools: []vip.Pool{trial, six},
			Now: func() time.Time { return now },
			Uptime: func() (string, time.Duration) {
				return boot, 1000*time.Hour + 2*time.Minute
			},
		})
		require.NoError(t, err)
		var got []string
		for _, l := range a.List(vip.Query{}) {
			got = append(got, line(l))
		}
		require.Equal(t, want, got, boot)
		both := a.List(vip.Query{Task: "dual"})
		require.Equal(t, both[0].ID, both[1].Peer)
		_, err = a.Release(t.Context(), both[1].ID, "by the newer program")
		require.NoError(t, err)
		require.Empty(t, a.List(vip.Query{States: []vip.State{vip.Leased}}))
	}
}
