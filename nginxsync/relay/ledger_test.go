package relay

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/nginxsync"
)

// world makes random snapshots, each out of the one before, with which it shares maps.
type world struct {
	*rand.Rand
	now   nginxsync.Snapshot
	plans *nginxsync.StaticSource
}

func (w *world) name() string { return fmt.Sprintf("n%d", w.IntN(4)) }

func (w *world) vip() netip.Addr {
	addrs := []string{"10.58.0.1", "10.58.0.2", "fd00::1", "::ffff:10.58.0.1", "fe80::1%eth0", ""}
	addr, _ := netip.ParseAddr(addrs[w.IntN(len(addrs))])
	return addr // the last one is none
}

func (w *world) list() []nginxsync.Instance {
	list := make([]nginxsync.Instance, w.IntN(3))
	for i := range list {
		list[i] = nginxsync.Instance{ID: fmt.Sprint(w.name(), "\x01<\u00e9>"),
			Weight: w.IntN(3) - 1, Version: w.name(), Backup: w.IntN(2) == 0}
		if vip := w.vip(); vip.IsValid() {
			list[i].Addr = netip.AddrPortFrom(vip, uint16(w.IntN(3)))
		}
	}
	return list
}

// clusters changes one cluster of a map.
func (w *world) clusters(m map[string][]nginxsync.Instance) map[string][]nginxsync.Instance {
	return changed(w, m, w.name(), w.list())
}

// changed is a copy of a map in which one key has another value or none.
func changed[K comparable, V any](w *world, m map[K]V, k K, v V) map[K]V {
	out := map[K]V{}
	for key, value := range m {
		out[key] = value
	}
	if out[k] = v; w.IntN(3) == 0 {
		delete(out, k)
	}
	return out
}

// step makes the next snapshot by one change.
func (w *world) step() {
	s, vip, name := w.now, w.vip(), w.name()
	switch w.IntN(8) {
	case 0:
		s.Baseline = w.clusters(s.Baseline)
	case 1:
		s.Overlays = changed(w, s.Overlays, vip, w.clusters(s.Overlays[vip]))
	case 2:
		s.Branches = changed(w, s.Branches, name, w.clusters(s.Branches[name]))
	case 3:
		scope := nginxsync.Scope{Branches: []string{name}}
		if w.IntN(2) == 0 {
			scope.Ended = nginxsync.Ended{Task: name, At: time.Unix(w.Int64N(3), 5).UTC(),
				Versions: map[string]string{name: "v"}}
		}
		s.Scopes = changed(w, s.Scopes, vip, scope)
	case 4:
		s.Tasks = changed(w, s.Tasks, name, vip)
	case 5:
		s.Pools = nil
		for range w.IntN(3) {
			s.Pools = append(s.Pools, nginxsync.Range{First: w.vip(), Last: w.vip()})
		}
	case 6:
		w.plans.Set(nginxsync.Snapshot{Planned: []nginxsync.Intent{{VIP: vip, Cluster: name,
			By: "x", Until: time.Unix(w.Int64N(2), 0).UTC()}}})
		last, _, _ := w.plans.Watch(context.Background(), 0)
		s.Planned = last.Planned[:min(len(last.Planned), w.IntN(8))]
	case 7:
		s = nginxsync.Snapshot{}
	}
	w.now = s
}

// arrived is a snapshot without the overlay and the scope that have no address: they are not passed
// on.
func arrived(s nginxsync.Snapshot) nginxsync.Snapshot {
	s.Overlays, s.Scopes = maps.Clone(s.Overlays), maps.Clone(s.Scopes)
	delete(s.Overlays, netip.Addr{})
	delete(s.Scopes, netip.Addr{})
	return s
}

// plansOf are the plans of a snapshot, each with its number.
func plansOf(s nginxsync.Snapshot) (list []string) {
	for _, in := range s.Planned {
		list = append(list, fmt.Sprintf("%+v", in))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// A view that gets the lines of a ledger has its snapshot, whether it got all changes, some twice,
// or everything at once.
func TestRandomSnapshotsArrive(t *testing.T) {
	t.Parallel()
	for seed := range soak.Count(8, 2000) {
		w := &world{Rand: rand.New(rand.NewPCG(uint64(seed), 1)),
			plans: nginxsync.NewStaticSource(nginxsync.Snapshot{})}
		from, follower := newLedger(), newView()
		var before []string
		for range 60 {
			for range 1 + w.IntN(3) {
				w.step()
			}
			change := from.take(w.now)
			send(t, follower, before[:w.IntN(len(before)+1)]) // of a connection that broke
			send(t, follower, before)
			send(t, follower, change)
			before = change
			got, err := follower.snapshot(from.sum)
			require.NoError(t, err, "seed %d", seed)
			require.True(t, arrived(w.now).Equal(got), "seed %d: want %+v, got %+v", seed, w.now,
				got)
			late := newView()
			send(t, late, from.all())
			all, err := late.snapshot(from.sum)
			require.NoError(t, err, "seed %d", seed)
			require.True(t, got.Equal(all), "seed %d: want %+v, got %+v", seed, got, all)
			require.Equal(t, plansOf(got), plansOf(all), "seed %d", seed)
			require.Len(t, plansOf(got), len(contents(w.now)), "seed %d", seed)
		}
	}
}

// contents are the plans of a snapshot that differ in more than when they were made.
func contents(s nginxsync.Snapshot) map[string]bool {
	out := map[string]bool{}
	for _, in := range s.Planned {
		out[content(in)] = true
	}
	return out
}

func send(t *testing.T, v *view, lines []string) {
	t.Helper()
	for _, text := range lines {
		in, err := parse(text)
		require.NoError(t, err, text)
		v.apply(text, in)
	}
}

// A snapshot that was given away is not changed.
func TestGivenSnapshotsStay(t *testing.T) {
	t.Parallel()
	w := &world{Rand: rand.New(rand.NewPCG(7, 7)),
		plans: nginxsync.NewStaticSource(nginxsync.Snapshot{})}
	from, follower := newLedger(), newView()
	var given []nginxsync.Snapshot
	var texts []string
	for range 100 {
		w.step()
		send(t, follower, from.take(w.now))
		got, err := follower.snapshot(from.sum)
		require.NoError(t, err)
		given, texts = append(given, got), append(texts, fmt.Sprintf("%+v", got))
	}
	for i, s := range given {
		require.Equal(t, texts[i], fmt.Sprintf("%+v", s))
	}
}

// One change costs one line, however many others there are.
func TestChangeIsOneLine(t *testing.T) {
	t.Parallel()
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	for i := range 1000 {
		s.Baseline[fmt.Sprint("c", i)] = []nginxsync.Instance{{ID: "i"}}
		s.Overlays[netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})] =
			map[string][]nginxsync.Instance{"c1": {{ID: "o"}}}
	}
	from := newLedger()
	require.Len(t, from.take(s), 2000)
	w := &world{Rand: rand.New(rand.NewPCG(1, 1))}
	s.Baseline = changed(w, s.Baseline, "c7", []nginxsync.Instance{{ID: "j"}})
	require.Equal(t, []string{`{"row":{"cluster":"c7","instances":[{"id":"j","addr":""}]}}`},
		from.take(s))
	require.Empty(t, from.take(s))
}

// A plan that is made again is another one, so an agent whose first one is used up believes it.
func TestPlanMadeAgain(t *testing.T) {
	t.Parallel()
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{})
	from, follower := newLedger(), newView()
	follow := func() nginxsync.Intent {
		s, _, err := source.Watch(t.Context(), 0)
		require.NoError(t, err)
		send(t, follower, from.take(s))
		got, err := follower.snapshot(from.sum)
		require.NoError(t, err)
		require.Len(t, got.Planned, 1)
		return got.Planned[0]
	}
	plan := nginxsync.Snapshot{Planned: []nginxsync.Intent{{Cluster: "a", By: "ops"}}}
	source.Set(plan)
	first := follow()
	source.Set(nginxsync.Snapshot{})
	require.Equal(t, first, follow())
	source.Set(plan)
	require.NotEqual(t, first, follow())
	require.Equal(t, first, follow().Numbered(0))
}

// A follower gets the changes since the revision that it has, or everything when these are not kept
// any more.
func TestOldChangesAreForgotten(t *testing.T) {
	t.Parallel()
	h, err := NewHandler(HandlerConfig{Source: nginxsync.NewStaticSource(nginxsync.Snapshot{}),
		Token: "0123456789abcdef"})
	require.NoError(t, err)
	s := nginxsync.Snapshot{Pools: []nginxsync.Range{{}}}
	set := func(version string) {
		s.Baseline = map[string][]nginxsync.Instance{"a": {{ID: "i", Version: version}}}
		h.take(s)
	}
	for i := range keepChanges + 2 {
		set(fmt.Sprint("v", i))
	}
	last := uint64(keepChanges + 2)
	for at, want := range map[uint64]struct {
		after uint64
		lines int
	}{1: {0, 4}, 2: {2, keepChanges + 1}, last - 1: {last - 1, 2}, last: {last, 1},
		last + 1: {0, 4}} {
		texts := h.next(&follower{at: at})
		require.Len(t, texts, want.lines, "at %d", at)
		require.Equal(t, string(encode(line{Hello: &hello{h.stream, want.after}})), texts[0])
	}
	for i := range 3 { // changes that are too large to be kept together
		set(strings.Repeat("x", keepBytes/2) + fmt.Sprint(i))
	}
	require.Len(t, h.changes, 1)
	f := &follower{at: last + 2, greeted: true}
	require.Len(t, h.next(f), 1)
	require.Empty(t, h.next(f))
	require.Contains(t, h.next(&follower{at: last})[0], `"after":0`)
}
