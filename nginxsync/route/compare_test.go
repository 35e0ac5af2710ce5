package route_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

func treeOf(t testing.TB, files map[string]string) *conf.Tree {
	t.Helper()
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tree, err := conf.Parse(m, "nginx.conf")
	require.NoError(t, err)
	return tree
}

// line is a change in one line.
func line(c route.PairChange) string {
	side := func(s route.Side) string {
		text := s.At
		switch {
		case s.Upstream != "":
			text += " " + s.Upstream + s.URI
		case s.Redirect != "":
			text += fmt.Sprintf(" %d %s", s.Status, s.Redirect)
		case s.Status != 0:
			text += fmt.Sprintf(" %d", s.Status)
		}
		for _, h := range append(s.Headers, s.AnswerHeaders...) {
			text += " {" + h + "}"
		}
		return text
	}
	return fmt.Sprintf("%s %s %s [%s] %s -> %s", c.Kind, strings.Join(c.Hosts, ","), c.Location,
		strings.Join(c.What, ","), side(c.Old), side(c.New))
}

func TestCompare(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, old, new string
		want           []string
	}{
		{"layout, comments and logs",
			"server {\n listen 80; server_name a.x; location / { proxy_pass http://web; } " +
				"access_log off; }",
			"server { # a\n listen 80;\n server_name a.x; location / { proxy_pass  'http://web'; " +
				"} }", nil},
		{"another upstream", "server { listen 80; server_name a.x b.x;\nlocation / { proxy_pass " +
			"http://web; } }",
			"server { listen 80; server_name a.x b.x;\n\nlocation / { proxy_pass http://new; } }",
			[]string{"changed a.x,b.x,default / [upstream] nginx.conf:2 web/ -> nginx.conf:3 new/"}},
		{"another URI below a location only",
			"server { listen 80; location /a/ { proxy_pass http://web; } }",
			"server { listen 80; location /a/ { proxy_pass http://web/b/; } }",
			[]string{"changed default /a/ [uri] nginx.conf:1 web/a/ -> nginx.conf:1 web/b/"}},
		{"a header of the server", "server { listen 80;\nproxy_set_header X 1; location / { " +
			"proxy_pass http://web; } location /own { proxy_set_header Y 1; proxy_pass " +
			"http://web; } }",
			"server { listen 80;\n\nproxy_set_header X 2; location / { proxy_pass http://web; } " +
				"location /own { proxy_set_header Y 1; proxy_pass http://web; } }",
			[]string{"changed default / [headers] nginx.conf:2 web/ {proxy_set_header X 1} -> " +
				"nginx.conf:3 web/ {proxy_set_header X 2}"}},
		{"a header that moves from the server to its only location", "server { listen 80; " +
			"proxy_set_header X 1; location / { proxy_pass http://web; } }",
			"server { listen 80; location / { proxy_set_header X 1; proxy_pass http://web; } }",
			nil},
		{"a header that loses those around it", "server { listen 80; proxy_set_header X 1; " +
			"location / { proxy_pass http://web; } }",
			"server { listen 80; proxy_set_header X 1; location / { proxy_set_header Y 1; " +
				"proxy_pass http://web; } }",
			[]string{"changed default / [headers] nginx.conf:1 web/ {proxy_set_header X 1} -> " +
				"nginx.conf:1 web/ {proxy_set_header Y 1}"}},
		{"a header of answers", "server { listen 80; location / { proxy_pass http://web; } }",
			"server { listen 80; add_header X 1; location / { proxy_pass http://web; } }",
			[]string{"changed default / [answer headers] nginx.conf:1 web/ -> nginx.conf:1 web/ " +
				"{add_header X 1}"}},
		{"fastcgi_param beside proxy_pass", "server { listen 80; location / { proxy_pass " +
			"http://web; } }",
			"fastcgi_param X 1; server { listen 80; location / { proxy_pass http://web; } }", nil},
		{"a new location", "server { listen 80; location / { proxy_pass http://web; } }",
			"server { listen 80; location / { proxy_pass http://web; } location /api { " +
				"proxy_pass http://api; } }",
			[]string{"changed default /api [upstream] nginx.conf:1 web/api -> nginx.conf:1 api/api"}},
		{"a location that goes to the same", "server { listen 80; location / { proxy_pass " +
			"http://web; } }",
			"server { listen 80; location / { proxy_pass http://web; } location /api { " +
				"proxy_pass http://web; } }", nil},
		{"a location goes", "server { listen 80; location / { proxy_pass http://web; } location " +
			"= /x { return 204; } }",
			"server { listen 80; location / { proxy_pass http://web; } }",
			[]string{"changed default = /x [upstream,uri,status] nginx.conf:1 204 -> " +
				"nginx.conf:1 web/x"}},
		{"an expression",
			`server { listen 80; location / { return 404; } location ~ \.(php|inc)$ { proxy_pass http://php; } }`,
			`server { listen 80; location / { return 404; } location ~ \.(php|inc)$ { proxy_pass http://php2; } }`,
			[]string{`changed default ~ \.(php|inc)$ [upstream] nginx.conf:1 php/.php -> nginx.conf:1 php2/.php`}},
		{"an expression in another order",
			`server { listen 80; location ~ ^/a/ { return 201; } location ~ /b$ { return 202; } }`,
			`server { listen 80; location ~ /b$ { return 202; } location ~ ^/a/ { return 201; } }`,
			[]string{"undecided default ~ /b$ [] nginx.conf:1 -> nginx.conf:1",
				"undecided default ~ ^/a/ [] nginx.conf:1 -> nginx.conf:1"}},
		{"an expression that no request was found for",
			`server { listen 80; location ~ ^/(?=b)\w+$ { return 201; } }`,
			`server { listen 80; location ~ ^/(?=b)\w+$ { return 202; } }`,
			[]string{`undecided default ~ ^/(?=b)\w+$ [] nginx.conf:1 -> nginx.conf:1`}},
		{"a key of a map of hosts", "map $host $u { default a;\n x.y b; z.y c; } server { listen " +
			"80; server_name *.y; location / { proxy_pass http://$u; } }",
			"map $host $u { default a;\n x.y b; z.y d; } server { listen 80; server_name *.y; " +
				"location / { proxy_pass http://$u; } }",
			[]string{"changed z.y / [upstream] nginx.conf:2 c/ -> nginx.conf:2 d/"}},
		{"an expression of a map of headers",
			`map $http_user_agent $u { default a; "~*bot(s?)x" b; } server { listen 80; location / { proxy_pass http://$u; } }`,
			`map $http_user_agent $u { default a; "~*bot(s?)x" c; } server { listen 80; location / { proxy_pass http://$u; } }`,
			[]string{"changed default / [upstream] nginx.conf:1 b/ -> nginx.conf:1 c/"}},
		{"the default of a map",
			`map $http_x $u { default a; "1" b; } server { listen 80; location / { proxy_pass http://$u; } }`,
			`map $http_x $u { default c; "1" b; } server { listen 80; location / { proxy_pass http://$u; } }`,
			[]string{"changed default / [upstream] nginx.conf:1 a/ -> nginx.conf:1 c/"}},
		{"a set", `server { listen 80; set $u a; location / { proxy_pass http://$u; } }`,
			`server { listen 80; set $u b; location / { proxy_pass http://$u; } }`,
			[]string{"changed default / [upstream] nginx.conf:1 a/ -> nginx.conf:1 b/"}},
		{"the body of a condition",
			`server { listen 80; location / { if ($arg_v = 2) { proxy_pass http://a; } proxy_pass http://web; } }`,
			`server { listen 80; location / { if ($arg_v = 2) { proxy_pass http://b; } proxy_pass http://web; } }`,
			[]string{"changed default / [upstream] nginx.conf:1 a/?v=2 -> nginx.conf:1 b/?v=2"}},
		{"a condition of a map of cookies",
			`map $cookie_k $k { default 0; yes 1; } server { listen 80; location / { if ($k) { return 201; } proxy_pass http://web; } }`,
			`map $cookie_k $k { default 0; yes 1; } server { listen 80; location / { if ($k) { return 202; } proxy_pass http://web; } }`,
			[]string{"changed default / [status] nginx.conf:1 201 -> nginx.conf:1 202"}},
		{"a condition that no request can be made for",
			`server { listen 80; location / { if ($ssl_protocol = x) { return 201; } proxy_pass http://web; } }`,
			`server { listen 80; location / { if ($ssl_protocol = x) { return 202; } proxy_pass http://web; } }`,
			[]string{"undecided default / [] nginx.conf:1 -> nginx.conf:1"}},
		{"code", `server { listen 80; location / { content_by_lua_block { ngx.say(1) } } location /b { proxy_pass http://web; } }`,
			`server { listen 80; location / { content_by_lua_block { ngx.say(2) } } location /b { proxy_pass http://web; } }`,
			[]string{"undecided default / [] nginx.conf:1 -> nginx.conf:1"}},
		{"the same code",
			`server { listen 80; location / { content_by_lua_block { ngx.say(1) } } location /b { proxy_pass http://web; } }`,
			`server { listen 80; location / { content_by_lua_block { ngx.say(1) } } location /b { proxy_pass http://new; } }`,
			[]string{"changed default /b [upstream] nginx.conf:1 web/b -> nginx.conf:1 new/b"}},
		{"a front controller",
			`server { listen 80; root /srv; location / { try_files $uri @app; } location @app { proxy_pass http://app; } }`,
			`server { listen 80; root /srv; location / { try_files $uri @app; } location @app { proxy_pass http://app2; } }`,
			[]string{"changed default / [upstream] nginx.conf:1 app/ -> nginx.conf:1 app2/",
				"changed default @app [upstream] nginx.conf:1 app/sluice-any -> nginx.conf:1 " +
					"app2/sluice-any"}},
		{"the root of files", `server { listen 80; root /srv; location / { } }`,
			`server { listen 80; root /srv/b; location / { } }`,
			[]string{"changed default / [file] nginx.conf:1 200 -> nginx.conf:1 200"}},
		{"what a rewrite leads to",
			`server { listen 80; location /a { rewrite ^ /b last; } location /b { proxy_pass http://web; } }`,
			`server { listen 80; location /a { rewrite ^ /b last; } location /b { proxy_pass http://new; } }`,
			[]string{"changed default /a [upstream] nginx.conf:1 web/b -> nginx.conf:1 new/b",
				"changed default /b [upstream] nginx.conf:1 web/b -> nginx.conf:1 new/b"}},
		{"a rewrite of the server", `server { listen 80; location / { proxy_pass http://web; } }`,
			`server { listen 80; rewrite ^/old/(.*)$ /new/$1 last; location / { proxy_pass http://web; } }`,
			[]string{"changed default server [uri] nginx.conf:1 web/old/x -> nginx.conf:1 web/new/x"}},
		{"a name goes to another server",
			`server { listen 80; server_name a.x; return 201; } server { listen 80; server_name *.x; return 202; }`,
			`server { listen 80; server_name *.x a.x; return 202; }`,
			[]string{"changed a.x,default server [status] nginx.conf:1 201 -> nginx.conf:1 202"}},
		{"the default server",
			`server { listen 80; server_name a.x; return 201; } server { listen 80; server_name b.x; return 202; }`,
			`server { listen 80; server_name a.x; return 201; } server { listen 80 default_server; server_name b.x; return 202; }`,
			[]string{"changed default server [status] nginx.conf:1 201 -> nginx.conf:1 202"}},
		{"a port", `server { listen 80; server_name a.x; return 201; }`,
			`server { listen 80; listen 81; server_name a.x; return 201; }`,
			[]string{"changed a.x,default server [listen]  -> nginx.conf:1"}},
		{"a unix socket", `server { listen unix:/s; location / { proxy_pass http://a; } }`,
			`server { listen unix:/s; location / { proxy_pass http://b; } }`,
			[]string{"changed default / [upstream] nginx.conf:1 a/ -> nginx.conf:1 b/"}},
		{"an address of its own",
			`server { listen 80; return 201; } server { listen 10.0.0.1:80; return 202; }`,
			`server { listen 80; return 201; } server { listen 10.0.0.1:80; return 203; }`,
			[]string{"changed default server [status] nginx.conf:1 202 -> nginx.conf:1 203"}},
		{"names of expressions",
			`server { listen 80; server_name ~^(?<n>\w+)\.x$; location / { proxy_pass http://web/$n; } }`,
			`server { listen 80; server_name ~^(?<n>\w+)\.x$; location / { proxy_pass http://web/b/$n; } }`,
			[]string{`changed ~^(?<n>\w+)\.x$,default / [uri] nginx.conf:1 web/xx -> nginx.conf:1 web/b/xx`}},
		{"nested locations",
			`server { listen 80; location /a/ { return 404; location ~ \.x$ { proxy_pass http://web; } } }`,
			`server { listen 80; location /a/ { return 404; location ~ \.x$ { proxy_pass http://new; } } }`,
			[]string{`changed default /a/ > ~ \.x$ [upstream] nginx.conf:1 web/a/.x -> nginx.conf:1 new/a/.x`}},
		{"limit_except",
			`server { listen 80; location / { limit_except GET { deny all; } proxy_pass http://web; } }`,
			`server { listen 80; location / { limit_except GET { proxy_pass http://wr; } proxy_pass http://web; } }`,
			[]string{"changed default / [upstream,uri,status] nginx.conf:1 403 -> nginx.conf:1 wr/"}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			wrap := func(text string) map[string]string {
				return map[string]string{"nginx.conf": "http { " + text + " }"}
			}
			got := route.Compare(treeOf(t, wrap(c.old)), treeOf(t, wrap(c.new)), 0)
			var lines []string
			for _, change := range got.Changes {
				lines = append(lines, line(change))
			}
			require.Equal(t, c.want, lines)
			require.Equal(t, len(c.want) == 0, got.Same())
		})
	}
}

// Files that move, and text that moves between files, change nothing.
func TestCompareMovedFiles(t *testing.T) {
	t.Parallel()
	const one = "server { listen 80; server_name a.x; include parts/loc.conf; }\n"
	const loc = "location / { proxy_pass http://web; }\n"
	old := treeOf(t, map[string]string{"nginx.conf": "http { include s/*.conf; }", "s/1.conf": one,
		"parts/loc.conf": loc})
	moved := treeOf(t, map[string]string{"nginx.conf": "http {\n\n" +
		"server { listen 80; server_name a.x; " + loc + " }\n }"})
	require.True(t, route.Compare(old, moved, 0).Same())
	changed := treeOf(t, map[string]string{"nginx.conf": "http { include t/*.conf; }",
		"t/9.conf":       one,
		"parts/loc.conf": "\n" + strings.ReplaceAll(loc, "web", "new")})
	got := route.Compare(old, changed, 0)
	require.Len(t, got.Changes, 1)
	require.Equal(t, "parts/loc.conf:1", got.Changes[0].Old.At)
	require.Equal(t, "parts/loc.conf:2", got.Changes[0].New.At)
}

// The list is bounded; changes over the limit are counted.
func TestCompareLimit(t *testing.T) {
	t.Parallel()
	tree := func(upstream string) *conf.Tree {
		var b strings.Builder
		for i := range 50 {
			fmt.Fprintf(&b, "server { listen 80; server_name h%d.x; location / { proxy_pass "+
				"http://%s; } }\n", i, upstream)
		}
		return treeOf(t, map[string]string{"nginx.conf": "http { " + b.String() + " }"})
	}
	got := route.Compare(tree("a"), tree("b"), 7)
	require.Equal(t, 50, got.Changed)
	require.Len(t, got.Changes, 7)
	require.Equal(t, 102, got.Pairs) // with those of the servers themselves, and the unknown host
}
