package consulsource

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

func TestNextIndex(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]uint64{ // last, answered, next
		{0, 7, 7}, {7, 7, 7}, {7, 9, 9}, {9, 7, 0}, {0, 0, 1}, {1, 0, 1}, {9, 0, 0},
	} {
		require.Equal(t, c[2], nextIndex(c[0], c[1], false), "last %d, answered %d", c[0], c[1])
	}
	require.Zero(t, nextIndex(7, 7, true))
	require.Equal(t, uint64(9), nextIndex(7, 9, true))
}

func TestBelievable(t *testing.T) {
	t.Parallel()
	good := api.QueryMeta{KnownLeader: true, LastContact: 10 * time.Second}
	require.NoError(t, believable(&good, 10*time.Second))
	for want, change := range map[string]func(*api.QueryMeta){
		"knows no leader": func(m *api.QueryMeta) { m.KnownLeader = false },
		"leader 11s ago":  func(m *api.QueryMeta) { m.LastContact = 11 * time.Second },
		"service:read":    func(m *api.QueryMeta) { m.ResultsFilteredByACLs = true },
	} {
		meta := good
		change(&meta)
		require.ErrorContains(t, believable(&meta, 10*time.Second), want)
	}
}

func TestBucket(t *testing.T) {
	t.Parallel()
	b := bucket{every: time.Second}
	now := time.Unix(1000, 0)
	require.Zero(t, b.take(now))
	require.Zero(t, b.take(now))
	require.Equal(t, time.Second, b.take(now))
	now = now.Add(time.Hour)
	require.Zero(t, b.take(now))
}

func entry(id, node, address string, port int) *api.ServiceEntry {
	return &api.ServiceEntry{Node: &api.Node{Node: node, Address: "10.0.0.9"},
		Service: &api.AgentService{ID: id, Service: "web", Address: address, Port: port,
			Weights: api.AgentWeights{Passing: 1}}}
}

func TestInstances(t *testing.T) {
	t.Parallel()
	weighted := entry("w", "n1", "10.0.0.3", 80)
	weighted.Service.Weights.Passing = 70000
	weighted.Service.Meta = map[string]string{"version": "v2", "backup": "true"}
	older := entry("twice", "n2", "10.0.0.5", 80)
	older.Service.CreateIndex = 1
	newer := entry("twice", "n1", "10.0.0.4", 80)
	newer.Service.CreateIndex = 2
	list, aside, _ := instances([]*api.ServiceEntry{
		entry("z", "n1", "10.0.0.1", 80),
		entry("node", "n1", "", 80),
		entry("six", "n1", "2001:db8::1", 80),
		entry("mapped", "n1", "::ffff:10.0.0.7", 80),
		newer,
		older,
		weighted,
		entry("named", "n1", "web.internal", 80),
		entry("none", "n1", "10.0.0.6", 0),
		entry("high", "n1", "10.0.0.6", 65536),
		{Node: &api.Node{Node: "n3"}},
		nil,
	}, "version", nil)
	var got []string
	for _, in := range list {
		got = append(got, fmt.Sprint(in.ID, " ", in.Addr, " ", in.Weight, " ", in.Version, " ",
			in.Backup))
	}
	require.Equal(t, []string{
		"mapped 10.0.0.7:80 1  false",
		"n1:twice 10.0.0.4:80 1  false",
		"node 10.0.0.9:80 1  false",
		"six [2001:db8::1]:80 1  false",
		"twice 10.0.0.5:80 1  false",
		"w 10.0.0.3:80 65535 v2 true",
		"z 10.0.0.1:80 1  false",
	}, got)
	require.Equal(t, []string{
		`entry 10: want a service`,
		`entry 11: want a service`,
		`instance "high" on node "n1": port 65536, want 1 to 65535`,
		`instance "named" on node "n1": address "web.internal", want an IP address`,
		`instance "none" on node "n1": port 0, want 1 to 65535`,
	}, aside)
}

// An instance keeps its id while another node registers the same one, and when that goes.
func TestInstancesKeepTheirIDs(t *testing.T) {
	t.Parallel()
	a, b := entry("i", "a", "10.0.0.1", 80), entry("i", "b", "10.0.0.2", 80)
	a.Service.CreateIndex, b.Service.CreateIndex = 2, 1
	var ids given
	for step, c := range []struct {
		entries []*api.ServiceEntry
		want    map[registration]string
	}{
		{[]*api.ServiceEntry{a}, given{{"a", "i"}: "i"}},
		{[]*api.ServiceEntry{a, b}, given{{"a", "i"}: "i", {"b", "i"}: "b:i"}},
		{[]*api.ServiceEntry{b}, given{{"b", "i"}: "b:i"}},
		{[]*api.ServiceEntry{b, a}, given{{"a", "i"}: "i", {"b", "i"}: "b:i"}},
		{nil, given{}},
		{[]*api.ServiceEntry{a, b}, given{{"a", "i"}: "a:i", {"b", "i"}: "i"}},
	} {
		ids = ids.next(c.entries)
		require.Equal(t, given(c.want), ids, "step %d", step)
	}
}

func TestDamper(t *testing.T) {
	t.Parallel()
	all := make([]nginxsync.Instance, 4)
	for i := range all {
		all[i].ID = fmt.Sprint("i", i)
	}
	now := time.Unix(1000, 0)
	var d damper
	serve, flapping, again := d.apply(now, all)
	require.Len(t, serve, 4)
	require.Empty(t, flapping)
	require.Zero(t, again)

	// i3 comes and goes five times a second: it is out after four changes, and the source changes
	// no more.
	changes, before := 0, 4
	for n := range 50 {
		now = now.Add(100 * time.Millisecond)
		serve, flapping, _ = d.apply(now, all[:3+n%2])
		if len(serve) != before {
			changes, before = changes+1, len(serve)
		}
	}
	require.LessOrEqual(t, changes, 4)
	require.Len(t, serve, 3)
	require.Equal(t, []string{"i3"}, flapping)

	// It is back when it was calm for long enough.
	_, _, again = d.apply(now, all)
	require.Equal(t, now.Add(calmAfter), again)
	serve, flapping, again = d.apply(again, all)
	require.Len(t, serve, 4)
	require.Empty(t, flapping)
	require.Zero(t, again)

	// When most come and go, the present ones serve, so that half are left.
	now = now.Add(time.Hour)
	for n := range 20 {
		now = now.Add(time.Second)
		d.apply(now, all[:1+3*(n%2)])
	}
	serve, flapping, _ = d.apply(now, all)
	require.Len(t, serve, 2)
	require.Len(t, flapping, 2)

	// An instance that was deployed again is no flapping one.
	moved := append([]nginxsync.Instance{}, all...)
	now = now.Add(time.Hour)
	for n := range 20 {
		moved[0].Weight = n
		serve, flapping, _ = d.apply(now, moved)
		require.Len(t, serve, 4)
		require.Empty(t, flapping)
	}
}

// A clock that is set by an hour holds no query back, and no instance out for longer than one that
// flaps.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		now := time.Unix(1_700_000_000, 0)
		b := bucket{every: time.Second}
		for range 4 {
			b.take(now)
		}
		now = now.Add(step)
		require.Zero(t, b.take(now))

		all := []nginxsync.Instance{{ID: "i1"}, {ID: "i2"}, {ID: "i3"}, {ID: "i4"}}
		d := damper{}
		for n := range 20 {
			now = now.Add(time.Second)
			d.apply(now, all[:3+n%2])
		}
		_, flapping, _ := d.apply(now, all)
		require.Equal(t, []string{"i4"}, flapping)
		now = now.Add(step)
		_, _, again := d.apply(now, all)
		require.LessOrEqual(t, again.Sub(now), calmAfter)
		serve, flapping, _ := d.apply(now.Add(calmAfter), all)
		require.Len(t, serve, 4)
		require.Empty(t, flapping)
	}
}

// Queries begin again because of dead connections once in ten seconds at most, and each time that
// Consul is back.
func TestRenew(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	s, err := New(Config{Consul: &api.Config{}, Tag: "sluice",
		Now: func() time.Time { return now }})
	require.NoError(t, err)
	renews := func(dead bool, err error) bool {
		spell := s.spell
		s.probed(dead, err)
		return spell.Err() != nil
	}
	require.False(t, renews(false, nil))
	require.True(t, renews(true, nil))
	now = now.Add(renewEvery - 1)
	require.False(t, renews(true, nil))
	require.False(t, renews(false, errNoLeader))
	require.False(t, renews(false, errNoLeader))
	require.True(t, renews(true, nil), "Consul was away")
	now = now.Add(1)
	require.True(t, renews(true, nil))
	now = now.Add(-time.Hour)
	require.True(t, renews(true, nil), "the clock was set back")
}

// A clock that is set back makes no error of the source wait longer than half a second, and looks
// at instances that flap in 30 seconds at the latest.
func TestWaitsAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	require.Equal(t, patience, lateIn(now, now))
	require.Equal(t, patience, lateIn(now, now.Add(-time.Hour)))
	require.Equal(t, patience-time.Millisecond, lateIn(now, now.Add(time.Millisecond)))
	require.Negative(t, lateIn(now, now.Add(time.Hour)))
	require.Equal(t, calmAfter+time.Millisecond, calmIn(now.Add(calmAfter), now))
	require.Equal(t, calmAfter+time.Millisecond, calmIn(now.Add(calmAfter), now.Add(-time.Hour)))
	require.Equal(t, time.Second+time.Millisecond, calmIn(now.Add(time.Second), now))
}
