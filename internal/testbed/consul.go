package testbed

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
)

// ConsulServer is one Consul server with its data on disk.
type ConsulServer struct {
	Addr    string // host:port of its HTTP API
	Client  *api.Client
	Process *Process // nil for somebody else's

	dir  string
	raft string // address that servers name as the leader's
	serf string // address at which others join it
}

// Consul runs one Consul server, which is its own leader when this returns. Where CONSUL_HTTP_ADDR is set, that one is used,
// with the other CONSUL variables: a test has to keep to keys of its own and to remove them.
func Consul(t testing.TB) *ConsulServer {
	t.Helper()
	if addr := os.Getenv(api.HTTPAddrEnvName); addr != "" {
		client, err := api.NewClient(api.DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		return &ConsulServer{Addr: addr, Client: client}
	}
	s, c := consul(t, own(t).folder(t, "consul"), "consul", "127.0.0.1", 1)
	s.Process = start(t, s.dir, c)
	return s
}

// consul prepares one of several servers, on an address and in a folder, and says how it is started.
func consul(t testing.TB, dir, name, ip string, servers int) (*ConsulServer, command) {
	t.Helper()
	path := tool(t, "consul")
	port := map[string]int{"dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1, "http": Port(t), "serf_lan": Port(t), "server": Port(t)}
	config, err := json.Marshal(map[string]any{
		"server": true, "node_name": name, "data_dir": filepath.Join(dir, "data"), "bind_addr": ip, "client_addr": ip, "ports": port,
		"disable_update_check": true, "skip_leave_on_interrupt": true, "leave_on_terminate": false, "bootstrap_expect": servers,
		"autopilot":   map[string]any{"cleanup_dead_servers": false}, // who comes back is still a member
		"performance": map[string]any{"raft_multiplier": 1}, "limits": map[string]any{"http_max_conns_per_client": 2000},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &ConsulServer{Addr: fmt.Sprintf("%s:%d", ip, port["http"]), dir: dir,
		raft: fmt.Sprintf("%s:%d", ip, port["server"]), serf: fmt.Sprintf("%s:%d", ip, port["serf_lan"])}
	client := &api.Config{Address: s.Addr, Transport: api.DefaultConfig().Transport}
	client.Transport.MaxIdleConnsPerHost = 64
	if s.Client, err = api.NewClient(client); err != nil {
		t.Fatal(err)
	}
	return s, command{name: name, path: path, args: []string{"agent", "-config-file", file}, ready: s.ready}
}

// ready is nil once there is a leader that answers for the whole.
func (s *ConsulServer) ready(ctx context.Context) error {
	options := (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
	_, _, err := s.Client.KV().Keys("testbed", "", options)
	return err
}

// leader is who leads in the eyes of this server.
func (s *ConsulServer) leader(ctx context.Context) (string, error) {
	return s.Client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
}

// Snapshot is the state of the servers as it is now.
func (s *ConsulServer) Snapshot(t testing.TB) []byte {
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
func (s *ConsulServer) Restore(t testing.TB, snapshot []byte) {
	t.Helper()
	if err := s.Client.Snapshot().Restore(nil, bytes.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
}
