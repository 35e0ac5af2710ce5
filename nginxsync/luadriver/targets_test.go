//go:build linux

package luadriver_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// echoOn is echo on a unix socket.
func echoOn(t *testing.T, path, name string) {
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(path, 0o777)) // the workers are another user's
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, name, r.RequestURI, r.Host)
		})}}
	s.Start()
	t.Cleanup(s.Close)
}

// For targets of every form, the upstream is asked for the same URI under the same Host, and
// redirects come back the same.
func TestTargetsAreFaithful(t *testing.T) {
	t.Parallel()
	one, two := echo(t, "one"), echo(t, "two")
	socket := filepath.Join(nginxtest.Dir(t), "app.sock")
	echoOn(t, socket, "app")
	literal, dead := echo(t, "literal"), "127.0.0.1:1"
	text := strings.NewReplacer("LITERAL", literal.String(), "SOCKET", socket, "DEAD", dead).Replace(`
map $http_x_kind $pool { default one; two two; }
map $http_x_kind $whole { default http://one; two http://two/base; lit http://LITERAL/q/; }
map $http_x_kind $mixed { default one; lit LITERAL; }
split_clients $arg_seed $split { 50% one; * two; }
server {
    listen 80;
    location / { return 404; }
    location /literal/ { proxy_pass http://LITERAL/in/; }
    location /bare/ { proxy_pass http://LITERAL; }
    location /host/ { proxy_set_header Host fixed.example; proxy_pass http://LITERAL/in/; }
    location /own/ { proxy_set_header X-Own 1; proxy_pass http://LITERAL/in/; }
    location /back/ { proxy_redirect off; proxy_pass http://LITERAL/in/; }
    location /default/ { proxy_pass http://LITERAL/in/; proxy_redirect default; }
    location /uri/ { proxy_pass http://one$request_uri; }
    location /args/ { proxy_pass http://one$uri$is_args$args; }
    location /lituri/ { proxy_pass http://LITERAL$request_uri; }
    location /unix/ { proxy_pass http://unix:SOCKET:/base/; }
    location /unixbare/ { proxy_pass http://unix:SOCKET; }
    location /ruled/ { proxy_pass http://$arg_any/q; }
    location /ruledbare/ { proxy_pass http://$arg_any; }
    location ~ ^/re/ { proxy_pass http://$arg_any/r$request_uri; }
    location /pool/ { proxy_pass http://$pool; }
    location /pooluri/ { proxy_pass http://$pool/x/; }
    location /poolall/ { proxy_pass http://$pool$request_uri; }
    location /brace/ { proxy_pass http://${pool}$request_uri; }
    location /whole/ { proxy_pass $whole; }
    location /wholeuri/ { proxy_pass $whole$request_uri; }
    location /mixed/ { proxy_pass http://$mixed/m; }
    location /split/ { proxy_pass http://$split; }
    location /set/ { set $app one; set $port ""; if ($http_x_kind = two) { set $app two; } proxy_pass http://$app; }
    location /parts/ { set $proto http; set $ip 127.0.0; set $number PORT; proxy_pass $proto://$ip.1:$number; }
    location ~ ^/capture/(\d+)$ { set $app two; proxy_pass http://$app/$1/$arg_x; }
    location /named/ { proxy_set_header Host $proxy_host; proxy_set_header X-P ${proxy_port}; add_header X-H "$proxy_host:$proxy_port"; proxy_pass http://LITERAL/in/; }
    location /renamed/ { proxy_redirect http://$proxy_host/in/ /out/; proxy_pass http://LITERAL; }
    location /names/ { proxy_set_header Host $proxy_host; proxy_set_header X-P $proxy_port; proxy_pass http://one; }
    location /unixset/ { set $sock unix:SOCKET; proxy_pass http://$sock:/base/; }
    location /nested/ { proxy_pass http://one; location /nested/p { proxy_pass http://LITERAL; } }
    location /deeper/ { proxy_pass http://LITERAL/in/; location /deeper/p { proxy_pass http://LITERAL/in/re; } }
    location /inif/ { if ($http_x_kind = lit) { proxy_pass http://LITERAL; } if ($http_x_kind = two) { proxy_pass http://two; } proxy_pass http://$pool; }
    location /cased/ { set $cased TwO; if ($http_x_kind = two) { set $cased two; } if ($http_x_kind = lit) { set $cased LITERAL; } proxy_pass http://$cased; }
    location /long/ { set $a_long_name_for_a_scheme http; set $and_a_long_name_for_a_machine LITERAL; proxy_pass $a_long_name_for_a_scheme://$and_a_long_name_for_a_machine/q; }
    location /broken/ { set $app one; rewrite ^/broken/(.*)$ /fixed/$1 break; proxy_pass http://$app; }
}
`)
	_, port, err := net.SplitHostPort(literal.String())
	require.NoError(t, err)
	text = strings.ReplaceAll(text, "PORT", port)
	sample := nginxtest.Sample{Servers: text}
	upstreams := fmt.Sprintf("upstream one { server %s; }\nupstream two { server %s; }\n", one, two)
	baseline := map[string][]nginxsync.Instance{
		"one": {{ID: "1", Addr: one}}, "two": {{ID: "2", Addr: two}},
		"legacy": {{ID: "3", Addr: literal}},
	}
	rules := transform.Rules{Pass: map[string]string{literal.String(): "legacy", "unix:" +
		socket: "unix:" + socket, "$arg_any": "one"}}
	production := faithfulRules(t, sample, upstreams, rules, baseline)
	rules.Snippets = luadriver.Snippets(luadriver.SnippetConfig{Socket: "/replaced"})
	transformed := faithfulRules(t, sample, upstreams, rules, baseline)
	for _, location := range []string{
		"literal", "bare", "host", "own", "back", "default", "uri", "args", "lituri", "unix",
		"unixbare", "ruled", "ruledbare", "re",
		"pool", "pooluri", "poolall", "brace", "whole", "wholeuri", "mixed", "split", "set",
		"parts", "broken", "named", "renamed", "names", "unixset", "nested", "deeper", "inif",
		"cased", "long",
	} {
		for _, kind := range []string{"", "two", "lit"} {
			r := nginxtest.Request{Host: "h.example", Path: "/" +
				location + "/p%20q?any=one&seed=" + kind, Kind: kind}
			require.Equal(t, production(r), transformed(r), "%s %s", location, kind)
			if location != "args" { // a space cannot be asked for as it is
				require.Contains(t, production(r), "200", "%s %s", location, kind)
			}
		}
	}
	r := nginxtest.Request{Host: "h.example", Path: "/capture/12?x=y"}
	require.Equal(t, production(r), transformed(r))
	require.Contains(t, production(r), "/12/y")
}

// Rules by place give the same text another cluster in each file, server and location.
func TestTargetsByPlace(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    server { listen 80; server_name one.example; location / { proxy_pass http://$arg_app; } location /sub/ { proxy_pass http://$arg_app; } }
    server { listen 80; server_name two.example; location / { proxy_pass http://$arg_app; } }
}
`, transform.Rules{
		PassAt: []transform.PassRule{
			{Server: "one.example", Location: "/sub/", Target: "$arg_app", To: "sub"},
			{File: "*.conf", Server: "one.example", To: "first"},
		},
		Pass: map[string]string{"$arg_app": "second"},
	})
	baseline := map[string][]nginxsync.Instance{}
	for _, name := range []string{"sub", "first", "second"} {
		baseline[name] = one(name, "v1", nginxtest.Backend(t, name))
	}
	require.NoError(t, b.driver.Apply(t.Context(),
		nginxsync.NewRoutes(1, nginxsync.Snapshot{Baseline: baseline}).All()))
	for _, c := range []struct{ host, path, want string }{
		{"one.example", "/?app=a", "first /?app=a"},
		{"one.example", "/sub/x?app=a", "sub /sub/x?app=a"},
		{"two.example", "/x?app=a", "second /x?app=a"},
	} {
		_, _, body, err := nginxtest.Get(t.Context(), netip.AddrPortFrom(plain, uint16(b.port)),
			c.host, c.path)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(body, c.want+" "), "%+v: %s", c, body)
	}
}
