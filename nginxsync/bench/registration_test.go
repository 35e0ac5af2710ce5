//go:build linux

package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/consulsource"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
)

// BenchmarkRegistration measures the time from the call that registers an instance in Consul to the
// first answer of that instance through Nginx, with 200 services and one change a second. Where
// consul-template is in PATH, an Nginx that it writes and reloads follows the same changes at the
// same time, and so does HAProxy by Consul's DNS. The same metrics say when the call returned, when
// a query of the benchmark's own answered ("query"), and when the source of the agent had the
// change ("source"): the rest is the agent's, Nginx's and the polling client's. Each iteration is
// one change. With -registration.alone no peer runs.
func BenchmarkRegistration(b *testing.B) {
	const services = 200
	server := consul.Start(b)
	var backends [2]netip.AddrPort
	for i := range backends {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, i)
		}))
		b.Cleanup(s.Close)
		backends[i] = netip.MustParseAddrPort(s.Listener.Addr().String())
	}
	name := func(i int) string { return fmt.Sprintf("sluice-bench-%d", i) }
	register := func(service, backend int) {
		_, err := server.Client.Catalog().Register(&api.CatalogRegistration{Node: "sluice-bench",
			Address: "127.0.0.1", Service: &api.AgentService{ID: name(service),
				Service: name(service), Port: int(backends[backend].Port())}}, nil)
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range services {
		register(i, 0)
	}
	seen := &sightings{}
	ports := map[string]int{"sluice": startAgent(b, server, services, name, seen)}
	startPeers(b, server, services, name, ports)
	took := map[string][]time.Duration{}
	for _, port := range ports {
		for i := range services {
			first(b, port, i, "0")
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	b.ResetTimer()
	for n := range b.N {
		<-tick.C
		var wg sync.WaitGroup
		var mu sync.Mutex
		service, backend := n%services, 1-n/services%2
		index := indexOf(b, server, name(service))
		start := time.Now()
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			took[what] = append(took[what], time.Since(start))
		}
		for proxy, port := range ports {
			wg.Go(func() { first(b, port, service, fmt.Sprint(backend)); note(proxy) })
		}
		wg.Go(func() {
			_, _, err := server.Client.Health().Service(name(service), "", true,
				&api.QueryOptions{WaitIndex: index, AllowStale: true, Near: "_agent"})
			if err != nil {
				b.Error(err)
			}
			note("query")
		})
		seen.expect(fmt.Sprintf("c%d", service), backends[backend], func() { note("source") })
		register(service, backend)
		note("call")
		wg.Wait()
	}
	for proxy, list := range took {
		slices.Sort(list)
		for _, q := range []int{50, 99} {
			at := list[(len(list)-1)*q/100]
			b.ReportMetric(float64(at.Microseconds())/1000, fmt.Sprintf("%s-p%d-ms", proxy, q))
		}
	}
}

var alone = flag.Bool("registration.alone", false, "measure registration without the peers")

// startPeers runs the peers that this machine has, and notes their ports.
func startPeers(b *testing.B, server *consul.Server, services int, name func(int) string,
	ports map[string]int) {
	if *alone {
		return
	}
	for program, run := range map[string]func(*testing.B, *consul.Server, string, int,
		func(int) string) int{"consul-template": startTemplate, "haproxy": startHAProxy} {
		if path, err := exec.LookPath(program); err == nil {
			ports[program] = run(b, server, path, services, name)
		} else {
			b.Log(program, "is not in PATH: it is not measured")
		}
	}
}

// indexOf is the index of a service, for a query that waits for its next change.
func indexOf(b *testing.B, server *consul.Server, service string) uint64 {
	_, meta, err := server.Client.Health().Service(service, "", true, &api.QueryOptions{
		AllowStale: true, Near: "_agent"})
	if err != nil {
		b.Fatal(err)
	}
	return meta.LastIndex
}

// sightings is a Source that reports when another one has supplied an instance.
type sightings struct {
	nginxsync.Source

	mu      sync.Mutex
	cluster string
	addr    netip.AddrPort
	then    func() // nil when nothing is expected
}

func (s *sightings) expect(cluster string, addr netip.AddrPort, then func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster, s.addr, s.then = cluster, addr, then
}

// Watch implements nginxsync.Source.
func (s *sightings) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	snapshot, revision, err := s.Source.Watch(ctx, after)
	s.mu.Lock()
	defer s.mu.Unlock()
	if list := snapshot.Baseline[s.cluster]; s.then != nil && len(list) == 1 &&
		list[0].Addr == s.addr {
		s.then()
		s.then = nil
	}
	return snapshot, revision, err
}

// first polls until the upstream answers with the text, each time on a new connection.
func first(b *testing.B, port, upstream int, want string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet,
			fmt.Sprintf("http://127.0.0.1:%d/c%d/", port, upstream), nil)
		if err != nil {
			b.Error(err)
			return
		}
		last := "no answer"
		if resp, err := client.Do(req); err == nil {
			body, _ := io.ReadAll(resp.Body) // a part of an answer is not the one
			resp.Body.Close()
			if last = string(body); last == want {
				return
			}
		}
		select {
		case <-ctx.Done():
			b.Errorf("upstream %d: %q, want %q", upstream, last, want)
			return
		case <-tick.C:
		}
	}
}

// startAgent runs an Nginx with an agent that follows the services, and returns its port.
func startAgent(b *testing.B, server *consul.Server, services int, name func(int) string,
	seen *sightings) int {
	port := testbed.Port(b)
	unused := slices.Repeat([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, 2)
	var driver *luadriver.Driver
	start(b, strings.ReplaceAll(upstreamTree(services, unused), "PORT", "80"), port, &driver)
	cfg := consulsource.Config{Consul: &api.Config{Address: server.Addr},
		Services: map[string]string{}, Connections: services + 10}
	for i := range services {
		cfg.Services[fmt.Sprintf("c%d", i)] = name(i)
	}
	source, err := consulsource.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	seen.Source = source
	agent, err := nginxsync.OpenAgent(b.Context(), nginxsync.Config{Source: seen,
		Driver: driver, StateFile: filepath.Join(testbed.Dir(b), "routes")})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = source.Run(ctx) })
	wg.Go(func() { _ = agent.Run(ctx) })
	b.Cleanup(func() { stop(); wg.Wait() })
	return port
}

// startTemplate runs a plain Nginx and consul-template, which writes its upstreams and reloads it,
// and returns its port.
func startTemplate(b *testing.B, server *consul.Server, program string, services int,
	name func(int) string) int {
	port, dir := testbed.Port(b), testbed.Dir(b)
	file := filepath.Join(dir, "upstreams.conf")
	var text, conf strings.Builder
	fmt.Fprintf(&conf, "events { worker_connections 512; }\nhttp {\naccess_log off;\ninclude %s;\n"+
		"server { listen %d;\n", file, port)
	for i := range services {
		fmt.Fprintf(&text, "upstream c%d { {{range service %q}}server {{.Address}}:{{.Port}}; "+
			"{{else}}server 127.0.0.1:9; {{end}} }\n", i, name(i))
		fmt.Fprintf(&conf, "location /c%d/ { proxy_pass http://c%d; }\n", i, i)
	}
	conf.WriteString("}\n}\n")
	template := filepath.Join(dir, "upstreams.ctmpl")
	if err := os.WriteFile(template, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	args := []string{"-consul-addr", server.Addr, "-template"}
	once := append(slices.Clone(args), template+":"+file, "-once")
	if err := testbed.Run("", program, once...); err != nil {
		b.Fatal(err)
	}
	nginx := start(b, conf.String(), port, nil)
	testbed.Start(b, testbed.Dir(b), testbed.Command{Name: "consul-template", Path: program,
		Args: append(args, fmt.Sprintf("%s:%s:kill -HUP %d", template, file, nginx.Pid())),
		Ready: func(context.Context) error {
			if _, err := os.Stat(file); err != nil {
				return errors.New("it has written nothing")
			}
			return nil
		}})
	return port
}

// startHAProxy runs HAProxy, which asks Consul's DNS for the instances of each service once a
// second, and returns its port.
func startHAProxy(b *testing.B, server *consul.Server, program string, services int,
	name func(int) string) int {
	port, dir := testbed.Port(b), testbed.Dir(b)
	var conf strings.Builder
	fmt.Fprintf(&conf, "global\n  maxconn 2000\ndefaults\n  mode http\n  timeout connect 1s\n"+
		"  timeout client 10s\n  timeout server 10s\nresolvers consul\n  nameserver consul %s\n"+
		"  accepted_payload_size 8192\n  timeout resolve 1s\n  timeout retry 1s\n"+
		"  hold valid 1s\n  hold obsolete 0s\nfrontend all\n  bind 127.0.0.1:%d\n"+
		"  use_backend %%[path,field(2,/)]\n", server.DNS, port)
	for i := range services {
		fmt.Fprintf(&conf, "backend c%d\n  server-template i 1 _%s._tcp.service.consul "+
			"resolvers consul init-addr none\n", i, name(i))
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	testbed.Start(b, testbed.Dir(b), testbed.Command{Name: "haproxy", Path: program,
		Args: []string{"-db", "-f", file}, Ready: func(ctx context.Context) error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprint("127.0.0.1:", port))
			if err != nil {
				return err
			}
			return conn.Close()
		}})
	return port
}
