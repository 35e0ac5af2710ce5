//go:build linux

package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// BenchmarkRequests measures the processor time that a worker spends on a request through an
// upstream of two instances: on plain Nginx, with the driver on the baseline and on a VIP, on plain
// Nginx whose proxy_pass names the upstream by a variable, and on HAProxy where it is in PATH. Each
// iteration is a round in which all are measured in turn; the figures are the medians of the rounds'
// ratios.
func BenchmarkRequests(b *testing.B) {
	for _, size := range []struct{ upstreams, overlays int }{{2, 1}, {5000, 10000}} {
		b.Run(fmt.Sprintf("%d_upstreams_%d_overlays", size.upstreams, size.overlays),
			func(b *testing.B) { requests(b, size.upstreams, size.overlays) })
	}
}

const (
	perRound = 20000
	clients  = 8
	turns    = 64 // clusters that are asked in turn

	longest = 4 * time.Second // of a round of one server: a busy machine shortens the round
)

func requests(b *testing.B, upstreams, overlays int) {
	backend := respond(b)
	plain, driven := testbed.Port(b), testbed.Port(b)
	tree := upstreamTree(upstreams, backend)
	plainServer := start(b, strings.ReplaceAll(tree, "PORT", fmt.Sprint(plain)), plain, nil)
	var driver *luadriver.Driver
	drivenServer := start(b, strings.ReplaceAll(tree, "PORT", "80"), driven, &driver)
	vip := netip.MustParseAddr("127.58.0.1")
	s := snapshot(upstreams, overlays, vip, backend)
	if err := driver.Apply(b.Context(), nginxsync.NewRoutes(1, s).All()); err != nil {
		b.Fatal(err)
	}
	variable := testbed.Port(b)
	variableTree := strings.ReplaceAll(byVariable(tree), "PORT", fmt.Sprint(variable))
	kinds := []kind{
		{"plain", plainServer.Workers, fmt.Sprintf("127.0.0.1:%d", plain)},
		{"baseline", drivenServer.Workers, fmt.Sprintf("127.0.0.1:%d", driven)},
		{"vip", drivenServer.Workers, fmt.Sprintf("%s:%d", vip, driven)},
		{"variable", start(b, variableTree, variable, nil).Workers,
			fmt.Sprintf("127.0.0.1:%d", variable)},
	}
	if program, err := exec.LookPath("haproxy"); err == nil {
		kinds = append(kinds, haproxy(b, program, upstreams, backend))
	} else {
		b.Log("haproxy is not in PATH: it is not measured")
	}
	for _, k := range kinds {
		load(b, k.addr, upstreams, perRound/4)
	}
	b.ResetTimer()
	cost := make([][]float64, len(kinds))
	for range b.N {
		for i, k := range kinds {
			before := spent(b, k.workers())
			n := load(b, k.addr, upstreams, perRound)
			cost[i] = append(cost[i], float64(spent(b, k.workers())-before)/float64(n))
		}
	}
	for i, k := range kinds[1:] {
		ratios := make([]float64, b.N)
		for n := range ratios {
			ratios[n] = cost[i+1][n] / cost[0][n]
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[b.N/2], k.name+"/plain")
	}
	slices.Sort(cost[0])
	b.ReportMetric(cost[0][b.N/2]/1e3, "plain-µs/request")
}

// kind is one of the servers that are compared: its processes, and where it is asked.
type kind struct {
	name    string
	workers func() []int
	addr    string
}

// byVariable is the tree with a variable in the place of each upstream's name in proxy_pass.
func byVariable(tree string) string {
	return passes.ReplaceAllString(tree, "set $$upstream $1; proxy_pass http://$$upstream;")
}

var passes = regexp.MustCompile(`proxy_pass http://(c\d+);`)

// haproxy runs a HAProxy of one thread with a backend for each upstream, which the first part of the
// path names.
func haproxy(b *testing.B, program string, upstreams int, backend []netip.AddrPort) kind {
	dir := testbed.Dir(b)
	addr := fmt.Sprintf("127.0.0.1:%d", testbed.Port(b))
	var t strings.Builder
	fmt.Fprintf(&t, "global\n    nbthread 1\ndefaults\n    mode http\n    http-reuse always\n"+
		"    timeout connect 10s\n    timeout client 1m\n    timeout server 1m\n"+
		"frontend all\n    bind %s\n    use_backend %%[path,field(2,/)]\n", addr)
	for i := range upstreams {
		fmt.Fprintf(&t, "backend c%d\n    server one %s\n    server two %s\n", i, backend[0],
			backend[1])
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(t.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	p := testbed.Start(b, dir, testbed.Command{Name: "haproxy", Path: program,
		Args: []string{"-db", "-f", file}, Ready: func(context.Context) error {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err
		}})
	return kind{"haproxy", func() []int { return []int{p.Pid()} }, addr}
}

// snapshot has each upstream in the baseline, and overlays from a VIP on.
func snapshot(upstreams, overlays int, vip netip.Addr,
	backend []netip.AddrPort) nginxsync.Snapshot {
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	two := func(version string) []nginxsync.Instance {
		return []nginxsync.Instance{{ID: "1", Addr: backend[0], Version: version},
			{ID: "2", Addr: backend[1], Version: version}}
	}
	for i := range upstreams {
		s.Baseline[fmt.Sprint("c", i)] = two("v1")
	}
	for i := range overlays {
		addr := vip
		for range i / max(upstreams/500, 1) {
			addr = addr.Next()
		}
		if s.Overlays[addr] == nil {
			s.Overlays[addr] = map[string][]nginxsync.Instance{}
		}
		s.Overlays[addr][fmt.Sprint("c", i%max(upstreams/500, 1))] = two("v2")
	}
	return s
}

// BenchmarkUpdates measures how long requests take at 5,000 upstreams and 10,000 overlays: without
// updates, and during 100 updates of one row in a second. Each iteration is a round of both.
func BenchmarkUpdates(b *testing.B) {
	const upstreams, overlays = 5000, 10000
	backend := respond(b)
	port := testbed.Port(b)
	var driver *luadriver.Driver
	start(b, strings.ReplaceAll(upstreamTree(upstreams, backend), "PORT", "80"), port, &driver)
	vip := netip.MustParseAddr("127.58.0.1")
	s := snapshot(upstreams, overlays, vip, backend)
	first := nginxsync.NewRoutes(1, s)
	if err := driver.Apply(b.Context(), first.All()); err != nil {
		b.Fatal(err)
	}
	s.Baseline = maps.Clone(s.Baseline)
	s.Baseline["c0"] = s.Baseline["c0"][:1]
	second := nginxsync.NewRoutes(2, s)
	deltas := []nginxsync.Delta{nginxsync.NewDelta(second, first),
		nginxsync.NewDelta(first, second)}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	load(b, addr, upstreams, perRound/4)
	b.ResetTimer()
	number := uint64(1)
	var ratios, alone []float64
	for range b.N {
		quiet := latencies(b, addr, upstreams, time.Second)
		end := make(chan struct{})
		go func() {
			defer close(end)
			for range 100 {
				delta := deltas[number%2]
				delta.From.Number, delta.To.Number = number, number+1
				number++
				if err := driver.Apply(b.Context(), delta); err != nil {
					b.Error(err)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		busy := latencies(b, addr, upstreams, time.Second)
		<-end
		at := func(list []time.Duration) float64 {
			slices.Sort(list)
			return float64(list[len(list)*999/1000].Microseconds()) / 1000
		}
		alone = append(alone, at(quiet))
		ratios = append(ratios, at(busy)/at(quiet))
	}
	slices.Sort(ratios)
	slices.Sort(alone)
	b.ReportMetric(alone[len(alone)/2], "p99.9-ms-without")
	b.ReportMetric(ratios[len(ratios)/2], "p99.9-with/without")
}

// latencies asks over kept connections for a while and returns how long each answer took.
func latencies(b *testing.B, addr string, upstreams int, during time.Duration) []time.Duration {
	till := time.Now().Add(during)
	var took [clients][]time.Duration
	ask(b, addr, upstreams, func(int) bool { return time.Now().Before(till) },
		func(client int, d time.Duration) { took[client] = append(took[client], d) })
	return slices.Concat(took[:]...)
}

// upstreamTree is a tree with one location for each upstream.
func upstreamTree(upstreams int, backend []netip.AddrPort) string {
	var t strings.Builder
	t.WriteString("events { worker_connections 512; }\nhttp {\naccess_log off;\n" +
		"keepalive_requests 1000000;\n")
	for i := range upstreams {
		fmt.Fprintf(&t, "upstream c%d { server %s; server %s; keepalive 16; }\n", i, backend[0],
			backend[1])
	}
	t.WriteString("server { listen PORT;\nproxy_http_version 1.1; proxy_set_header Connection \"\";\n")
	for i := range upstreams {
		fmt.Fprintf(&t, "location /c%d/ { proxy_pass http://c%d; }\n", i, i)
	}
	t.WriteString("}\n}\n")
	return t.String()
}

// start runs a tree with one worker, plain or with the driver.
func start(b *testing.B, text string, port int, driver **luadriver.Driver) *nginx.Server {
	dir := testbed.Dir(b)
	file := filepath.Join(dir, "conf", "nginx.conf")
	own := fmt.Sprintf("pid %s/pid;\ndaemon off;\nworker_processes 1;\n", dir)
	if driver == nil {
		text = own + strings.Replace(text, "http {\n", fmt.Sprintf("http {\n"+
			"client_body_temp_path %[1]s/1;\nproxy_temp_path %[1]s/2;\nfastcgi_temp_path %[1]s/3;\n"+
			"uwsgi_temp_path %[1]s/4;\nscgi_temp_path %[1]s/5;\n", dir), 1)
		result := &transform.Result{Main: "nginx.conf", Files: map[string]string{"nginx.conf": text}}
		if err := result.WriteTo(filepath.Dir(file)); err != nil {
			b.Fatal(err)
		}
		return nginx.Start(b, dir, file)
	}
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
	if err != nil {
		b.Fatal(err)
	}
	cfg := luadriver.SnippetConfig{Socket: filepath.Join(dir, "admin.sock"), Memory: 64 << 20}
	result, err := transform.Transform(tree, transform.Rules{Listen: map[int]int{80: port},
		Main: map[string]string{"user": "", "pid": dir + "/pid", "daemon": "off",
			"worker_processes": "1"}, TempDir: dir, Snippets: luadriver.Snippets(cfg)})
	if err != nil {
		b.Fatal(err)
	}
	if err := result.WriteTo(filepath.Dir(file)); err != nil {
		b.Fatal(err)
	}
	server := nginx.Start(b, dir, file)
	if *driver, err = luadriver.New(luadriver.Config{Socket: cfg.Socket,
		Timeout: time.Minute}); err != nil {
		b.Fatal(err)
	}
	testbed.Poll(b, "the worker reports", func() error {
		state, err := (*driver).State(b.Context())
		if err == nil && (len(state.Workers) != 1 || state.Workers[0].PID == 0) {
			err = fmt.Errorf("%+v", state)
		}
		return err
	})
	return server
}

// respond is an Nginx that answers on two ports. It has room for the connections that all who are
// compared keep: an Nginx that has none left closes kept ones.
func respond(b *testing.B) []netip.AddrPort {
	ports := []int{testbed.Port(b), testbed.Port(b)}
	text := fmt.Sprintf("events { worker_connections 8192; }\nhttp {\naccess_log off;\n"+
		"keepalive_requests 1000000;\nserver { listen 127.0.0.1:%d; listen 127.0.0.1:%d; "+
		"location / { return 200 ok; } }\n}\n", ports[0], ports[1])
	start(b, text, 0, nil)
	var out []netip.AddrPort
	for _, p := range ports {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(p)))
	}
	return out
}

// load sends n requests over kept connections, to some upstreams in turn, or as many as are answered
// in the time longest. It returns how many.
func load(b *testing.B, addr string, upstreams, n int) int {
	return ask(b, addr, upstreams, func(i int) bool { return i < n/clients }, func(int, time.Duration) {})
}

// ask sends requests over one kept connection for each client, to some upstreams in turn. A client
// sends its request i while more(i), and tells took how long each answer took. Both are called by
// all clients at once.
func ask(b *testing.B, addr string, upstreams int, more func(i int) bool,
	took func(client int, d time.Duration)) int {
	return askEach(b, slices.Repeat([]string{addr}, clients), upstreams, more, took)
}

// askEach is ask with a client for each address. It ends after longest too, and returns how many
// answers came.
func askEach(b *testing.B, addrs []string, upstreams int, more func(i int) bool,
	took func(client int, d time.Duration)) int {
	var wg sync.WaitGroup
	var answered atomic.Int64
	till := time.Now().Add(longest)
	for c, addr := range addrs {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			if err := conn.SetDeadline(till.Add(time.Minute)); err != nil {
				b.Error(err)
				return
			}
			r := bufio.NewReader(conn)
			for i := 0; more(i) && time.Now().Before(till); i++ {
				which := (i*len(addrs) + c) % min(turns, upstreams)
				begin := time.Now()
				fmt.Fprintf(conn, "GET /c%d/ HTTP/1.1\r\nHost: a\r\n\r\n",
					which*(upstreams/min(turns, upstreams)))
				if err := answer(r); err != nil {
					b.Error(err)
					return
				}
				took(c, time.Since(begin))
				answered.Add(1)
			}
		})
	}
	wg.Wait()
	if b.Failed() || answered.Load() == 0 {
		b.Fatalf("%d answers from %s", answered.Load(), addrs[0])
	}
	return int(answered.Load())
}

// answer reads one answer of status 200 with a length.
func answer(r *bufio.Reader) error {
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 200 ") {
		return fmt.Errorf("%q: %w", line, err)
	}
	length := 0
	for line != "\r\n" {
		if line, err = r.ReadString('\n'); err != nil {
			return err
		}
		if v, ok := strings.CutPrefix(strings.ToLower(line), "content-length: "); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return err
			}
		}
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return err
}

// spent is the processor time of processes of one thread.
func spent(b *testing.B, pids []int) time.Duration {
	var total time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if err != nil {
			b.Fatal(err)
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(ns)
	}
	return total
}
