//go:build linux

package linearizable_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/linearizable"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/internal/testbed/hosts"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
)

// The leader of three servers is killed, stopped, cut off from the others, all while callers of
// three allocators, each with a server of its own, take leases and give them back. Nothing
// acknowledged is lost, nothing given twice: the history is one that one caller after the other
// could have seen.
func TestLeaderLostAndRestored(t *testing.T) {
	t.Parallel()
	cluster := consul.StartCluster(t, 3)
	over := make(chan struct{})
	var answered atomic.Int64
	load := linearizable.Load{Seed: 1, Callers: 6, Calls: 20, Tasks: 9, Size: 6, Lost: true,
		Until: over, Pause: 50 * time.Millisecond, Answered: &answered}
	cfg := consulstore.Config{Prefix: "sluice-test/leader/"}
	var all []*vip.Allocator
	for _, m := range cluster.Members {
		all = append(all, shared(t, open(t, m.Server, cfg), load))
	}
	checked := make(chan linearizable.Counts, 1)
	go func() { checked <- linearizable.Check(t, all, load) }()

	faults := 0
	var counts linearizable.Counts
	func() {
		defer func() {
			close(over)
			counts = <-checked
		}()
		for range 3 {
			for _, fault := range []struct{ begin, end func(m *consul.Member) }{
				{func(m *consul.Member) {
					m.Process.Kill()
				}, func(m *consul.Member) { m.Process.Start() }},
				{func(m *consul.Member) {
					m.Process.Pause()
				}, func(m *consul.Member) { m.Process.Resume() }},
				{func(m *consul.Member) { part(cluster, m) }, func(m *consul.Member) { m.Heal() }},
			} {
				was, before := cluster.Leader(t), answered.Load()
				testbed.Poll(t, "the callers to get on", func() error {
					if n := answered.Load() - before; n < 60 {
						return fmt.Errorf("%d calls since the last fault", n)
					}
					return nil
				})
				fault.begin(was)
				testbed.Poll(t, "another leader", func() error { return follows(cluster, was) })
				fault.end(was)
				cluster.Leader(t)
				faults++
			}
		}
	}()
	t.Logf("%d leaders lost: %+v", faults, counts)
	require.NotZero(t, counts.Allocated)

	fresh := shared(t, open(t, cluster.Members[0].Server, cfg), load)
	tasks := map[string]bool{}
	for _, l := range fresh.List(vip.Query{States: []vip.State{vip.Leased}}) {
		require.False(t, tasks[l.Owner.Task], "task %s has two addresses", l.Owner.Task)
		tasks[l.Owner.Task] = true
	}
}

// part leaves the test a server that has lost the others.
func part(cluster *consul.Cluster, m *consul.Member) {
	var others []*hosts.Host
	for _, o := range cluster.Others(m) {
		others = append(others, o.Host)
	}
	m.Part(others...)
}

// follows is nil when one of the others leads.
func follows(cluster *consul.Cluster, was *consul.Member) error {
	for _, m := range cluster.Others(was) {
		now, err := m.Client.Status().Leader()
		if err != nil {
			return err
		}
		if now == "" || strings.HasPrefix(now, was.IP+":") {
			return fmt.Errorf("%s says that %q leads", m.IP, now)
		}
	}
	return nil
}
