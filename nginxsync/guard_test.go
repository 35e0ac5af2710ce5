package nginxsync_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

func many(n int) []nginxsync.Instance {
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprint("i", i))
	}
	return serves(ids...)
}

// on are overlays of one cluster with one instance on so many VIPs.
func on(n int) overlays {
	out := overlays{}
	for i := range n {
		out[netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})] = clusters{"a": serves("i1")}
	}
	return out
}

// Each change that shrinks is held or believed as the guard's rules say; a plan, a person and time
// release it, and then the source's version serves.
func TestGuard(t *testing.T) {
	t.Parallel()
	first := netip.AddrFrom4([4]byte{10, 0, 1, 0})
	type snapshot = nginxsync.Snapshot
	wide := func(clusters, instances int) map[string][]nginxsync.Instance {
		out := map[string][]nginxsync.Instance{}
		for i := range clusters {
			out[fmt.Sprint("c", i)] = many(instances)
		}
		return out
	}
	for _, c := range []struct {
		name     string
		from, to snapshot
		plan     []nginxsync.Intent // that covers it
		held     []string           // beginnings
	}{
		{"the last instance of a cluster", snapshot{Baseline: clusters{"a": many(1), "b": many(9)}},
			snapshot{Baseline: clusters{"a": {}, "b": many(9)}},
			[]nginxsync.Intent{{Cluster: "a"}}, []string{`baseline cluster "a": 1 instances kept`}},
		{"a cluster that is named no more", snapshot{Baseline: clusters{"a": many(1),
			"b": many(9)}}, snapshot{Baseline: clusters{"b": many(9)}},
			[]nginxsync.Intent{{Cluster: "a"}}, []string{`baseline cluster "a": 1 instances kept`}},
		{"11 instances become 1", snapshot{Baseline: clusters{"a": many(11), "b": many(99)}},
			snapshot{Baseline: clusters{"a": many(1), "b": many(99)}},
			[]nginxsync.Intent{{Cluster: "a"}},
			[]string{`baseline cluster "a": 11 instances kept, 1 offered`}},
		{"half of the instances stay", snapshot{Baseline: clusters{"a": many(4), "b": many(9)}},
			snapshot{Baseline: clusters{"a": many(2), "b": many(9)}}, nil, nil},
		{"instances of an overlay", snapshot{Overlays: overlays{first: {"a": many(5)}}},
			snapshot{Overlays: overlays{first: {"a": many(2)}}},
			[]nginxsync.Intent{{VIP: first, Cluster: "a"}}, []string{"vip 10.0.1.0 cluster"}},
		{"the only overlay", snapshot{Overlays: on(1)}, snapshot{},
			[]nginxsync.Intent{{VIP: first}}, []string{"vip 10.0.1.0 cluster"}},
		{"all overlays", snapshot{Baseline: wide(1, 1), Overlays: on(3)},
			snapshot{Baseline: wide(1, 1)}, []nginxsync.Intent{{VIP: first},
				{VIP: first.Next()}, {VIP: first.Next().Next()}},
			[]string{"vip 10.0.1.0 ", "vip 10.0.1.1 ", "vip 10.0.1.2 "}},
		{"all overlays are emptied", snapshot{Overlays: on(1)},
			snapshot{Overlays: overlays{first: {"a": {}}}}, []nginxsync.Intent{{VIP: first}},
			[]string{"vip 10.0.1.0 cluster"}},
		{"one overlay of three", snapshot{Overlays: on(3)}, snapshot{Overlays: on(2)}, nil, nil},
		{"most overlays", snapshot{Overlays: on(9)}, snapshot{Overlays: on(8)}, nil, nil},
		{"an overlay that was empty", snapshot{Overlays: overlays{first: {"a": {}}}}, snapshot{},
			nil,
			nil},
		{"three of ten clusters by one each", snapshot{Baseline: wide(10, 3)},
			snapshot{Baseline: func() clusters {
				b := wide(10, 3)
				b["c0"], b["c1"], b["c2"] = many(2), many(2), many(2)
				return b
			}()}, nil, nil},
		{"all clusters shrink by a bit too much in all", snapshot{Baseline: clusters{"a": many(9),
			"b": many(2), "c": many(2)}}, snapshot{Baseline: clusters{"a": many(4), "b": many(1),
			"c": many(1)}}, []nginxsync.Intent{{Cluster: "a"}},
			[]string{`baseline cluster "a": 9 instances kept, 4 offered`}},
	} {
		for _, way := range []string{"held", "planned", "released", "in time", "taken back"} {
			t.Run(c.name+", "+way, func(t *testing.T) {
				t.Parallel()
				clock := &clock{now: time.Now()}
				driver := &memoryDriver{}
				source := nginxsync.NewStaticSource(c.from)
				agent := running(t, nginxsync.Config{Source: source, Driver: driver,
					CheckEvery: time.Millisecond, Now: clock.Now,
					Guard: nginxsync.Guard{ReleaseAfter: time.Hour}})
				require.NoError(t, agent.WaitVerified(t.Context(), 1))
				if way == "planned" {
					to := c.to
					to.Planned = c.plan
					source.Set(to)
					// The agent may see only the next snapshot; the plan lives on.
					require.NoError(t, agent.WaitVerified(t.Context(), source.Set(c.to)))
					require.True(t, driver.now().Snapshot.Equal(c.to))
					return
				}
				revision := source.Set(c.to)
				err := agent.WaitVerified(t.Context(), revision)
				if len(c.held) == 0 {
					require.NoError(t, err)
					require.True(t, driver.now().Snapshot.Equal(c.to))
					return
				}
				require.ErrorIs(t, err, nginxsync.ErrHeld)
				held := agent.Status().Held
				require.Len(t, held, len(c.held))
				for i, want := range c.held {
					require.Contains(t, held[i].String(), want)
					require.False(t, held[i].Alarm)
				}
				gone := func() bool { return len(agent.Status().Held) == 0 }
				switch way {
				case "held":
					clock.add(16 * time.Minute)
					eventually(t, "it is an alarm", func() bool {
						return agent.Status().Held[0].Alarm
					})
					require.NoError(t, agent.WaitVerified(t.Context(), source.Set(c.to)),
						"another revision is not blamed")
					return
				case "released":
					require.ErrorIs(t, agent.Release(nginxsync.Intent{Cluster: "other"}),
						nginxsync.ErrNotFound)
					for _, h := range held {
						require.NoError(t, agent.Release(nginxsync.Intent{VIP: h.VIP,
							Cluster: h.Cluster, By: "a person"}))
					}
				case "in time":
					clock.add(61 * time.Minute)
				case "taken back":
					require.NoError(t, agent.WaitVerified(t.Context(), source.Set(c.from)))
					require.True(t, gone())
					require.True(t, driver.now().Snapshot.Equal(c.from))
					return
				}
				eventually(t, "it is released", gone)
				require.NoError(t, agent.WaitVerified(t.Context(), revision))
				eventually(t, "it is in force", func() bool {
					return driver.now().Snapshot.Equal(c.to)
				})
			})
		}
	}
}

// An intent is used up by the change that it covers, and ends with its time.
func TestIntentIsUsedOnce(t *testing.T) {
	t.Parallel()
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{Baseline: clusters{"a": many(2),
		"b": many(9)}})
	agent := running(t, nginxsync.Config{Source: source, Driver: &memoryDriver{}})
	require.NoError(t, agent.WaitVerified(t.Context(), 1))
	without := nginxsync.Snapshot{Baseline: clusters{"b": many(9)},
		Planned: []nginxsync.Intent{{Cluster: "a"}}}
	require.NoError(t, agent.WaitVerified(t.Context(), source.Set(without)))
	with := nginxsync.Snapshot{Baseline: clusters{"a": many(2), "b": many(9)}}
	require.NoError(t, agent.WaitVerified(t.Context(), source.Set(with)))
	without.Planned = nil
	require.ErrorIs(t, agent.WaitVerified(t.Context(), source.Set(without)), nginxsync.ErrHeld)
	late := with
	late.Planned = []nginxsync.Intent{{Cluster: "b", Until: time.Now().Add(-time.Second)}}
	require.NoError(t, agent.WaitVerified(t.Context(), source.Set(late)))
	require.ErrorIs(t, agent.WaitVerified(t.Context(), source.Set(nginxsync.Snapshot{
		Baseline: clusters{"a": many(2)}, Planned: late.Planned})), nginxsync.ErrHeld)
}

// clock is a clock that stands until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
