package testbed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// ConsulServers are servers of one Consul, each on a host of its own.
type ConsulServers struct {
	Members []*ConsulMember
}

// ConsulMember is a server and its host: Process.Kill and Process.Start, Process.Pause and Process.Resume act on the one, Cut,
// Part, Heal and Stop on the other. Cut keeps the test from it too; Part leaves the test a server that has lost the others.
type ConsulMember struct {
	*ConsulServer
	*Host
}

// ConsulCluster runs n Consul servers, which have a leader when this returns. It needs root.
func ConsulCluster(t testing.TB, n int) *ConsulServers {
	t.Helper()
	tool(t, "consul") // before hosts are made
	c := &ConsulServers{}
	commands := make([]command, n)
	for i, host := range Hosts(t, n) {
		m := &ConsulMember{Host: host}
		m.ConsulServer, commands[i] = consul(t, folderIn(t, host.dir, "consul"), fmt.Sprintf("consul-%d", i+1), host.IP, n)
		commands[i].netns = host.Name
		c.Members = append(c.Members, m)
	}
	for i, m := range c.Members {
		for _, other := range c.Others(m) {
			commands[i].args = append(commands[i].args, "-retry-join", other.serf, "-retry-interval", "1s")
		}
		m.Process = prepare(t, m.ConsulServer.dir, commands[i])
	}
	c.Start(t)
	return c
}

// Start starts the members that do not run, and waits until each of them has a leader that answers for the whole.
func (c *ConsulServers) Start(t testing.TB) {
	t.Helper()
	errs := make([]error, len(c.Members))
	var wg sync.WaitGroup
	for i, m := range c.Members {
		if !m.Process.running() {
			wg.Go(func() { errs[i] = m.Process.begin() })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Others are the members without one.
func (c *ConsulServers) Others(than *ConsulMember) []*ConsulMember {
	return slices.DeleteFunc(slices.Clone(c.Members), func(m *ConsulMember) bool { return m == than })
}

// Leader waits until most members agree on one that answers for the whole, and returns it.
func (c *ConsulServers) Leader(t testing.TB) *ConsulMember {
	t.Helper()
	var leader *ConsulMember
	Poll(t, "a leader of Consul", func() error {
		soon, cancel := context.WithTimeout(t.Context(), time.Second) // for those that are cut off
		defer cancel()
		said := make([]string, len(c.Members))
		var wg sync.WaitGroup
		for i, m := range c.Members {
			wg.Go(func() { said[i], _ = m.leader(soon) })
		}
		wg.Wait()
		for _, m := range c.Members {
			votes := slices.DeleteFunc(slices.Clone(said), func(addr string) bool { return addr != m.raft })
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
