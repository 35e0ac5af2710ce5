package route_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

// One configuration for each feature; "?" is undecided. The differential test holds the same to a
// real Nginx.
func TestExplainFeatures(t *testing.T) {
	t.Parallel()
	disk := fstest.MapFS{"srv/a.txt": {}, "srv/d/index.php": {}, "srv/e/x": {}}
	for _, c := range []struct {
		name, server, url, want string
		change                  func(*route.Request)
	}{
		{name: "error_page to a named location after return",
			server: `location / { error_page 418 = @alt; if ($arg_b) { return 418; } proxy_pass http://web; } location @alt { proxy_pass http://alt; }`, url: "/p?b=1", want: "alt /p?b=1"},
		{name: "error_page of a block with recursive_error_pages, then one without",
			server: `error_page 404 /e; root /srv; location / { recursive_error_pages on; error_page 404 /n; return 404; } location /n { return 404; } location /e { proxy_pass http://e; }`,
			url:    "/p", want: "e /e"},
		{name: "error_page of a block without recursive_error_pages, then one with",
			server: `location / { error_page 404 /n; return 404; } location /n { recursive_error_pages on; error_page 404 /e; return 404; } location /e { proxy_pass http://e; }`,
			url:    "/p", want: "404"},
		{name: "error_page of a third block",
			server: `recursive_error_pages on; location / { error_page 404 /n; return 404; } location /n { recursive_error_pages off; error_page 404 /e; return 404; } location /e { error_page 404 /x; return 404; } location /x { proxy_pass http://x; }`,
			url:    "/p", want: "404"},
		{name: "error_page for another error, then one",
			server: `location / { error_page 403 /f; recursive_error_pages on; error_page 404 /n; return 404; } location /n { error_page 500 /f; return 404; } location /f { proxy_pass http://f; }`,
			url:    "/p", want: "404"},
		{name: "an if without a pass after one with a pass of the location's module",
			server: `location / { if ($arg_a) { proxy_pass http://a; } if ($arg_b) { set $x 1; } proxy_pass http://web; }`,
			url:    "/p?a=1&b=1", want: "web /p?a=1&b=1"},
		{name: "an if without a pass after one with a pass of another module",
			server: `location / { if ($arg_a) { fastcgi_pass a; } if ($arg_b) { set $x 1; } proxy_pass http://web; }`,
			url:    "/p?a=1&b=1", want: "500"},
		{name: "error_page over files that are not known",
			server: `root /srv; location / { error_page 404 = @app; } location @app { proxy_pass http://app; }`, url: "/no", want: "?"},
		{name: "error_page over files that are known",
			server: `root /srv; location / { error_page 404 = @app; } location @app { proxy_pass http://app; }`, url: "/no", want: "app /no", change: func(r *route.Request) {
				r.Disk = disk
			}},
		{name: "an index that may lead elsewhere",
			server: `root /srv; index index.php; location / { } location ~ \.php$ { fastcgi_pass php; }`, url: "/d/", want: "?"},
		{name: "an index that is there",
			server: `root /srv; index index.php; location / { } location ~ \.php$ { fastcgi_pass php; }`, url: "/d/", want: "php /d/", change: func(r *route.Request) {
				r.Disk = disk
			}},
		{name: "internal from outside",
			server: `location /priv/ { internal; proxy_pass http://web; }`, url: "/priv/x",
			want: "404"},
		{name: "internal after a rewrite",
			server: `location /priv/ { internal; proxy_pass http://web; } location /q { rewrite ^ /priv/x last; }`, url: "/q",
			want: "web /priv/x unless the upstream sends X-Accel-Redirect"},
		{name: "auth_basic without a file of users",
			server: `auth_basic x; location / { proxy_pass http://web; }`, url: "/", want: "web /"},
		{name: "limit_except with its own pass",
			server: `location / { limit_except GET { proxy_pass http://wr; } proxy_pass http://web; }`, url: "/p", want: "wr /p", change: func(r *route.Request) {
				r.Method = http.MethodPost
			}},
		{name: "limit_except allows HEAD with GET",
			server: `location / { limit_except GET { deny all; } proxy_pass http://web; }`,
			url:    "/p", want: "web /p", change: func(r *route.Request) {
				r.Method = http.MethodHead
			}},
		{name: "access code of the server",
			server: `access_by_lua_block { ngx.exec("@alt") } location / { proxy_pass http://web; }`, url: "/p", want: "?"},
		{name: "rewrite code does not run behind a return",
			server: `rewrite_by_lua_block { ngx.exec("@alt") } location / { return 204; }`,
			url:    "/p", want: "204"},
		{name: "a variable that code sets",
			server: `set_by_lua_block $u { return "x" } location / { if ($u = x) { return 204; } }`,
			url:    "/p", want: "?"},
		{name: "a unix socket with a path",
			server: `location /g/ { proxy_pass http://unix:/s:/base/; }`, url: "/g/p",
			want: "unix:/s /base/p"},
		{name: "http_host has the port",
			server: `location / { if ($http_host = "a.x:8080") { return 204; } return 403; } listen 8080;`, url: "http://a.x:8080/p", want: "204"},
		{name: "http_host of the standard port has none",
			server: `location / { if ($http_host = "a.x") { return 204; } return 403; }`,
			url:    "http://a.x:80/p", want: "204"},
		{name: "cookies of two headers",
			server: `location / { if ($http_cookie = "a=1; b=2") { return 204; } return 403; }`,
			url:    "/", want: "204", change: func(r *route.Request) {
				r.Header = http.Header{"Cookie": {"a=1", "b=2"}}
			}},
		{name: "a header that comes twice",
			server: `location / { if ($http_x = "1") { return 204; } return 403; }`, url: "/",
			want: "?", change: func(r *route.Request) {
				r.Header = http.Header{"X": {"1", "2"}}
			}},
		{name: "raw bytes of the path with an escape in the query",
			server: `location /r/ { proxy_pass http://web/x/; }`, url: "/r/\"\xc3\xa9?q=%41",
			want: "web /x/\"\xc3\xa9?q=%41"},
		{name: "a line break before the end of an expression",
			server: `location ~ ^/a$ { return 204; } location / { return 403; }`, url: "/a%0a",
			want: "204"},
		{name: "an expression with look-around",
			server: `location ~ ^/(?!api)(\w+)\Z { return 302 /$1; } location / { return 403; }`,
			url:    "/site", want: "302 http://a.x/site"},
		{name: "recursion is undecided", server: `location ~ ^/(a(?1)?b) { return 204; }`,
			url: "/ab", want: "?"},
		{name: "try_files without a disk",
			server: `root /srv; location / { try_files $uri @app; } location @app { proxy_pass http://app; }`, url: "/a.txt", want: "?"},
		{name: "try_files with a disk",
			server: `root /srv; location / { try_files $uri @app; } location @app { proxy_pass http://app; }`, url: "/a.txt", want: "file /srv/a.txt", change: func(r *route.Request) {
				r.Disk = disk
			}},
		{name: "a path through a directory that is not there",
			server: `root /srv; location / { rewrite ^/(.*)$ /none/../$1 break; try_files $uri @app; } location @app { proxy_pass http://app; }`, url: "/a.txt", want: "app /none/../a.txt", change: func(r *route.Request) {
				r.Disk = disk
			}},
		{name: "a path through a directory",
			server: `root /srv; location / { rewrite ^/(.*)$ /d/./../$1 break; try_files $uri @app; } location @app { proxy_pass http://app; }`, url: "/a.txt", want: "file /srv/d/./../a.txt", change: func(r *route.Request) {
				r.Disk = disk
			}},
		{name: "an alias of a slash that is a file",
			server: `location ~ ^/x/(.*)/$ { alias /srv/$1; }`, url: "/x/a.txt/", want: "500",
			change: func(r *route.Request) { r.Disk = disk }},
		{name: "try_files falls back with arguments",
			server: `root /srv; location / { try_files $uri $uri/ /index.php?q=$uri; } location = /index.php { proxy_pass http://php; }`, url: "/none", want: "php /index.php?q=/none", change: func(r *route.Request) {
				r.Disk = disk
			}},
		{name: "deny all", server: `location / { deny all; proxy_pass http://web; }`, url: "/",
			want: "403"},
		{name: "allow and deny without a client",
			server: `allow 10.0.0.0/8; deny all; location / { proxy_pass http://web; }`, url: "/",
			want: "?"},
		{name: "an allowed client",
			server: `allow 10.0.0.0/8; deny all; location / { proxy_pass http://web; }`, url: "/",
			want: "web /", change: from("10.9.9.9")},
		{name: "a denied client",
			server: `allow 10.0.0.0/8; deny all; location / { proxy_pass http://web; }`, url: "/",
			want: "403", change: from("11.9.9.9")},
		{name: "a location's own rules hide those around it",
			server: `deny all; location / { allow 10.0.0.1; proxy_pass http://web; }`, url: "/",
			want: "web /", change: from("11.9.9.9")},
		{name: "return comes before deny", server: `deny all; location / { return 204; }`,
			url: "/", want: "204"},
		{name: "an error page of a denied client is denied as well",
			server: `deny all; error_page 403 /no; location / { proxy_pass http://web; }`,
			url:    "/", want: "403"},
		{name: "auth_basic without a password",
			server: `auth_basic x; auth_basic_user_file f; location / { proxy_pass http://web; }`,
			url:    "/", want: "401"},
		{name: "auth_basic with a password",
			server: `auth_basic x; auth_basic_user_file f; location / { proxy_pass http://web; }`,
			url:    "/", want: "web / unless auth_basic does not know the password: 401",
			change: password},
		{name: "satisfy any of an allowed client",
			server: `satisfy any; allow all; auth_basic x; auth_basic_user_file f; location / { proxy_pass http://web; }`,
			url:    "/", want: "web /"},
		{name: "satisfy any of a denied client without a password",
			server: `satisfy any; deny all; auth_basic x; auth_basic_user_file f; location / { proxy_pass http://web; }`,
			url:    "/", want: "401"},
		{name: "satisfy any of a denied client with a password",
			server: `satisfy any; deny all; auth_basic x; auth_basic_user_file f; location / { proxy_pass http://web; }`,
			url:    "/", want: "?", change: password},
		{name: "auth_request",
			server: `location / { auth_request /auth; proxy_pass http://web; }`, url: "/",
			want: "web / unless auth_request /auth answers 401 or 403 beside auth_request /auth: " +
				"to web, asked for /auth"},
		{name: "satisfy any with auth_request",
			server: `location / { satisfy any; deny all; auth_request /a; proxy_pass http://web; }`,
			url:    "/", want: "?"},
		{name: "proxy_intercept_errors",
			server: `error_page 404 500 /e; proxy_intercept_errors on; ` +
				`location / { proxy_pass http://web; }`, url: "/",
			want: "web / unless the upstream answers 404 500 /e: error_page"},
		{name: "an upstream that fails",
			server: `error_page 404 502 /e; location / { proxy_pass http://web; }`, url: "/",
			want: "web / unless the upstream does not answer: error_page 404 502 /e"},
		{name: "X-Accel-Redirect",
			server: `location / { fastcgi_pass web; } location /files/ { internal; alias /srv/; }`,
			url:    "/", want: "web / unless the upstream sends X-Accel-Redirect"},
		{name: "X-Accel-Redirect that is ignored",
			server: `location / { proxy_ignore_headers X-Accel-Redirect; proxy_pass http://web; } ` +
				`location /files/ { internal; alias /srv/; }`, url: "/", want: "web /"},
		{name: "an if without a pass behind one with a pass",
			server: `location / { if ($arg_a) { proxy_pass http://web; } if ($arg_b) { set $x 1; } }`,
			url:    "/?a=1&b=1", want: "500"},
		{name: "the same in a location with a pass",
			server: `location / { if ($arg_a) { proxy_pass http://web; } if ($arg_b) { set $x 1; } proxy_pass http://alt; }`,
			url:    "/?a=1&b=1", want: "alt /?a=1&b=1"},
		{name: "a redirect on a port of its own",
			server: `listen 8080; location / { return 302 /x; }`, url: "http://A.x.:8080/p",
			want: "302 http://a.x:8080/x"},
		{name: "a redirect by the name of the server",
			server: `server_name .B.x a.x; server_name_in_redirect on; location / { rewrite ^ /x permanent; }`,
			url:    "/p", want: "301 http://b.x/x"},
		{name: "a redirect without the port",
			server: `listen 8080; port_in_redirect off; location /d/ { proxy_pass http://web; }`,
			url:    "http://a.x:8080/d?q", want: "301 http://a.x/d/?q"},
		{name: "a redirect that stays a path",
			server: `location / { absolute_redirect off; return 302 /x; }`, url: "/p",
			want: "302 /x"},
		{name: "a redirect to another host", server: `location / { return 302 https://b.x/x; }`,
			url: "/p", want: "302 https://b.x/x"},
		{name: "an internal directory without its slash",
			server: `location /d/ { internal; proxy_pass http://web; }`, url: "/d", want: "404"},
		{name: "an error page for the redirect to a directory",
			server: `location /d/ { error_page 301 = @alt; proxy_pass http://web; } location @alt { proxy_pass http://alt; }`, url: "/d", want: "alt /d"},
		{name: "an error page for a rewrite",
			server: `error_page 302 = @alt; location / { rewrite ^ /x redirect; } location @alt { proxy_pass http://alt; }`, url: "/p?q", want: "alt /p?q"},
		{name: "the name of a server as a variable",
			server: `server_name .B.X; location / { return 302 https://$server_name/; }`,
			url:    "/", want: "302 https://b.x/"},
		{name: "requests beside the one that is asked",
			server: `mirror /m; location / { add_before_body /m; auth_request /auth; proxy_pass http://web; } location = /m { internal; proxy_pass http://side; } location = /auth { internal; return 204; } location /x { mirror off; proxy_pass http://web; }`,
			url:    "/p?q",
			want: "web /p?q unless auth_request /auth answers 401 or 403 " +
				"unless the upstream sends X-Accel-Redirect beside mirror /m: to side, asked for /m?q beside auth_request /auth: 204 beside add_before_body /m: to side, asked for /m"},
		{name: "includes of the page", server: `ssi on; location / { proxy_pass http://web; }`,
			url: "/p", want: "web /p beside ssi: the page names further requests"},
		{name: "a mirror that cannot be told",
			server: `mirror /m; location / { proxy_pass http://web; } location = /m { proxy_pass http://$request_id; }`,
			url:    "/p", want: "web /p beside mirror /m: undecided"},
		{name: "geo", server: `location / { proxy_pass http://$pool; }`, url: "/", want: "near /",
			change: func(r *route.Request) {
				r.Client = netip.MustParseAddr("10.1.2.3")
			}},
		{name: "geo without a client", server: `location / { proxy_pass http://$pool; }`, url: "/",
			want: "?"},
		{name: "split_clients", server: `location / { proxy_pass http://$share; }`, url: "/?s=abc",
			want: "a /?s=abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := "http { geo $pool { default far; 10.0.0.0/8 ten; 10.1.0.0/16 near; " +
				"}\nsplit_clients \"${arg_s}\" $share { 25% a; * b; }\nserver { listen 80;\n" +
				c.server + "\n} }"
			tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
			require.NoError(t, err)
			url := c.url
			if url[0] == '/' {
				url = "http://a.x" + url
			}
			req := route.Request{URL: url}
			if c.change != nil {
				c.change(&req)
			}
			answer, err := route.Explain(tree, req)
			if c.want == "?" {
				require.ErrorIs(t, err, route.ErrUndecided, "%v", answer)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, told(answer), "%v", answer.Steps)
		})
	}
}

func from(client string) func(*route.Request) {
	return func(r *route.Request) { r.Client = netip.MustParseAddr(client) }
}

func password(r *route.Request) { r.Header = http.Header{"Authorization": {"Basic eDp5"}} }

// told is the answer in one line.
func told(a *route.Answer) string {
	switch {
	case a.Upstream != "":
		text := a.Upstream + " " + a.URI
		for _, u := range a.Unless {
			text += " unless " + u.Text
		}
		for _, b := range a.Beside {
			text += " beside " + b.Text
		}
		return text
	case a.File != "":
		return "file " + a.File
	case a.Location != "":
		return strconv.Itoa(a.Status) + " " + a.Location
	}
	return strconv.Itoa(a.Status)
}

// Sockets of IPv6 take no IPv4 unless they say so.
func TestExplainFamilies(t *testing.T) {
	t.Parallel()
	const two = `server { listen [::]:80 default_server; return 302 six; } server { listen 80 default_server; return 302 four; }`
	for _, c := range []struct{ servers, addr, want string }{
		{two, "", "four"},
		{two, "10.0.0.1", "four"},
		{two, "2001:db8::1", "six"},
		{`server { listen [::]:80; return 302 six; }`, "10.0.0.1", ""},
		{`server { listen [::]:80 ipv6only=off; return 302 both; }`, "10.0.0.1", "both"},
		{`server { listen 10.0.0.2:80; return 302 one; }`, "", ""},
	} {
		tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte("http { " + c.servers +
			" }")}}, "nginx.conf")
		require.NoError(t, err)
		req := route.Request{URL: "http://x/"}
		if c.addr != "" {
			req.Addr = netip.MustParseAddr(c.addr)
		}
		answer, err := route.Explain(tree, req)
		if c.want == "" {
			require.ErrorContains(t, err, "no server listens on port 80", c.servers)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, answer.Location)
	}
}

// The code of the Lua driver leads no request elsewhere, so a test tree can be explained.
func TestExplainTestTree(t *testing.T) {
	t.Parallel()
	const tree = "http { rewrite_by_lua_block {\n%s\n} upstream web { server 10.0.0.1; } " +
		"server { listen 80; location / { proxy_pass http://web; } } }"
	for code, want := range map[string]string{
		`package.loaded["sluice.routes"].uri()`: "web /p",
		`ngx.exec("@alt")`:                      "",
	} {
		parsed, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: fmt.Appendf(nil, tree,
			code)}}, "nginx.conf")
		require.NoError(t, err)
		answer, err := route.Explain(parsed, route.Request{URL: "http://x/p"})
		if want == "" {
			require.ErrorIs(t, err, route.ErrUndecided)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, told(answer))
	}
}
