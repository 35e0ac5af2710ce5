//go:build linux

package route_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

// variables is a sample of what the generator does not make.
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
		for _, path := range []string{"/", "/city", "/city?q=1", "/n", "/dyn", "/dyn?v=2", "/dyn/x?v=three", "/dynuri/x?v=2&kind=k", "/kind", "/kind?kind=other", "/if/x?a=1", "/if/x/y?a=2",
			"/drop?x=1", "/redir/a?x=1", "/abc/12?z=1", "/abc/x", "/p?forbidden=word", "/slash", "/slash?x=1", "/slash/", "/exact", "/exact/", "/%61bc/7", "/n%6f?x=%41"} {
			variables.Requests = append(variables.Requests, nginxtest.Request{Host: host, Path: path})
		}
	}
}

// What is told from the configuration is what a real Nginx does, for generated configurations and requests.
func TestExplainAsNginxRoutes(t *testing.T) {
	t.Parallel()
	samples := []nginxtest.Sample{variables}
	for seed := range uint64(40) {
		samples = append(samples, nginxtest.Generate(rand.New(rand.NewPCG(seed, 2))))
	}
	for i, sample := range samples {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			dir, port := nginxtest.Dir(t), nginxtest.Port(t)
			var upstreams strings.Builder
			for _, name := range sample.Upstreams {
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, " ", r.RequestURI) }))
				t.Cleanup(s.Close)
				fmt.Fprintf(&upstreams, "upstream %s { server %s; }\n", name, s.Listener.Addr())
			}
			text := fmt.Sprintf("pid %[1]s/pid;\ndaemon off;\nworker_processes 1;\nevents {}\nhttp {\naccess_log off;\nabsolute_redirect off;\n"+
				"client_body_temp_path %[1]s/1;\nproxy_temp_path %[1]s/2;\nfastcgi_temp_path %[1]s/3;\nuwsgi_temp_path %[1]s/4;\nscgi_temp_path %[1]s/5;\n%s%s}\n",
				dir, upstreams.String(), sample.Servers)
			tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(strings.ReplaceAll(text, "listen 80", fmt.Sprintf("listen %d", port))), 0o600))
			nginxtest.Start(t, dir, filepath.Join(dir, "nginx.conf"))
			for _, r := range sample.Requests {
				status, header, body, err := nginxtest.Get(context.Background(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), r.Host, r.Path)
				require.NoError(t, err)
				answer, err := route.Explain(tree, route.Request{URL: "http://" + r.Host + r.Path})
				require.NoError(t, err, "%+v\n%s", r, text)
				got := fmt.Sprintf("%d %s %s", answer.Status, answer.Location, answer.Upstream+" "+answer.URI)
				want := fmt.Sprintf("%d %s %s", status, header.Get("Location"), " ")
				switch {
				case answer.Upstream != "":
					got, want = answer.Upstream+" "+answer.URI, body
				case answer.Status == 0:
					got, want = "from files", fmt.Sprint("from files ", status)
					if status == 404 || status == 403 || status == 301 || status == 200 {
						want = got
					}
				}
				require.Equal(t, want, got, "%+v: %v\n%s", r, answer.Steps, text)
			}
		})
	}
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
			text := fmt.Sprintf("http { server { listen %s; return 302 a; } server { listen 8005; return 302 b; } }", c.listen)
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
