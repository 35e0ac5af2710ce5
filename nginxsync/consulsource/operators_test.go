//go:build linux

package consulsource_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
)

// stage is a service that operators change.
type stage struct {
	*bed
	client  *api.Client
	service string
}

// newStage follows a service of its own, and others; few changes do not count as flapping.
func newStage(t *testing.T, server *consul.Server, filter string, others ...string) *stage {
	t.Helper()
	s := &stage{client: server.Client, service: name()}
	cfg := config(server, append(others, s.service)...)
	cfg.Filter = filter
	s.bed = follow(t, cfg)
	return s
}

// put registers instance 1 with Consul's own agent, under the name of a service.
func (s *stage) put(service string, port int, tags ...string) {
	s.t.Helper()
	require.NoError(s.t, s.client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: s.service + "-1", Name: service, Address: "127.0.0.1", Port: port, Tags: tags}))
}

// external registers instance 1 on a node without an agent, and the state of a check of the node.
func (s *stage) external(node, address, health string) {
	s.t.Helper()
	_, err := s.client.Catalog().Register(&api.CatalogRegistration{Node: s.service + node,
		Address: address, Service: &api.AgentService{ID: s.service + "-1", Service: s.service,
			Port: 90}, Check: &api.AgentCheck{Node: s.service + node, CheckID: "disk",
			Status: health}}, nil)
	require.NoError(s.t, err)
}

// has waits until the instances of the stage's service are those: id, address and weight.
func (s *stage) has(want ...string) {
	s.t.Helper()
	testbed.Poll(s.t, fmt.Sprintf("the instances are %v", want), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		got := []string{}
		for _, in := range s.shown.Baseline[s.service] {
			got = append(got, fmt.Sprint(strings.ReplaceAll(in.ID, s.service, "s"), " ", in.Addr,
				" ", in.Weight))
		}
		if !slices.Equal(got, append([]string{}, want...)) {
			return fmt.Errorf("%v, status %+v", got, s.Status())
		}
		return nil
	})
}

// Changes that operators make to services and nodes are followed as Consul itself answers
// afterwards.
func TestOperatorsChanges(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	if server.Process == nil {
		t.Skip("not run: this test puts Consul's node into maintenance, and CONSUL_HTTP_ADDR " +
			"names another's")
	}
	tagged := newStage(t, server, `"blue" in Service.Tags`)
	tagged.put(tagged.service, 80, "blue")
	tagged.has("s-1 127.0.0.1:80 1")
	tagged.put(tagged.service, 80, "green")
	tagged.has()
	tagged.put(tagged.service, 81, "green", "blue")
	tagged.has("s-1 127.0.0.1:81 1")

	next := name()
	renamed := newStage(t, server, "", next)
	renamed.put(renamed.service, 80)
	renamed.has("s-1 127.0.0.1:80 1")
	renamed.put(next, 80) // the same id with another name
	renamed.has()
	renamed.shows(next, "1@80=")
	renamed.put(renamed.service, 80)
	renamed.has("s-1 127.0.0.1:80 1")
	renamed.shows(next)

	// nodes without an agent: the same id, IPv6, no weights, a check of the node, a host's name
	nodes := newStage(t, server, "")
	nodes.put(nodes.service, 80)
	nodes.has("s-1 127.0.0.1:80 1")
	nodes.external("-n1", "fd00::5", api.HealthPassing)
	nodes.has("s-1 127.0.0.1:80 1", "s-n1:s-1 [fd00::5]:90 1")
	nodes.external("-n1", "fd00::5", api.HealthCritical)
	nodes.has("s-1 127.0.0.1:80 1")
	nodes.external("-n2", "name.of.a.node", api.HealthPassing)
	testbed.Poll(t, "the record without an IP address is set aside", func() error {
		aside := nodes.Status().Services[0].SetAside
		if len(aside) != 1 || !strings.Contains(aside[0], `"name.of.a.node", want an IP address`) {
			return fmt.Errorf("%q", aside)
		}
		return nil
	})
	nodes.external("-n1", "fd00::5", api.HealthPassing)
	nodes.has("s-1 127.0.0.1:80 1", "s-n1:s-1 [fd00::5]:90 1")
	for _, node := range []string{"-n1", "-n2"} {
		_, err := server.Client.Catalog().Deregister(&api.CatalogDeregistration{
			Node: nodes.service + node}, nil)
		require.NoError(t, err)
	}
	nodes.has("s-1 127.0.0.1:80 1")

	rested := newStage(t, server, "")
	rested.put(rested.service, 80)
	rested.has("s-1 127.0.0.1:80 1")
	require.NoError(t, server.Client.Agent().EnableNodeMaintenance("work on the rack"))
	rested.has()
	require.NoError(t, server.Client.Agent().DisableNodeMaintenance())
	rested.has("s-1 127.0.0.1:80 1")
}

// A Consul that takes no more connections of a client than its default is never asked for more,
// also when all queries begin at once and take turns.
func TestConnectionsOfOneClient(t *testing.T) {
	t.Parallel()
	const most = 40
	server := consul.StartWide(t, most)
	var services []string
	for range 60 {
		services = append(services, name())
	}
	var refused atomic.Int64
	cfg := config(server, services...)
	cfg.Connections, cfg.Turn, cfg.Tag = most-10, 100*time.Millisecond, "none"
	cfg.Observe = func(_ string, _ time.Duration, err error) {
		if err != nil && strings.Contains(err.Error(), "429") {
			refused.Add(1)
		}
	}
	b := follow(t, cfg)
	for i, s := range services {
		_, err := server.Client.Catalog().Register(&api.CatalogRegistration{Node: services[0],
			Address: "127.0.0.1", SkipNodeUpdate: i > 0, Service: &api.AgentService{ID: s + "-1",
				Service: s, Port: 80 + i}}, nil)
		require.NoError(t, err)
	}
	for i, s := range services {
		b.shows(s, fmt.Sprintf("1@%d=", 80+i))
	}
	require.Zero(t, refused.Load())
}
