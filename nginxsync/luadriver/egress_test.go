//go:build linux

package luadriver_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// watched is an address of production that must not be reached: by TCP, and by UDP on a port of its
// own.
type watched struct {
	tcp, udp string
	reached  atomic.Int64
}

func watch(t *testing.T) *watched {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	w := &watched{tcp: l.Addr().String(), udp: u.LocalAddr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.reached.Add(1)
			c.Close()
		}
	}()
	go func() {
		for b := make([]byte, 512); ; w.reached.Add(1) {
			if _, _, err := u.ReadFrom(b); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		u.Close()
	})
	return w
}

// No request of a client reaches an address of production that was not mapped, by any protocol or
// any route.
func TestNothingReachesProduction(t *testing.T) {
	t.Parallel()
	w := watch(t)
	mapped := strings.NewReplacer("PRODUCTION", w.tcp, "UDP", w.udp)
	b := startFiles(t, fstest.MapFS{
		"racks/a.conf": {Data: []byte(mapped.Replace("server PRODUCTION;\nserver PRODUCTION " +
			"backup;\n"))},
		"nginx.conf": {Data: []byte(mapped.Replace(`
error_log syslog:server=UDP info;
events { }
http {
    resolver UDP;
    access_log syslog:server=UDP;
    proxy_bind 10.9.9.200;
    upstream Prod { include racks/*.conf; }
    map $arg_to $chosen { default $arg_to; }
    map $arg_to $whole { default http://$arg_to; }
    server {
        listen 80;
        error_log syslog:server=UDP info;
        location /proxy { proxy_pass http://prod; }
        location /fastcgi { fastcgi_pass prod; }
        location /grpc { grpc_pass grpc://prod; }
        location /uwsgi { uwsgi_pass prod; }
        location /scgi { scgi_pass prod; }
        location /memcached { set $memcached_key x; memcached_pass prod; }
        location /to/proxy { proxy_pass http://$chosen/; }
        location /to/fastcgi { fastcgi_pass $chosen; }
        location /to/grpc { grpc_pass grpc://$chosen; }
        location /to/uwsgi { uwsgi_pass $chosen; }
        location /to/scgi { scgi_pass $chosen; }
        location /literal { proxy_pass http://PRODUCTION; }
        location /whole { proxy_pass $whole; }
        location /try { error_page 404 502 503 = /fallback; proxy_intercept_errors on; proxy_pass http://prod; }
        location /fallback { proxy_pass http://PRODUCTION/x; }
        location /if { if ($arg_to) { proxy_pass http://PRODUCTION; } proxy_pass http://elsewhere; }
        location /limit { limit_except GET { proxy_pass http://PRODUCTION; } proxy_pass http://elsewhere; }
        location /mirror { mirror /shadow; proxy_pass http://elsewhere; }
        location = /shadow { internal; proxy_pass http://PRODUCTION/shadow; }
        location /auth { auth_request /asked; proxy_pass http://elsewhere; }
        location = /asked { internal; proxy_pass http://PRODUCTION/asked; }
        location /before { add_before_body /shadow; proxy_pass http://elsewhere; }
        location /ssi { ssi on; ssi_types *; return 200 '<!--# include virtual="/shadow" -->'; }
    }
    upstream elsewhere { server 10.9.9.9; }
}
`))},
	}, transform.Rules{Pass: map[string]string{"$chosen": "$chosen", "$whole": "elsewhere",
		w.tcp: "elsewhere"}})
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"elsewhere": one("e", "v1",
			nginxtest.Backend(t, "elsewhere"))},
	}).All()))
	status := func(path string) int {
		t.Helper()
		a, err := b.get(t.Context(), plain, path)
		require.NoError(t, err)
		return a.Status
	}
	_, port, err := net.SplitHostPort(w.tcp)
	require.NoError(t, err)
	for _, protocol := range []string{"proxy", "fastcgi", "grpc", "uwsgi", "scgi", "memcached"} {
		require.GreaterOrEqual(t, status("/"+protocol), 500, protocol)
		if protocol == "memcached" {
			continue // Nginx takes no variable there
		}
		for _, to := range []string{w.tcp, "prod", "PROD", "localhost:" + port,
			"production.example", ""} {
			require.GreaterOrEqual(t, status("/to/"+protocol+"?to="+to), 500, "%s to %q", protocol,
				to)
		}
	}
	for _, path := range []string{"/to/proxy?to=elsewhere", "/literal", "/whole?to=" + w.tcp,
		"/try", "/if?to=x", "/if", "/limit", "/mirror", "/auth", "/before", "/ssi"} {
		require.Equal(t, 200, status(path), path)
	}
	require.Zero(t, w.reached.Load(), "production was reached")
}

// Secrets of the production tree are neither in the files of the test Nginx nor in its requests.
func TestSecretsStayInProduction(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
env API_TOKEN=geheim-env;
events { }
http {
    map $http_x_api_key $client { default none; geheim-key known; }
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        location / {
            set $upstream_token "Bearer geheim-bearer";
            proxy_set_header Authorization "Basic Z2VoZWltOmdlaGVpbQ==";
            proxy_set_header X-Token $upstream_token;
            proxy_set_header X-Client $client;
            proxy_set_header X-Api-Key geheim-header;
            proxy_pass http://a/?token=geheim-query&path=$uri;
        }
        location /guarded { if ($http_x_api_key != "geheim-key") { return 403; } proxy_pass http://a; }
    }
}
`, transform.Rules{Secrets: map[string]string{"$http_x_api_key": "testers"}})
	seen := make(chan http.Header, 1)
	query := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header
		query <- r.URL.RawQuery
	}))
	t.Cleanup(s.Close)
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1",
			netip.MustParseAddrPort(s.Listener.Addr().String()))},
	}).All()))
	get := func(path, key string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			fmt.Sprintf("http://%s:%d%s", plain, b.port, path), nil)
		require.NoError(t, err)
		req.Header.Set("X-Api-Key", key)
		resp, err := http.DefaultTransport.RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		return resp.StatusCode
	}
	require.Equal(t, 200, get("/x", "testers"))
	header := <-seen
	for name, want := range map[string]string{"Authorization": "Basic stripped==",
		"X-Token": "Bearer stripped", "X-Api-Key": "stripped", "X-Client": "known"} {
		require.Equal(t, want, header.Get(name), name)
	}
	require.Equal(t, "token=stripped&path=/x", <-query)
	require.Equal(t, 403, get("/guarded", "geheim-key"))
	require.Equal(t, 200, get("/guarded", "testers"))
	files, err := filepath.Glob(filepath.Join(b.Prefix, "conf", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NotContains(t, string(text), "geheim", name)
		require.NotContains(t, string(text), "Z2VoZWlt", name)
	}
}

// Pages that show the state of Nginx stay or give way as the rules say; an upstream's directives of
// other modules are left out, so that a stock Nginx takes it.
func TestStatusPagesAndOtherModules(t *testing.T) {
	t.Parallel()
	const text = `
events { }
http {
    upstream a {
        sticky cookie srv_id expires=1h domain=.example.com path=/;
        server 10.9.9.1:80 resolve route=a;
        zone a 64k;
        check interval=3000 type=http;
        state /var/lib/nginx/a.state;
    }
    server {
        listen 80;
        location = /nginx_status { stub_status; allow 127.0.0.0/8; deny all; }
        location / { proxy_pass http://a; }
    }
}
`
	for _, c := range []struct {
		keep []string
		want int
	}{{nil, 404}, {[]string{"stub_status"}, 200}} {
		b := startTree(t, text, transform.Rules{KeepStatus: c.keep})
		require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
			Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1",
				nginxtest.Backend(t, "one"))},
			Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": one("a2", "v2",
				nginxtest.Backend(t, "two"))}},
		}).All()))
		a, err := b.get(t.Context(), plain, "/nginx_status")
		require.NoError(t, err)
		require.Equal(t, c.want, a.Status, a.Body)
		require.Equal(t, c.want == 200, strings.Contains(a.Body, "Active connections"))
		for range 3 { // no cookie of one VIP leads to its version on another
			b.answers(t, vipA, "/", "v2")
			_, header, _, err := nginxtest.Get(t.Context(),
				netip.AddrPortFrom(vipB, uint16(b.port)), "x", "/")
			require.NoError(t, err)
			require.Empty(t, header.Values("Set-Cookie"))
			b.answers(t, vipB, "/", "v1")
		}
	}
}

// A client of an upstream that is sticky in production stays with one instance, on each VIP with
// one of its own version.
func TestStickyClients(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    upstream a { least_conn; sticky cookie srv_id expires=1h; server 10.9.9.1:80; server 10.9.9.2:80; }
    server { listen 80; location / { proxy_pass http://a; } }
}
`, transform.Rules{})
	instances := func(version string) (list []nginxsync.Instance) {
		for i := range 4 {
			name := fmt.Sprint(version, "-", i)
			list = append(list, one(name, version, nginxtest.Backend(t, name))...)
		}
		return list
	}
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": instances("v1")},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": instances("v2")}},
	}).All()))
	for vip, version := range map[netip.Addr]string{vipA: "v2", vipB: "v1"} {
		asked := map[string]bool{}
		for client := range 16 {
			mine := map[string]bool{}
			for range 3 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
					fmt.Sprintf("http://%s:%d/", vip, b.port), nil)
				require.NoError(t, err)
				req.Header.Set("User-Agent", fmt.Sprint("browser ", client))
				resp, err := http.DefaultTransport.RoundTrip(req)
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				resp.Body.Close()
				name, _, _ := strings.Cut(string(body), " ")
				require.True(t, strings.HasPrefix(name, version), name)
				mine[name], asked[name] = true, true
			}
			require.Len(t, mine, 1)
		}
		require.Greater(t, len(asked), 1)
	}
}
