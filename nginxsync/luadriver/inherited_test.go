//go:build linux

package luadriver_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// For each directive in the http context of a tree, the driver's own servers answer as if it were
// not there.
func TestServersOfTheDriverInheritNothing(t *testing.T) {
	t.Parallel()
	for name, http := range map[string]string{
		"auth_request":     `auth_request /auth;`,
		"access_by_lua":    `access_by_lua_block { if not ngx.var.http_x_pass then return ngx.exit(403) end }`,
		"rewrite_by_lua":   `rewrite_by_lua 'if not ngx.var.http_x_pass then return ngx.exit(410) end';`,
		"server_rewrite":   `server_rewrite_by_lua_block { if not ngx.var.http_x_pass then return ngx.exit(410) end }`,
		"limit_req":        `limit_req_zone $server_name zone=s:1m rate=1r/m; limit_req zone=s;`,
		"limit_conn":       `limit_conn_zone $server_name zone=s:1m; limit_conn s 1; limit_rate 1;`,
		"filters by lua":   `header_filter_by_lua_block { ngx.header.content_length = nil ngx.status = 418 } body_filter_by_lua_block { ngx.arg[1] = "spoiled" }`,
		"log_by_lua":       `log_by_lua_block { error("spoiled") }`,
		"satisfy and deny": `satisfy any; deny all; auth_basic x; auth_basic_user_file /nonexistent;`,
		"error_page":       `proxy_intercept_errors on; error_page 404 409 500 503 =200 /page;`,
		"filters":          `ssi on; ssi_types *; gzip on; gzip_types *; gzip_min_length 1; charset koi8-r; default_type text/html; sub_filter_types *; sub_filter worker spoiled; sub_filter generation spoiled;`,
		"additions":        `addition_types *; add_before_body /page; add_after_body /page; mirror /page;`,
		"bodies":           `client_body_in_file_only on; lua_need_request_body on; client_max_body_size 10; client_body_timeout 1s; chunked_transfer_encoding off;`,
		"the code cache":   `lua_code_cache off;`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startTree(t, `
events { }
http {
    `+http+`
    upstream a { server 10.9.9.1:80; }
    upstream empty { server 10.9.9.2:80; }
    server {
        listen 80;
        location / { proxy_pass http://a; }
        location /empty { proxy_pass http://empty; }
        location = /auth { internal; auth_request off; return 403; }
        location = /page { return 200 "spoiled"; }
    }
}
`, transform.Rules{TrustCode: true})
			for number := range uint64(3) {
				routes := nginxsync.NewRoutes(number+1, nginxsync.Snapshot{
					Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1",
						nginxtest.Backend(t, "one"))},
					Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": one("a2",
						"v2", nginxtest.Backend(t, "two"))}},
				})
				require.NoError(t, b.driver.Apply(t.Context(), routes.All()))
				got, err := b.driver.Routes(t.Context())
				require.NoError(t, err)
				require.Equal(t, routes.Generation, got.Generation)
				state, err := b.driver.State(t.Context())
				require.NoError(t, err)
				require.Equal(t, routes.Generation, state.Applied)
			}
		})
	}
}

// A program of the tree in any of its three forms still runs where the driver's own code has to
// run, too.
func TestProgramsOfTheTreeStillRun(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    proxy_cache p;
    init_by_lua 'began = "yes"';
    rewrite_by_lua 'ngx.req.set_header("X-Form", "text")';
    server_rewrite_by_lua_block { ngx.req.set_header("X-Began", began) }
    header_filter_by_lua_block { ngx.header["X-Form"] = ngx.var.http_x_form ngx.header["X-Began"] = ngx.var.http_x_began }
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        location / { proxy_pass http://a; }
        location /block { rewrite_by_lua_block { ngx.req.set_header("X-Form", "block") } proxy_pass http://a; }
        location /tls { proxy_pass https://empty; }
        location /set { set $to a; access_by_lua_block { if ngx.var.arg_b then ngx.var.to = "b" end } proxy_pass http://$to; }
    }
    upstream empty { server 10.9.9.2:80; }
    upstream b { server 10.9.9.3:80; }
}
`, transform.Rules{TrustCode: true, Pass: map[string]string{"$to": "$to"}})
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1",
			nginxtest.Backend(t, "one")),
			"b": one("b1", "v1", nginxtest.Backend(t, "two"))},
	}).All()))
	for path, form := range map[string]string{"/": "text", "/block": "block"} {
		_, header, _, err := nginxtest.Get(t.Context(), netip.AddrPortFrom(plain, uint16(b.port)),
			"x", path)
		require.NoError(t, err)
		require.Equal(t, form, header.Get("X-Form"))
		require.Equal(t, "yes", header.Get("X-Began"))
	}
	require.Equal(t, 503, b.ask(t, plain, "/tls").Status)
	// code may set a target to any upstream of the tree
	require.Equal(t, "one /set", b.ask(t, plain, "/set").Body[:8])
	require.Equal(t, "two /set", b.ask(t, plain, "/set?b=1").Body[:8])
}

// A purge beside a pass goes, and the location stays; a location that does nothing but purge gives
// way to 404.
func TestPurgesGiveWay(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        location / { proxy_cache p; proxy_cache_purge PURGE from 127.0.0.1; proxy_pass http://a; }
        location /method { proxy_cache p; proxy_cache_purge $http_x_purge; proxy_pass http://a; }
        location /purge { proxy_cache_purge p $uri; }
    }
}
`, transform.Rules{})
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1",
			nginxtest.Backend(t, "one"))},
	}).All()))
	for path, want := range map[string]int{"/p": 200, "/method": 200, "/purge": 404} {
		require.Equal(t, want, b.ask(t, plain, path).Status, path)
	}
}
