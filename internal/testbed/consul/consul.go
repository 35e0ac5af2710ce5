//go:build linux

// Package consul runs Consul servers for tests: one on this machine, or a cluster of them on hosts
// of their own, which a test can kill, pause, cut off, partition and restore from a snapshot.
package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Server is one Consul server with its data on disk.
type Server struct {
	Addr    string // host:port of its HTTP API
	DNS     string // host:port of its DNS interface, UDP and TCP; empty for another's server
	Client  *api.Client
	Process *testbed.Process // nil for a server that the test did not start

	dir  string
	raft string // address that servers name as the leader's
	serf string // address at which others join it
}

// Start runs one Consul server, which is its own leader when this returns. Where CONSUL_HTTP_ADDR
// is set, that one is used, with the other CONSUL variables: a test has to keep to keys of its own
// and to remove them.
func Start(t testing.TB) *Server {
	t.Helper()
	if addr := os.Getenv(api.HTTPAddrEnvName); addr != "" {
		client, err := api.NewClient(api.DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		return &Server{Addr: addr, Client: client}
	}
	return StartWide(t, connections)
}

// connections is how many of them a server takes from one client.
const connections = 2000

// StartWide runs one Consul server of the test's own that takes so many connections of a client,
// which have to be some fewer than the file descriptors of a process.
func StartWide(t testing.TB, connections int) *Server {
	t.Helper()
	s, c := consul(t, testbed.Own(t).TestDir(t, "consul"), "consul", "127.0.0.1", 1, connections,
		"")
	s.Process = testbed.Start(t, s.dir, c)
	return s
}

// consul prepares one of several servers, on an address and in a directory, and says how it is
// started. With a token it has access control.
func consul(t testing.TB, dir, name, ip string, servers, connections int, token string) (*Server,
	testbed.Command) {
	t.Helper()
	path := testbed.NeedTool(t, "consul")
	port := map[string]int{"dns": testbed.Port(t), "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
		"http": testbed.Port(t), "serf_lan": testbed.Port(t), "server": testbed.Port(t)}
	settings := map[string]any{
		"server": true, "node_name": name, "data_dir": filepath.Join(dir, "data"), "bind_addr": ip,
		"client_addr": ip, "ports": port,
		"disable_update_check": true, "skip_leave_on_interrupt": true, "leave_on_terminate": false,
		"bootstrap_expect": servers,
		// a server that comes back is still a member
		"autopilot": map[string]any{"cleanup_dead_servers": false},
		// one that is alone can lose no election; on a busy machine three lose some at once a
		// second
		"performance": map[string]any{"raft_multiplier": min(servers, 2)},
		"limits":      map[string]any{"http_max_conns_per_client": connections},
	}
	if token != "" {
		settings["acl"] = map[string]any{"enabled": true, "default_policy": "deny",
			"tokens": map[string]string{"initial_management": token, "agent": token}}
	}
	config, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: fmt.Sprintf("%s:%d", ip, port["http"]),
		DNS: fmt.Sprintf("%s:%d", ip, port["dns"]), dir: dir,
		raft: fmt.Sprintf("%s:%d", ip, port["server"]), serf: fmt.Sprintf("%s:%d", ip,
			port["serf_lan"])}
	client := &api.Config{Address: s.Addr, Token: token,
		Transport: api.DefaultConfig().Transport}
	client.Transport.MaxIdleConnsPerHost = 64
	if s.Client, err = api.NewClient(client); err != nil {
		t.Fatal(err)
	}
	return s, testbed.Command{Name: name, Path: path, Args: []string{"agent", "-config-file", file},
		Ready: s.ready}
}

// ready is nil once there is a leader that answers for the whole.
func (s *Server) ready(ctx context.Context) error {
	options := (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
	_, _, err := s.Client.KV().Keys("testbed", "", options)
	return err
}

// leader returns the address of the leader as this server sees it.
func (s *Server) leader(ctx context.Context) (string, error) {
	return s.Client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
}

// Snapshot is the state of the servers as it is now.
func (s *Server) Snapshot(t testing.TB) []byte {
	t.Helper()
	r, _, err := s.Client.Snapshot().Save(nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// Restore puts a snapshot in the place of the servers' state, which turns their index back.
func (s *Server) Restore(t testing.TB, snapshot []byte) {
	t.Helper()
	if err := s.Client.Snapshot().Restore(nil, bytes.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
}
