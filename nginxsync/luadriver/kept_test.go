//go:build linux

package luadriver_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// served holds the parts of one answer that tests compare.
type served struct {
	Status                       int
	Body, Version, Cache, Reason string
}

func (b *bed) ask(t *testing.T, vip netip.Addr, path string, header ...string) served {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		fmt.Sprintf("http://%s:%d%s", vip, b.port, path), nil)
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Close = true
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text := make([]byte, 512)
	n, _ := resp.Body.Read(text)
	first, _, _ := strings.Cut(string(text[:n]), " host=")
	return served{
		Status: resp.StatusCode, Body: first, Version: resp.Header.Get("X-Sluice-Version"),
		Cache: resp.Header.Get("X-Cache"), Reason: resp.Header.Get("X-Sluice-Reason"),
	}
}

// push applies routes: the baseline of cluster a, and the instances that serve it on vipA, nil for
// the baseline.
func (b *bed) push(t *testing.T, number uint64, baseline, onA []nginxsync.Instance) {
	t.Helper()
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": baseline}}
	if onA != nil {
		s.Overlays = map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": onA}}
	}
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(number, s).All()))
}

const cachingTree = `
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    proxy_cache_valid any 1h;
    proxy_cache_use_stale error timeout http_500 http_502 http_503 updating;
    proxy_cache_background_update on;
    proxy_cache_lock on;
    proxy_cache p;
    limit_req_zone $binary_remote_addr zone=l:1m rate=1r/m;
    add_header X-Cache $upstream_cache_status always;
    upstream a { server 10.9.9.1:80; }
    map $arg_to $chosen { default a; }
    server {
        listen 80;
        location / { proxy_pass http://a; }
        location /keyed/ { proxy_cache_key $uri; proxy_pass http://a; }
        location /expired/ { proxy_cache_valid any 1s; proxy_pass http://a; }
        location /chosen/ { proxy_pass http://$chosen; }
        location /slice/ { slice 4; proxy_set_header Range $slice_range; proxy_cache_key $uri$slice_range; proxy_pass http://a; }
        location /limit/ { proxy_cache off; limit_req zone=l; proxy_pass http://a; }
    }
}
`

// After each kind of change of the instances that serve a VIP, a tester sees pages of the present
// instances, never a page of before.
func TestKeptPagesFollowTheRoutes(t *testing.T) {
	t.Parallel()
	b := startTree(t, cachingTree, transform.Rules{})
	v1, v2, v3 := one("i1", "v1", nginxtest.Backend(t, "one")),
		one("i2", "v2", nginxtest.Backend(t, "two")), one("i3", "v3", nginxtest.Backend(t, "three"))
	var none []nginxsync.Instance
	none = append(none, v1...)[:0]
	paths := []string{"/p", "/keyed/p", "/expired/p", "/chosen/p"}
	number := uint64(0)
	for _, step := range []struct {
		name          string
		baseline, onA []nginxsync.Instance
		want          string
	}{
		{"the first version", v1, v2, "two"},
		{"a redeploy on the same VIP", v1, v3, "three"},
		{"the instances are gone", v1, none, ""},
		{"an instance comes", v1, one("i4", "v3", nginxtest.Backend(t, "four")), "four"},
		{"the VIP is released", v1, nil, "one"},
		{"the next tenant", v1, v2, "two"},
		{"released again", v1, nil, "one"},
		{"the baseline is another version", v2, nil, "two"},
		{"the baseline is gone", none, nil, ""},
	} {
		number++
		b.push(t, number, step.baseline, step.onA)
		for _, path := range paths {
			for _, cache := range []string{"MISS", "HIT"} {
				got := b.ask(t, vipA, path)
				if step.want == "" {
					require.Equal(t, 503, got.Status, "%s %s: %+v", step.name, path, got)
					require.Equal(t, "none", got.Version, "%s %s: %+v", step.name, path, got)
					require.Equal(t, "no-instance; cluster=a", got.Reason)
					continue
				}
				require.Equal(t, fmt.Sprint(step.want, " ", path), got.Body, "%s: %+v", step.name,
					got)
				serving := step.onA
				if serving == nil {
					serving = step.baseline
				}
				require.Equal(t, serving[0].Version, got.Version, "%s %s: %+v", step.name, path,
					got)
				if path != "/expired/p" && step.name != "the next tenant" &&
					step.name != "released again" && step.name != "the instances are gone" {
					require.Equal(t, cache, got.Cache, "%s %s: %+v", step.name, path, got)
				}
			}
		}
	}
}

// The load on a version that was there before does not count for the one that is there now.
func TestLimitsFollowTheRoutes(t *testing.T) {
	t.Parallel()
	b := startTree(t, cachingTree, transform.Rules{})
	v1, v2 := one("i1", "v1", nginxtest.Backend(t, "one")),
		one("i2", "v2", nginxtest.Backend(t, "two"))
	b.push(t, 1, v1, v1)
	require.Equal(t, 200, b.ask(t, vipA, "/limit/").Status)
	require.Equal(t, 503, b.ask(t, vipA, "/limit/").Status)
	b.push(t, 2, v1, v2)
	require.Equal(t, 200, b.ask(t, vipA, "/limit/").Status)
	require.Equal(t, 503, b.ask(t, vipA, "/limit/").Status)
}

// Pages that instances of several versions may have made are not kept: no cache can say whose they
// are.
func TestMixedVersionsAreNotKept(t *testing.T) {
	t.Parallel()
	b := startTree(t, cachingTree, transform.Rules{})
	b.push(t, 1, append(one("i1", "v1", nginxtest.Backend(t, "one")),
		one("i2", "v2", nginxtest.Backend(t, "two"))...), nil)
	seen := map[string]bool{}
	for range 8 {
		got := b.ask(t, plain, "/p")
		require.NotEqual(t, "HIT", got.Cache)
		require.Equal(t, map[string]string{"v1": "one /p", "v2": "two /p"}[got.Version], got.Body)
		seen[got.Version] = true
	}
	require.Len(t, seen, 2)
}

// Two requests share a page where they share it in production: where the upstream is asked for the
// same URI.
func TestDefaultCacheKeyIsNginxs(t *testing.T) {
	t.Parallel()
	const tree = `
error_log /var/log/nginx/error.log warn;
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    proxy_cache p;
    proxy_cache_valid any 1h;
    add_header X-Cache $upstream_cache_status always;
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        location / { if ($cookie_kind = b) { rewrite ^ /b break; } proxy_pass http://a; }
        location /one/ { proxy_pass http://a/s/; }
        location /two/ { proxy_pass http://a/s/; }
        location /old/ { rewrite ^/old/(.*)$ /new/$1 break; proxy_pass http://a; }
        location /last/ { rewrite ^/last/(.*)$ /new/$1 last; }
        location /in/ { if ($arg_other) { proxy_pass http://a; } proxy_pass http://a/s/; }
        location /var/ { set $pool a; proxy_pass http://$pool/s$uri; }
        location /try/ { try_files /none @named; }
        location @named { proxy_pass http://a; }
        location ~ ^/re/ { proxy_pass http://a; }
        location /named/ { error_page 404 = @moved; return 404; }
        location @moved { rewrite ^/named/(.*)$ /new/$1 break; proxy_pass http://a; }
        location /whole { set $to http://a; if ($cookie_kind = b) { rewrite ^ /whole/b break; } proxy_pass $to; }
        location /parts { set $by http; set $to a; if ($cookie_kind = b) { rewrite ^ /parts/b break; } proxy_pass $by://$to; }
    }
}
`
	b := startTree(t, tree, transform.Rules{})
	b.push(t, 1, one("i1", "v1", nginxtest.Backend(t, "one")), nil)
	for _, c := range []struct{ path, cookie, body, cache string }{
		{"/p", "", "/p", "MISS"},
		{"/p", "kind=b", "/b", "MISS"},
		{"/p", "", "/p", "HIT"},
		{"/q", "kind=b", "/b", "HIT"},
		{"/b", "", "/b", "HIT"},
		{"/one/p?x=1", "", "/s/p?x=1", "MISS"},
		{"/two/p?x=1", "", "/s/p?x=1", "HIT"},
		{"/one/p", "", "/s/p", "MISS"},
		{"/one/a%20b", "", "/s/a%20b", "MISS"},
		{"/two/a%20b", "", "/s/a%20b", "HIT"},
		{"/one/a%3Fx=1", "", "/s/a%3Fx=1", "MISS"},
		{"/a%2Fb", "", "/a%2Fb", "MISS"},
		{"/a/b", "", "/a/b", "MISS"},
		{"/a%2Fb", "", "/a%2Fb", "HIT"},
		{"/new/1", "", "/new/1", "MISS"},
		{"/old/1", "", "/new/1", "HIT"},
		{"/last/1", "", "/new/1", "HIT"},
		{"/in/p", "", "/s/p", "HIT"},
		{"/in/p?other=1", "", "/in/p?other=1", "MISS"},
		{"/var/p", "", "/s/var/p", "MISS"},
		{"/one/var/p", "", "/s/var/p", "HIT"},
		{"/try/p", "", "/try/p", "MISS"},
		{"/try/p", "", "/try/p", "HIT"},
		{"/re/p", "", "/re/p", "MISS"},
		{"/re/p", "", "/re/p", "HIT"},
		{"/named/1", "", "/new/1", "HIT"},
		{"/named/2", "", "/new/2", "MISS"},
		{"/whole", "", "/whole", "MISS"},
		{"/whole", "kind=b", "/whole/b", "MISS"},
		{"/whole", "", "/whole", "HIT"},
		{"/parts", "", "/parts", "MISS"},
		{"/parts", "kind=b", "/parts/b", "MISS"},
		{"/parts/x", "kind=b", "/parts/b", "HIT"},
	} {
		got := b.ask(t, plain, c.path, "Cookie", c.cookie)
		require.Equal(t, "one "+c.body, got.Body, "%+v: %+v", c, got)
		require.Equal(t, c.cache, got.Cache, "%+v: %+v", c, got)
	}
	log, err := os.ReadFile(b.ErrorLog())
	require.NoError(t, err)
	require.NotContains(t, string(log), "uninitialized")
}

// The version in the header is that of the answer: not that of a subrequest, and on a cache hit the
// one that made the page.
func TestVersionIsThatOfTheAnswer(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    log_format v '$uri version=$sluice_version';
    access_log /var/log/nginx/v.log v;
    upstream a { server 10.9.9.1:80; }
    upstream side { server 10.9.9.2:80; }
    server {
        listen 80;
        location / { mirror /side; proxy_pass http://a; }
        location /cached { mirror /side; auth_request /side; proxy_cache p; proxy_cache_valid any 1h; add_header X-Cache $upstream_cache_status; proxy_pass http://a; }
        location /auth { auth_request /side; proxy_pass http://a; }
        location /text { auth_request /side; try_files /none =204; }
        location /gone { auth_request /empty; proxy_pass http://a; }
        location = /side { internal; proxy_pass http://side; }
        location = /empty { internal; proxy_pass http://empty; }
    }
    upstream empty { server 10.9.9.3:80; }
}
`, transform.Rules{})
	require.NoError(t, b.driver.Apply(t.Context(),
		nginxsync.NewRoutes(1, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
			"a": one("i1", "v1", nginxtest.Backend(t, "one")), "side": one("s1", "side-7",
				nginxtest.Backend(t, "side")),
		}}).All()))
	for range 3 {
		for path, want := range map[string]string{"/p": "v1", "/cached": "v1", "/auth": "v1",
			"/text": ""} {
			got := b.ask(t, plain, path)
			require.Equal(t, want, got.Version, "%s: %+v", path, got)
			require.Less(t, got.Status, 300)
		}
	}
	require.Equal(t, "HIT", b.ask(t, plain, "/cached").Cache)
	gone := b.ask(t, plain, "/gone")
	require.Equal(t, served{Status: 500, Body: gone.Body, Reason: "no-instance; cluster=empty"},
		gone, "Nginx makes 500 of it, the reason stays")
}

// The reason in the header is that of the answer, in whichever order a mirror and its request come
// to their clusters.
func TestReasonIsThatOfTheAnswer(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    upstream a { server 10.9.9.1:80; }
    upstream side { server 10.9.9.2:80; }
    upstream empty { server 10.9.9.3:80; }
    upstream none { server 10.9.9.4:80; }
    server {
        listen 80;
        location / { mirror /empty; proxy_pass http://a; }
        location /early { mirror /empty; mirror /side; mirror_request_body off; proxy_pass http://a; }
        location /cached { mirror /empty; proxy_cache p; proxy_cache_valid any 1h; proxy_pass http://a; }
        location /beside { mirror /side; mirror /empty; proxy_pass http://a; }
        location /refused { mirror /empty; mirror /side; proxy_pass http://none; }
        location /auth { auth_request /empty; proxy_cache p; proxy_cache_valid any 1h; proxy_pass http://a; }
        location /else { error_page 503 = @else; proxy_intercept_errors on; proxy_pass http://none; }
        location @else { proxy_pass http://a; }
        location = /empty { internal; proxy_pass http://empty; }
        location = /side { internal; proxy_pass http://side; }
    }
}
`, transform.Rules{})
	seen := make(chan struct{}, 100)
	side := respond(t, func(http.ResponseWriter, *http.Request) { seen <- struct{}{} })
	require.NoError(t, b.driver.Apply(t.Context(),
		nginxsync.NewRoutes(1, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
			"a": one("i1", "v1", nginxtest.Backend(t, "one")), "side": one("s1", "v2", side),
		}}).All()))
	for range 3 {
		for path, reason := range map[string]string{"/p": "", "/cached": "", "/beside": "",
			"/else": "", "/refused": "no-instance; cluster=none",
			"/auth": "no-instance; cluster=empty"} {
			require.Equal(t, reason, b.ask(t, plain, path).Reason, path)
		}
	}

	// The body comes when the mirrors have asked.
	for len(seen) > 0 {
		<-seen
	}
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		fmt.Sprintf("http://%s:%d/early", plain, b.port), body)
	require.NoError(t, err)
	req.ContentLength = 1
	go func() {
		<-seen
		_, _ = send.Write([]byte("x"))
		send.Close()
	}()
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "v1", resp.Header.Get("X-Sluice-Version"))
	require.Empty(t, resp.Header.Get("X-Sluice-Reason"))
}

// A cluster without an instance is answered alike, in whichever protocol it is asked.
func TestNoInstanceIsTheSameAnswerInEachProtocol(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    server {
        listen 80;
        location /http { proxy_pass http://a1; }
        location /https { proxy_pass https://a2; }
        location /both { proxy_pass $scheme://a3; }
        location /fastcgi { fastcgi_pass a4; }
        location /grpc { grpc_pass grpc://a5; }
        location /grpcs { grpc_pass grpcs://a6; }
        location /uwsgi { uwsgi_pass a7; }
        location /scgi { scgi_pass a8; }
        location /memcached { set $memcached_key $uri; memcached_pass a9; }
        location /page { error_page 502 503 /sorry; fastcgi_pass a4; }
        location = /sorry { return 200 "sorry "; }
        location /other { error_page 502 = @web; fastcgi_pass a4; }
        location @web { proxy_pass http://web; }
    }
    upstream a1 { server 10.9.9.1:80; }
    upstream a2 { server 10.9.9.1:80; keepalive 2; }
    upstream a3 { server 10.9.9.1:80; }
    upstream a4 { server 10.9.9.1:80; }
    upstream a5 { server 10.9.9.1:80; }
    upstream a6 { server 10.9.9.1:80; }
    upstream a7 { server 10.9.9.1:80; }
    upstream a8 { server 10.9.9.1:80; }
    upstream a9 { server 10.9.9.1:80; }
    upstream web { server 10.9.9.1:80; }
}
`, transform.Rules{})
	require.NoError(t, b.driver.Apply(t.Context(),
		nginxsync.NewRoutes(1, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
			"web": one("w1", "v1", nginxtest.Backend(t, "web")),
		}}).All()))
	for i, protocol := range []string{"http", "https", "both", "fastcgi", "grpc", "grpcs", "uwsgi",
		"scgi", "memcached"} {
		got := b.ask(t, vipA, "/"+protocol)
		want := served{Status: 503, Body: "no instance serves this cluster on VIP " +
			vipA.String() + "\n", Version: "none", Reason: fmt.Sprint("no-instance; cluster=a",
			i+1)}
		require.Equal(t, want, got, protocol)
	}
	require.Equal(t, 503, b.ask(t, vipA, "/page").Status)
	other := b.ask(t, vipA, "/other")
	require.Equal(t, 200, other.Status, "production's own way out stays")
	require.Equal(t, "web /other", other.Body)
}

// So is one that is asked by HTTP/2.
func TestNoInstanceIsTheSameAnswerByHTTP2(t *testing.T) {
	t.Parallel()
	const text = `
events { }
http {
    upstream a { server 10.9.9.1:80; }
    server { listen 80; location / { proxy_http_version 2; proxy_pass http://a; } }
}
`
	if !nginx.Since(t, 1, 29, 4) {
		require.Contains(t, refusedBy(t, text), `invalid value "2"`)
		return
	}
	b := startTree(t, text, transform.Rules{})
	b.push(t, 1, one("i1", "v1", nginxtest.Backend(t, "one"))[:0], nil)
	require.Equal(t, served{503, "no instance serves this cluster on VIP " + vipA.String() + "\n",
		"none", "", "no-instance; cluster=a"}, b.ask(t, vipA, "/p"))
}

// Modules whose key is a variable keep the entries of each version apart.
func TestKeyVariables(t *testing.T) {
	t.Parallel()
	var asked atomic.Value
	memcached := fakeMemcached(t, &asked)
	b := startTree(t, `
events { }
http {
    upstream m { server 10.9.9.1:80; }
    server {
        listen 80;
        location / { set $memcached_key "$uri?$args"; memcached_pass m; }
        location /if { if ($arg_x) { set $memcached_key "x$uri"; } memcached_pass m; }
    }
}
`, transform.Rules{})
	apply := func(number uint64, version string) {
		require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(number,
			nginxsync.Snapshot{Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
				vipA: {"m": one("m1", version, memcached)},
			}}).All()))
	}
	apply(1, "v1")
	b.ask(t, vipA, "/p?a=1")
	first := asked.Load().(string)
	require.True(t, strings.HasPrefix(first, "/p?a=1"+vipA.String()+"-"), first)
	b.ask(t, vipA, "/p?a=1")
	require.Equal(t, first, asked.Load())
	b.ask(t, vipA, "/if?x=1")
	require.True(t, strings.HasPrefix(asked.Load().(string), "x/if"+vipA.String()+"-"),
		asked.Load())
	apply(2, "v2")
	b.ask(t, vipA, "/p?a=1")
	require.NotEqual(t, first, asked.Load())
}

// page is the answer of a responder of each protocol: a page that may be kept for an hour.
func page(w http.ResponseWriter, name, uri string) {
	w.Header().Set("Cache-Control", "max-age=3600")
	fmt.Fprintf(w, "%s %s", name, uri)
}

// fastcgiBackend answers FastCGI.
func fastcgiBackend(t *testing.T, name string) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		_ = fcgi.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			page(w, name, r.URL.RequestURI())
		}))
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// gatewayBackend answers SCGI, or uwsgi. Both send the request as a list of
// variables and read a CGI answer
// (https://python.ca/scgi/protocol.txt, https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html).
func gatewayBackend(t *testing.T, name string, uwsgi bool) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
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
				uri := ""
				r := bufio.NewReader(c)
				if uwsgi {
					uri = uwsgiURI(r)
				} else {
					uri = scgiURI(r)
				}
				fmt.Fprintf(c, "Status: 200 OK\r\nCache-Control: max-age=3600\r\n\r\n%s %s", name,
					uri)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func scgiURI(r *bufio.Reader) string {
	head, err := r.ReadString(':')
	size, _ := strconv.Atoi(strings.TrimSuffix(head, ":"))
	text := make([]byte, size)
	if _, readErr := io.ReadFull(r, text); err != nil || readErr != nil {
		return ""
	}
	fields := strings.Split(string(text), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "REQUEST_URI" {
			return fields[i+1]
		}
	}
	return ""
}

func uwsgiURI(r *bufio.Reader) string {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return ""
	}
	text := make([]byte, binary.LittleEndian.Uint16(head[1:3]))
	if _, err := io.ReadFull(r, text); err != nil {
		return ""
	}
	next := func() string {
		if len(text) < 2 {
			return ""
		}
		size := int(binary.LittleEndian.Uint16(text))
		word := string(text[2:min(2+size, len(text))])
		text = text[min(2+size, len(text)):]
		return word
	}
	for len(text) > 0 {
		if name, value := next(), next(); name == "REQUEST_URI" {
			return value
		}
	}
	return ""
}

// The caches of FastCGI, SCGI and uwsgi follow the routes as that of HTTP does.
func TestKeptPagesOfOtherProtocolsFollowTheRoutes(t *testing.T) {
	t.Parallel()
	var zones, locations strings.Builder
	for _, p := range []string{"fastcgi", "scgi", "uwsgi"} {
		fmt.Fprintf(&zones, `%[1]s_cache_path /var/cache/nginx/kept-%[1]s keys_zone=%[1]s:1m;
    %[1]s_param REQUEST_URI $request_uri;
    %[1]s_cache_valid any 1h;
    %[1]s_cache_use_stale error timeout http_500 http_503 updating;
    %[1]s_cache_background_update on;
    %[1]s_cache_lock on;
    upstream %[1]s { server 10.9.9.1:80; }
`, p)
		fmt.Fprintf(&locations, `location /%[1]s/ { %[1]s_cache %[1]s; %[1]s_cache_key $request_uri; %[1]s_pass %[1]s; }
        location /%[1]s/sliced { slice 4; %[1]s_cache %[1]s; %[1]s_cache_key $uri$slice_range; %[1]s_pass %[1]s; }
`, p)
	}
	b := startTree(t, "events { }\nhttp {\n"+zones.String()+`
    fastcgi_param REQUEST_METHOD $request_method;
    fastcgi_param SERVER_PROTOCOL $server_protocol;
    add_header X-Cache $upstream_cache_status always;
    server {
        listen 80;
        `+locations.String()+"    }\n}\n", transform.Rules{})
	backends := map[string]func(name string) netip.AddrPort{
		"fastcgi": func(name string) netip.AddrPort { return fastcgiBackend(t, name) },
		"scgi":    func(name string) netip.AddrPort { return gatewayBackend(t, name, false) },
		"uwsgi":   func(name string) netip.AddrPort { return gatewayBackend(t, name, true) },
	}
	made := map[string]netip.AddrPort{}
	instances := func(protocol, version string) []nginxsync.Instance {
		key := protocol + "-" + version
		if !made[key].IsValid() {
			made[key] = backends[protocol](version)
		}
		return one(key, version, made[key])
	}
	number := uint64(0)
	for _, step := range []struct{ name, baseline, onA, want string }{
		{"the first version", "v1", "v2", "v2"},
		{"a redeploy on the same VIP", "v1", "v3", "v3"},
		{"the instances are gone", "v1", "none", ""},
		{"an instance comes", "v1", "v4", "v4"},
		{"the VIP is released", "v1", "", "v1"},
		{"the next tenant", "v1", "v5", "v5"},
		{"released again", "v1", "", "v1"},
		{"the baseline is another version", "v2", "", "v2"},
		{"the baseline is gone", "none", "", ""},
	} {
		number++
		s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{}}
		overlay := map[string][]nginxsync.Instance{}
		for protocol := range backends {
			if step.baseline != "none" {
				s.Baseline[protocol] = instances(protocol, step.baseline)
			}
			switch step.onA {
			case "":
			case "none":
				overlay[protocol] = []nginxsync.Instance{}
			default:
				overlay[protocol] = instances(protocol, step.onA)
			}
		}
		if len(overlay) > 0 {
			s.Overlays = map[netip.Addr]map[string][]nginxsync.Instance{vipA: overlay}
		}
		require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(number, s).All()))
		for protocol := range backends {
			for _, path := range []string{"/" + protocol + "/p", "/" + protocol + "/sliced"} {
				for _, cache := range []string{"MISS", "HIT"} {
					got := b.ask(t, vipA, path)
					if step.want == "" {
						require.Equal(t, 503, got.Status, "%s %s: %+v", step.name, path, got)
						require.Equal(t, "no-instance; cluster="+protocol, got.Reason)
						continue
					}
					require.Equal(t, step.want, got.Version, "%s %s: %+v", step.name, path, got)
					require.Equal(t, step.want+" "+path, got.Body, "%s: %+v", step.name, got)
					if step.name != "released again" {
						require.Equal(t, cache, got.Cache, "%s %s: %+v", step.name, path, got)
					}
				}
			}
		}
	}
}
