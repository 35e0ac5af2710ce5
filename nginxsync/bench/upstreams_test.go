//go:build linux

package bench

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
)

// respondEverywhere is an Nginx that answers on one port of each loopback address. It returns so
// many of them.
func respondEverywhere(b *testing.B, n int) (out []netip.AddrPort) {
	port := testbed.Port(b)
	start(b, fmt.Sprintf("events { worker_connections 1024; }\nhttp {\naccess_log off;\n"+
		"keepalive_requests 1000000;\nserver { listen *:%d; location / { return 200 ok; } }\n}\n",
		port), 0, nil)
	addr := netip.MustParseAddr("127.0.1.1")
	for range n {
		out = append(out, netip.AddrPortFrom(addr, uint16(port)))
		addr = addr.Next()
	}
	return out
}

// BenchmarkMethods measures the processor time that a worker spends on a request through an upstream
// of 200 instances, over that of plain Nginx, for each method. Each iteration is a round in which
// both are measured in turn.
func BenchmarkMethods(b *testing.B) {
	for _, method := range []string{"hash $uri", "hash $uri consistent", "keepalive_timeout 60s",
		"least_conn", "zone c0 256k", "zone c0 256k; least_conn"} {
		name := strings.NewReplacer("keepalive_timeout 60s", "round_robin", "zone c0 256k", "zone",
			" ", "_", ";", "").Replace(method)
		b.Run(name, func(b *testing.B) {
			backend := respondEverywhere(b, 200)
			var t strings.Builder
			fmt.Fprintf(&t, "events { worker_connections 1024; }\nhttp {\naccess_log off;\n"+
				"keepalive_requests 1000000;\nupstream c0 {\n%s;\n", method)
			var instances []nginxsync.Instance
			for i, addr := range backend {
				fmt.Fprintf(&t, "server %s;\n", addr)
				instances = append(instances, nginxsync.Instance{ID: fmt.Sprint(i), Addr: addr,
					Version: "v1"})
			}
			t.WriteString("keepalive 512;\n}\nserver { listen PORT;\nproxy_http_version 1.1; " +
				"proxy_set_header Connection \"\";\nlocation / { proxy_pass http://c0; }\n}\n}\n")
			plain, driven := testbed.Port(b), testbed.Port(b)
			var driver *luadriver.Driver
			servers := []*nginx.Server{
				start(b, strings.ReplaceAll(t.String(), "PORT", fmt.Sprint(plain)), plain, nil),
				start(b, strings.ReplaceAll(t.String(), "PORT", "80"), driven, &driver)}
			apply(b, driver, nginxsync.Snapshot{
				Baseline: map[string][]nginxsync.Instance{"c0": instances}})
			ratio(b, servers, [][]string{
				slices.Repeat([]string{fmt.Sprintf("127.0.0.1:%d", plain)}, clients),
				slices.Repeat([]string{fmt.Sprintf("127.0.0.1:%d", driven)}, clients)}, turns,
				"driven/plain")
		})
	}
}

// BenchmarkVIPs measures the processor time of a request to 40 VIPs in turn, each with an instance
// of its own, over that of a request to one, where production keeps 16 connections.
func BenchmarkVIPs(b *testing.B) {
	const vips = 40
	backend := respondEverywhere(b, vips)
	port := testbed.Port(b)
	var driver *luadriver.Driver
	server := start(b, strings.ReplaceAll(upstreamTree(1, backend), "PORT", "80"), port, &driver)
	s := nginxsync.Snapshot{Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	var each []string
	vip := netip.MustParseAddr("127.58.0.1")
	for i := range vips {
		s.Overlays[vip] = map[string][]nginxsync.Instance{
			"c0": {{ID: fmt.Sprint(i), Addr: backend[i], Version: "v1"}}}
		each = append(each, fmt.Sprintf("%s:%d", vip, port))
		vip = vip.Next()
	}
	apply(b, driver, s)
	ratio(b, []*nginx.Server{server, server}, [][]string{slices.Repeat(each[:1], vips), each}, 1,
		"40/one")
}

func apply(b *testing.B, driver *luadriver.Driver, s nginxsync.Snapshot) {
	if err := driver.Apply(b.Context(), nginxsync.NewRoutes(1, s).All()); err != nil {
		b.Fatal(err)
	}
}

// ratio measures the servers in turn, each under the clients of its addresses, and reports the
// median of the second's processor time of a request over the first's.
func ratio(b *testing.B, servers []*nginx.Server, addrs [][]string, upstreams int, unit string) {
	var ratios []float64
	run := func(n int) (cost [2]float64) {
		for i, server := range servers {
			before := spent(b, server.Workers())
			answered := askEach(b, addrs[i], upstreams,
				func(k int) bool { return k < n/len(addrs[i]) }, func(int, time.Duration) {})
			cost[i] = float64(spent(b, server.Workers())-before) / float64(answered)
		}
		return cost
	}
	run(perRound / 4)
	b.ResetTimer()
	for range b.N {
		took := run(perRound)
		ratios = append(ratios, took[1]/took[0])
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], unit)
}

// BenchmarkMemory measures the memory of a worker with 5,000 upstreams and 10,000 overlays that
// answers requests, over that of plain Nginx which loads the Lua module; without shared
// dictionaries.
func BenchmarkMemory(b *testing.B) {
	const upstreams, overlays = 5000, 10000
	backend := respond(b)
	plain, driven := testbed.Port(b), testbed.Port(b)
	tree := upstreamTree(upstreams, backend)
	var driver *luadriver.Driver
	modules := luadriver.Snippets(luadriver.SnippetConfig{Socket: "/unused"}).Modules
	text := strings.ReplaceAll(tree, "PORT", fmt.Sprint(plain))
	for _, module := range slices.Backward(modules) {
		text = "load_module " + module + ";\n" + text
	}
	servers := []*nginx.Server{start(b, text, plain, nil),
		start(b, strings.ReplaceAll(tree, "PORT", "80"), driven, &driver)}
	apply(b, driver, snapshot(upstreams, overlays, netip.MustParseAddr("127.58.0.1"), backend))
	for range b.N {
		load(b, fmt.Sprintf("127.0.0.1:%d", plain), upstreams, perRound)
		load(b, fmt.Sprintf("127.0.0.1:%d", driven), upstreams, perRound)
	}
	own, other := memory(b, servers[1]), memory(b, servers[0])
	b.ReportMetric(float64(own), "kB")
	b.ReportMetric(float64(other), "plain-kB")
	b.ReportMetric(float64(own)/float64(other), "driven/plain")
}

// memory is the resident memory of the first worker in kB, without the shared dictionaries.
func memory(b *testing.B, server *nginx.Server) (total int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", server.Workers()[0]))
	if err != nil {
		b.Fatal(err)
	}
	shared := false
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(f[0], "-"):
			shared = strings.Contains(line, "/dev/zero")
		case f[0] == "Rss:" && !shared:
			kB, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			total += kB
		}
	}
	return total
}
