//go:build linux

package consul

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/hosts"
)

// Cluster are servers of one Consul, each on a host of its own.
type Cluster struct {
	Members []*Member
}

// Member is a server and its host: Process.Kill and Process.Start, Process.Pause and Process.Resume
// act on the one, Cut, Part, Heal and Stop on the other. Cut keeps the test from it too; Part
// leaves the test a server that has lost the others.
type Member struct {
	*Server
	*hosts.Host
}

// StartCluster runs n Consul servers, which have a leader when this returns. It needs root.
func StartCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	return startCluster(t, n, "")
}

// StartGuarded is StartCluster with access control: a request without a token may do nothing, and
// the Clients have a token that may do everything.
func StartGuarded(t testing.TB, n int) *Cluster {
	t.Helper()
	id := make([]byte, 16)
	_, _ = rand.Read(id) // it never fails
	return startCluster(t, n, fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10],
		id[10:]))
}

func startCluster(t testing.TB, n int, token string) *Cluster {
	t.Helper()
	testbed.NeedTool(t, "consul") // before hosts are made
	c := &Cluster{}
	commands := make([]testbed.Command, n)
	for i, host := range hosts.Start(t, n) {
		m := &Member{Host: host}
		m.Server, commands[i] = consul(t, testbed.DirIn(t, host.Dir, "consul"),
			fmt.Sprintf("consul-%d", i+1), host.IP, n, connections, token)
		commands[i].Netns = host.Name
		c.Members = append(c.Members, m)
	}
	for i, m := range c.Members {
		for _, other := range c.Others(m) {
			commands[i].Args = append(commands[i].Args, "-retry-join", other.serf,
				"-retry-interval", "1s")
		}
		m.Process = testbed.Prepare(t, m.Server.dir, commands[i])
	}
	c.Start(t)
	return c
}

// Start starts the members that do not run, and waits until each of them has a leader that answers
// for the whole.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	errs := make([]error, len(c.Members))
	var wg sync.WaitGroup
	for i, m := range c.Members {
		if !m.Process.Running() {
			wg.Go(func() { errs[i] = m.Process.Begin() })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Others are the members without one.
func (c *Cluster) Others(than *Member) []*Member {
	return slices.DeleteFunc(slices.Clone(c.Members), func(m *Member) bool { return m == than })
}

// Leader waits until most members agree on one that answers for the whole, and returns it.
func (c *Cluster) Leader(t testing.TB) *Member {
	t.Helper()
	var leader *Member
	testbed.Poll(t, "a leader of Consul", func() error {
		soon, cancel := context.WithTimeout(t.Context(), time.Second) // for those that are cut off
		defer cancel()
		said := make([]string, len(c.Members))
		var wg sync.WaitGroup
		for i, m := range c.Members {
			wg.Go(func() { said[i], _ = m.leader(soon) })
		}
		wg.Wait()
		for _, m := range c.Members {
			votes := slices.DeleteFunc(slices.Clone(said), func(addr string) bool {
				return addr != m.raft
			})
			if len(votes) > len(said)/2 {
				leader = m
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				return m.ready(ctx)
			}
		}
		return fmt.Errorf("the members name %q", said)
	})
	return leader
}
