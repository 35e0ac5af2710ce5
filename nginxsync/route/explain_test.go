//go:build linux

package route_test

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

// variables is a sample of directives that the generator does not make.
var variables = nginxtest.Sample{
	Upstreams: []string{"one", "two", "three"},
	Servers: `
map $host $city { hostnames; default other; bj.x beijing; *.x wild; .y.z both; www.* start; ~^r(\d)\. re; }
map $arg_v $backend { "" one; 2 two; ~*^THREE$ three; default one; }
map $uri:$city $nested { default no; "/n:beijing" yes; }
server {
    listen 80 default_server;
    server_name _;
    set $kind plain;
    if ($arg_kind) { set $kind $arg_kind; }
    if ($request_method = POST) { return 405; }
    if ($args ~* "forbidden=(\w+)") { return 302 /why/$1?kind=$kind; }
    if ($nested = yes) { rewrite ^ /nested last; }
    location = /n { proxy_pass http://one; }
    location /city { return 301 /c/$city$is_args$args; }
    location /dyn { proxy_pass http://$backend; }
    location /dynuri/ { proxy_pass http://$backend/fixed/$kind; }
    location /kind { if ($kind !~ ^p) { proxy_pass http://three; } proxy_pass http://two; }
    location /if { if ($arg_a != "1") { rewrite ^/if/(.*)$ /other/$1?b=2 break; } proxy_pass http://one/base/; }
    location /drop { rewrite ^ /kept? break; proxy_pass http://two; }
    location /redir { rewrite ^/redir/(.*)$ /to/$1 permanent; }
    location ~ ^/(?<name>[a-c]+)/(\d+)$ { proxy_pass http://two/named-$name/$2$is_args$args; }
    location / { proxy_pass http://one; }
    location /slash/ { proxy_pass http://one/s/; }
    location = /exact/ { proxy_pass http://one/e; }
}`,
}

func init() {
	for _, host := range []string{"bj.x", "BJ.X", "a.x", "y.z", "q.y.z", "www.q", "r1.q", "else"} {
		for _, path := range []string{"/", "/city", "/city?q=1", "/n", "/dyn", "/dyn?v=2",
			"/dyn/x?v=three", "/dynuri/x?v=2&kind=k", "/kind", "/kind?kind=other", "/if/x?a=1",
			"/if/x/y?a=2",
			"/drop?x=1", "/redir/a?x=1", "/abc/12?z=1", "/abc/x", "/p?forbidden=word", "/slash",
			"/slash?x=1", "/slash/", "/exact", "/exact/", "/%61bc/7", "/n%6f?x=%41"} {
			variables.Requests = append(variables.Requests, nginxtest.Request{Host: host,
				Path: path})
		}
	}
}

// Explain's answer is that of a real Nginx, for configurations without files.
func TestExplainAsNginxRoutes(t *testing.T) {
	t.Parallel()
	samples := []nginxtest.Sample{variables}
	for seed := range uint64(40) {
		samples = append(samples, nginxtest.Generate(rand.New(rand.NewPCG(seed, 2))))
	}
	for i, sample := range samples {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			var pairs []pair
			for _, r := range sample.Requests {
				pairs = append(pairs, pair{method: http.MethodGet, host: r.Host, path: r.Path})
			}
			tally := &tally{}
			compare(t, "root /nonexistent;\n"+sample.Servers, pairs, os.DirFS("/"), tally)
			require.Zero(t, tally.undecided)
		})
	}
}

// The same for everything that the generator knows, at the shares that are asked for.
func TestExplainDiffersNowhere(t *testing.T) {
	t.Parallel()
	configs := soak.Count(12, 110)
	all := &tally{}
	t.Run("configurations", func(t *testing.T) {
		for i := range configs {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				root := filepath.Join(nginxtest.Dir(t), "www")
				for _, name := range files {
					full := filepath.Join(root, name)
					require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
					require.NoError(t, os.WriteFile(full, []byte("file "+full), 0o644))
				}
				g := generate(rand.New(rand.NewPCG(uint64(i), 7)), root)
				compare(t, g.b.String(), g.pairs, os.DirFS("/"), all)
			})
		}
	})
	t.Logf("%d pairs, %d undecided; by steps: %v", all.pairs, all.undecided, all.steps)
	require.Less(t, 100*all.undecided, 5*all.pairs, "undecided")
	for step, percent := range map[string]int{"try_files": 10, "look": 5, "error_page": 5,
		"escape": 5} {
		require.GreaterOrEqual(t, 100*all.steps[step], percent*all.pairs, "share of %s", step)
	}
}

// tally counts the pairs that were asked.
type tally struct {
	mu               sync.Mutex
	pairs, undecided int
	steps            map[string]int
}

func (c *tally) add(p pair, answer *route.Answer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.steps == nil {
		c.steps = map[string]int{}
	}
	c.pairs++
	if err != nil {
		c.undecided++
	}
	var text strings.Builder
	for _, s := range answer.Steps {
		text.WriteString(s.Text + "\n")
	}
	if err != nil {
		text.WriteString(err.Error())
	}
	path, _, _ := strings.Cut(p.path, "?")
	for step, seen := range map[string]bool{
		"try_files":  strings.Contains(text.String(), "try_files"),
		"error_page": strings.Contains(text.String(), "error_page"),
		"look": strings.Contains(text.String(), "(?!") || strings.Contains(text.String(),
			"(?<!") || strings.Contains(text.String(), "(?=") || strings.Contains(text.String(),
			"(?<=") || strings.Contains(text.String(), `\Z`),
		"escape": strings.Contains(path, "%"),
	} {
		if seen {
			c.steps[step]++
		}
	}
}

// compare asks a real Nginx and Explain.
func compare(t *testing.T, servers string, pairs []pair, disk fs.FS, count *tally) {
	t.Helper()
	dir, port := nginxtest.Dir(t), nginxtest.Port(t)
	var upstreams strings.Builder
	for _, name := range []string{"one", "two", "three"} {
		fmt.Fprintf(&upstreams, "upstream %s { server %s; }\n", name, echo(t, name))
	}
	upstreams.WriteString("upstream fcgi { server 127.0.0.1:1; }\n")
	text := fmt.Sprintf("pid %[1]s/pid;\ndaemon off;\nworker_processes 1;\nevents {}\nhttp "+
		"{\naccess_log off;\n"+
		"client_body_temp_path %[1]s/1;\nproxy_temp_path %[1]s/2;\nfastcgi_temp_path "+
		"%[1]s/3;\nuwsgi_temp_path %[1]s/4;\nscgi_temp_path %[1]s/5;\n%[2]s%[3]s}\n",
		dir, upstreams.String(), servers)
	text = strings.ReplaceAll(text, "PORT", fmt.Sprint(port))
	text = strings.ReplaceAll(text, "listen 80", fmt.Sprintf("listen %d", port))
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(text), 0o600))
	nginxtest.Start(t, dir, filepath.Join(dir, "nginx.conf"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("with", text)
		}
	})
	for _, p := range pairs {
		header := http.Header{"Cookie": p.cookies, "Host": {p.hostHeader(port)}}
		if p.header[0] != "" {
			header.Add(p.header[0], p.header[1])
		}
		answer, err := route.Explain(tree, route.Request{
			URL: fmt.Sprintf("http://%s:%d%s", p.host, port, p.path), Method: p.method,
			Header: header, Disk: disk, Client: netip.MustParseAddr("127.0.0.1"),
		})
		count.add(p, answer, err)
		if err != nil {
			require.ErrorIs(t, err, route.ErrUndecided, "%+v", p)
			continue
		}
		want := ask(t, port, p)
		got := fmt.Sprintf("status %d %s", answer.Status, answer.Location)
		switch closing := answer.Steps[len(answer.Steps)-1].Text; {
		case strings.HasSuffix(closing, "closes the connection"):
			got = "status 444"
		case answer.Upstream == "fcgi":
			got = "status 502"
		case answer.Upstream != "":
			got = "upstream " + answer.Upstream + " " + answer.URI
		case answer.File != "":
			got = fmt.Sprintf("file %s %d", filepath.Clean(answer.File), answer.Status)
		}
		if p.method == http.MethodHead && (answer.Upstream != "" || answer.File != "") {
			continue // the answer has no body to compare
		}
		// as readers of headers do
		want, got = strings.TrimRight(want, " "), strings.TrimRight(got, " ")
		if want != got {
			t.Errorf("%+v: Nginx says %q, Explain %q: %v", p, want, got, answer.Steps)
		}
	}
}

// hostHeader has the port now and then, as tests of Nginx on odd ports send it.
func (p pair) hostHeader(port int) string {
	if len(p.path)%2 == 0 {
		return fmt.Sprintf("%s:%d", p.host, port)
	}
	return p.host
}

// echo is a server that answers with its name and the request line's URI, byte for byte.
func echo(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				line, err := r.ReadString('\n')
				for head := line; err == nil && strings.TrimSpace(head) != ""; {
					head, err = r.ReadString('\n')
				}
				// HTTP/1.0, or since Nginx 1.29.7 HTTP/1.1, and a URI may hold spaces
				line = line[:max(0, strings.LastIndex(line, " HTTP/1."))]
				_, uri, _ := strings.Cut(line, " ")
				fmt.Fprintf(c, "HTTP/1.0 200 OK\r\n\r\nupstream %s %s", name, uri)
			}()
		}
	}()
	return l.Addr().String()
}

// ask sends the request byte for byte, and returns the answer in the words of compare.
func ask(t *testing.T, port int, p pair) string {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	var head strings.Builder
	for _, cookie := range p.cookies {
		head.WriteString("Cookie: " + cookie + "\r\n")
	}
	if p.header[0] != "" {
		head.WriteString(p.header[0] + ": " + p.header[1] + "\r\n")
	}
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\nContent-Length: 0\r\n\r\n",
		p.method, p.path, p.hostHeader(port), head.String())
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: p.method})
	if err != nil {
		return "status 444 " // closed
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	switch {
	case strings.HasPrefix(string(body), "upstream "):
		return string(body)
	case strings.HasPrefix(string(body), "file "):
		return fmt.Sprintf("%s %d", body, resp.StatusCode)
	}
	return fmt.Sprintf("status %d %s", resp.StatusCode, resp.Header.Get("Location"))
}

func TestExplainListen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, listen, addr, want string }{
		{"a range of ports", "8000-8010", "", "a"},
		{"a range of ports of the address", "10.0.0.1:8000-8010", "10.0.0.1", "a"},
		{"a range of ports of another address", "10.0.0.2:8000-8010", "10.0.0.1", "b"},
		{"a range of other ports", "8000-8004", "", "b"},
		{"a name when no listen names the address", "host.example:8005", "", "b"},
		{"a name whose addresses are not known", "host.example:8005", "10.0.0.1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := fmt.Sprintf("http { server { listen %s; return 302 a; } server { listen "+
				"8005; return 302 b; } }", c.listen)
			tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
			require.NoError(t, err)
			req := route.Request{URL: "http://x:8005/"}
			if c.addr != "" {
				req.Addr = netip.MustParseAddr(c.addr)
			}
			answer, err := route.Explain(tree, req)
			if c.want == "" {
				require.ErrorIs(t, err, route.ErrUndecided)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, answer.Location)
		})
	}
}
