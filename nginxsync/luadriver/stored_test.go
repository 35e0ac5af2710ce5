//go:build linux

package luadriver_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// memcached runs a memcached on a free port.
func memcached(t *testing.T) netip.AddrPort {
	t.Helper()
	path := testbed.NeedProgram(t, "memcached", "memcached")
	addr := netip.AddrPortFrom(plain, uint16(testbed.Port(t)))
	testbed.Start(t, testbed.Own(t).TestDir(t, "memcached"), testbed.Command{
		Name: "memcached", Path: path, Args: []string{"-u", "root", "-l", plain.String(), "-p",
			fmt.Sprint(addr.Port())}, Ready: testbed.Listens(addr.String()),
	})
	return addr
}

// Pages that srcache keeps in memcached, and pages that code fetches from a cache, follow the
// routes: such subrequests have variables of their own.
func TestPagesOfSubrequestsFollowTheRoutes(t *testing.T) {
	t.Parallel()
	testbed.NeedFile(t, nginx.Modules+"/ngx_http_memc_module.so", "libnginx-mod-http-memc")
	testbed.NeedFile(t, nginx.Modules+"/ngx_http_srcache_filter_module.so",
		"libnginx-mod-http-srcache-filter")
	b := startTree(t, `
load_module `+nginx.Modules+`/ngx_http_memc_module.so;
load_module `+nginx.Modules+`/ngx_http_srcache_filter_module.so;
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    proxy_cache_valid any 1h;
    upstream m { server 10.9.9.1:80; }
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        location / {
            set $key "$uri?$args";
            srcache_fetch GET /memc $key;
            srcache_store PUT /memc $key;
            srcache_store_statuses 200 503;
            add_header X-Cache $srcache_fetch_status always;
            proxy_pass http://a;
        }
        location /skip/ {
            set $key "$uri?$args";
            srcache_fetch GET /memc $key;
            srcache_store PUT /memc $key;
            srcache_store_skip $arg_skip;
            add_header X-Cache $srcache_fetch_status always;
            proxy_pass http://a;
        }
        location = /memc { internal; set $memc_key $query_string; set $memc_exptime 300; memc_pass m; }
        location = /captured { content_by_lua_block { local a = ngx.location.capture("/page") ngx.status = a.status ngx.print(a.body) } }
        location = /page { proxy_cache p; proxy_pass http://a; }
    }
}
`, transform.Rules{TrustCode: true})
	store := one("m1", "m", memcached(t))
	versions := map[string][]nginxsync.Instance{"none": {}}
	for _, v := range []string{"v1", "v2", "v3"} {
		versions[v] = one("i-"+v, v, nginxtest.Backend(t, v))
	}
	versions["mixed"] = append(append([]nginxsync.Instance{}, versions["v1"]...),
		versions["v2"]...)
	for i, step := range []struct{ name, baseline, onA, want string }{
		{"the first version", "v1", "v2", "v2"},
		{"a redeploy on the same VIP", "v1", "v3", "v3"},
		{"the instances are gone", "v1", "none", "none"},
		{"the VIP is released", "v1", "", "v1"},
		{"two versions at once", "mixed", "", "mixed"},
		{"the next tenant", "mixed", "v2", "v2"},
	} {
		s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
			"a": versions[step.baseline], "m": store}}
		if step.onA != "" {
			s.Overlays = map[netip.Addr]map[string][]nginxsync.Instance{vipA: {
				"a": versions[step.onA]}}
		}
		require.NoError(t, b.driver.Apply(t.Context(),
			nginxsync.NewRoutes(uint64(i+1), s).All()))
		for _, path := range []string{"/p", "/skip/p", "/captured"} {
			for _, cache := range []string{"MISS", "HIT"} {
				got := b.ask(t, vipA, path)
				what := fmt.Sprintf("%s: %s: %+v", step.name, path, got)
				body := path
				if path == "/captured" {
					body, got.Version = "/page", step.want // the page is of a subrequest
				}
				switch step.want {
				case "none":
					require.Equal(t, http.StatusServiceUnavailable, got.Status, what)
				case "mixed":
					require.NotEqual(t, "HIT", got.Cache, what)
					if path != "/captured" {
						require.Equal(t, got.Version+" "+body, got.Body, what)
					}
				default:
					require.Equal(t, step.want+" "+body, got.Body, what)
					require.Equal(t, step.want, got.Version, what)
					if path != "/captured" {
						require.Equal(t, cache, got.Cache, what)
					}
				}
			}
		}
	}
}

// With Debian's module of purges a purge under keepStatus takes the page of its VIP away, and no
// other; without it nothing is purged.
func TestPurgesAreOfOneVIP(t *testing.T) {
	t.Parallel()
	testbed.NeedFile(t, nginx.Modules+"/ngx_http_cache_purge_module.so",
		"libnginx-mod-http-cache-purge")
	for _, keep := range [][]string{nil, {"proxy_cache_purge"}} {
		t.Run(fmt.Sprint("keepStatus ", keep), func(t *testing.T) {
			t.Parallel()
			b := startTree(t, `
load_module `+nginx.Modules+`/ngx_http_cache_purge_module.so;
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    proxy_cache_valid any 1h;
    add_header X-Cache $upstream_cache_status always;
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        location / { proxy_cache p; proxy_cache_key $uri$is_args$args; proxy_pass http://a; }
        location ~ /purge(/.*) { allow 127.0.0.0/8; deny all; proxy_cache_purge p $1$is_args$args; }
    }
}
`, transform.Rules{KeepStatus: keep})
			b.push(t, 1, one("i1", "v1", nginxtest.Backend(t, "one")), one("i2", "v2",
				nginxtest.Backend(t, "two")))
			for _, vip := range []netip.Addr{vipA, vipB} {
				require.Equal(t, "MISS", b.ask(t, vip, "/p?q=1").Cache)
				require.Equal(t, "HIT", b.ask(t, vip, "/p?q=1").Cache)
			}
			status, cache := http.StatusNotFound, "HIT"
			if keep != nil {
				status, cache = http.StatusOK, "MISS"
			}
			require.Equal(t, status, b.ask(t, vipA, "/purge/p?q=1").Status)
			require.Equal(t, cache, b.ask(t, vipA, "/p?q=1").Cache)
			require.Equal(t, "HIT", b.ask(t, vipB, "/p?q=1").Cache)
		})
	}
}

// Pages of methods that limit_except excludes are kept each under their own key, and never as those
// of the others.
func TestKeysOfExcludedMethods(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    proxy_cache p;
    proxy_cache_valid any 1h;
    add_header X-Cache $upstream_cache_status always;
    upstream a { server 10.9.9.1:80; }
    map $arg_to $chosen { default a; }
    server {
        listen 80;
        location /own/ { limit_except POST { proxy_pass http://a; } proxy_pass http://a/else/; }
        location /only/ { limit_except POST { proxy_pass http://a; } }
        location /around/ { limit_except POST { deny 10.0.0.1; } proxy_pass http://a/s/; }
        location /allowed/ { limit_except GET { deny all; } proxy_pass http://a/s/; }
        location /variable/ { limit_except POST { deny 10.0.0.1; } proxy_pass http://$chosen/v$uri; }
    }
}
`, transform.Rules{})
	b.push(t, 1, one("i1", "v1", nginxtest.Backend(t, "one")), one("i2", "v2",
		nginxtest.Backend(t, "two")))
	for _, cache := range []string{"MISS", "HIT"} {
		for path, body := range map[string]string{
			"/own/p": "/own/p", "/own/q": "/own/q", "/only/p": "/only/p", "/only/q": "/only/q",
			"/around/p": "/s/p", "/around/p?x=1": "/s/p?x=1", "/around/a%20b": "/s/a%20b",
			"/allowed/r": "/s/r", "/allowed/r?x=1": "/s/r?x=1",
			"/variable/p": "/v/variable/p", "/variable/q": "/v/variable/q",
		} {
			for _, vip := range []netip.Addr{vipA, vipB} {
				got := b.ask(t, vip, path)
				name := map[netip.Addr]string{vipA: "two ", vipB: "one "}[vip]
				require.Equal(t, name+body, got.Body, "%s: %+v", path, got)
				require.Equal(t, cache, got.Cache, "%s: %+v", path, got)
				require.Equal(t, map[netip.Addr]string{vipA: "v2", vipB: "v1"}[vip], got.Version,
					"%s: %+v", path, got)
			}
		}
	}
}

// A cache that has no key, and for which Nginx has no default one, keeps one page for each version.
func TestCachesWithoutKey(t *testing.T) {
	t.Parallel()
	for protocol, backend := range map[string]func(name string) netip.AddrPort{
		"fastcgi": func(name string) netip.AddrPort { return fastcgiBackend(t, name) },
		"scgi":    func(name string) netip.AddrPort { return gatewayBackend(t, name, false) },
		"uwsgi":   func(name string) netip.AddrPort { return gatewayBackend(t, name, true) },
	} {
		b := startTree(t, "events { }\nhttp {\n"+fmt.Sprintf(`
    %[1]s_cache_path /var/cache/nginx/kept keys_zone=z:1m;
    %[1]s_param REQUEST_URI $request_uri;
    %[1]s_param REQUEST_METHOD GET;
    %[1]s_param SERVER_PROTOCOL HTTP/1.1;
    %[1]s_cache_valid any 1h;
    %[1]s_cache z;
    add_header X-Cache $upstream_cache_status always;
    upstream a { server 10.9.9.1:80; }
    server { listen 80; location / { %[1]s_pass a; } }
`, protocol)+"}\n", transform.Rules{})
		b.push(t, 1, one("i1", "v1", backend("one")), one("i2", "v2", backend("two")))
		for _, cache := range []string{"MISS", "HIT"} {
			require.Equal(t, served{200, "one /p", "v1", cache, ""}, b.ask(t, plain, "/p"))
			require.Equal(t, served{200, "two /p", "v2", cache, ""}, b.ask(t, vipA, "/p"))
		}
		require.Equal(t, served{200, "one /p", "v1", "HIT", ""}, b.ask(t, plain, "/other"),
			"as in production")
	}
}

// Directives that came after the first of the Nginx versions that the tests know lead where they led
// before, and the VIP of a request decides.
func TestDirectivesOfLaterVersions(t *testing.T) {
	t.Parallel()
	if !nginx.Since(t, 1, 29, 8) {
		require.Contains(t, refusedBy(t, "events { }\nhttp {\nserver { listen 80; early_hints $a; }\n"+
			"}\n"), `unknown directive "early_hints"`)
		return
	}
	for name, c := range map[string]struct{ upstream, server string }{
		"resolve": {"zone a 64k; server backend.internal:80 resolve; resolver 127.0.0.1; " +
			"resolver_timeout 5s;", ""},
		"sticky cookie":       {"server 10.9.9.1:80; sticky cookie srv_id expires=1h;", ""},
		"sticky route":        {"server 10.9.9.1:80 route=a; sticky route $cookie_x $arg_x;", ""},
		"sticky learn":        {"zone a 64k; server 10.9.9.1:80; sticky learn create=$upstream_cookie_x lookup=$cookie_x zone=c:1m;", ""},
		"drain, slow_start":   {"server 10.9.9.1:80 drain; server 10.9.9.2:80 slow_start=9s; sticky cookie a;", ""},
		"keepalive local":     {"server 10.9.9.1:80; keepalive 32 local;", ""},
		"keepalive off":       {"server 10.9.9.1:80; keepalive 0;", ""},
		"least_time":          {"server 10.9.9.1:80; least_time header;", ""},
		"early_hints":         {"server 10.9.9.1:80;", "early_hints $arg_hints;"},
		"proxy_pass_trailers": {"server 10.9.9.1:80;", "proxy_pass_trailers on;"},
		"proxy_limit_rate":    {"server 10.9.9.1:80;", "proxy_limit_rate $arg_rate;"},
		"max_headers":         {"server 10.9.9.1:80;", "max_headers 100;"},
		"keepalive_min":       {"server 10.9.9.1:80;", "keepalive_min_timeout 5s;"},
		"caches of keys":      {"server 10.9.9.1:80;", "proxy_ssl_certificate_cache max=10; ssl_certificate_cache max=10;"},
		"add_trailer_inherit": {"server 10.9.9.1:80;", "add_trailer_inherit merge; add_header_inherit merge; add_header X-A b;"},
		"http2 streams":       {"server 10.9.9.1:80;", "http2_max_concurrent_streams 10;"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startTree(t, `
events { }
http {
    upstream a { `+c.upstream+` }
    server { listen 80; `+c.server+` location / { proxy_pass http://a; } }
}
`, transform.Rules{})
			v1 := one("i1", "v1", nginxtest.Backend(t, "one"))
			b.push(t, 1, v1, one("i2", "v2", nginxtest.Backend(t, "two")))
			for range 3 {
				require.Equal(t, served{200, "one /p", "v1", "", ""}, b.ask(t, plain, "/p"))
				require.Equal(t, served{200, "two /p", "v2", "", ""}, b.ask(t, vipA, "/p"))
			}
			b.push(t, 2, v1[:0], nil)
			require.Equal(t, "no-instance; cluster=a", b.ask(t, vipA, "/p").Reason)
		})
	}
}
