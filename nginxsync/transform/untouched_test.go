package transform_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// untouched has, for each directive that docs/transform.md lists as never touched, directives of a
// location with all texts that other rules look for: names of secrets, addresses, variables.
var untouched = map[string][]string{
	"`location`": {`location ~ ^/token/(?<api_key>[0-9]+)$ { return 204; }`},
	"`rewrite`":  {`rewrite ^/t/(.*)$ /token/$1?token_type=recovery_link last;`},
	"`if`": {`if ($http_x_token_kind = "refresh-token-kind") { return 403; }`,
		`if ($request_uri ~* "api_key=(secret)") { return 400; }`},
	"`try_files`":           {`try_files $uri /api_key.html =404;`},
	"`error_page`":          {`error_page 404 = /secret/404.html;`},
	"`return`":              {`return 302 https://10.0.0.9:8443/token?next_token_page=one_and_two;`},
	"`proxy_redirect`":      {`proxy_redirect http://10.0.0.1:8080/ /;`},
	"`proxy_next_upstream`": {`proxy_next_upstream error timeout http_503;`},
	"`internal`":            {`internal;`},
	"`mirror`":              {`mirror /token;`},
	"`auth_request`": {`auth_request /token;`,
		`auth_request_set $access_token_user $upstream_http_x_user;`},
	"`allow`":                   {`allow 10.0.0.0/8;`},
	"`deny`":                    {`deny 10.0.0.1;`},
	"`auth_basic`":              {`auth_basic "secret token";`},
	"`satisfy`":                 {`satisfy any;`},
	"buffers":                   {`proxy_buffers 8 16k;`, `client_body_buffer_size 16k;`},
	"timeouts":                  {`proxy_read_timeout 5s;`},
	"compression":               {`gzip on;`, `gzip_types text/plain;`},
	"MIME types":                {`default_type text/plain;`},
	"body limits":               {`client_max_body_size 1m;`},
	"TLS protocols and ciphers": {`proxy_ssl_protocols TLSv1.2;`, `proxy_ssl_ciphers HIGH;`},
	"`Host`":                    {`proxy_set_header Host token.example;`},
	"`proxy_pass` to an upstream with its URI part": {`proxy_pass http://web/in/?token_type=some_long_value;`, `proxy_pass http://web$request_uri;`, `proxy_pass https://web;`},
}

// Each line of a directive that docs/transform.md lists as never touched stays byte for byte, with
// any arguments.
func TestWhatIsNeverTouched(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/transform.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(text), "## What is never touched\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	for what, lines := range untouched {
		require.Contains(t, section, what)
		for _, line := range lines {
			tree := fmt.Sprintf("http {\n  upstream web { server a; }\n  map $host $token_pool { "+
				"default web; a.x 'web'; }\n  server {\n    listen 80;\n    server_name 10.0.0.1 "+
				"~^(?<token>.+)$;\n"+
				"    location /x/ {  # secret token\n        %s\n    }\n    location /y { "+
				"proxy_pass http://$token_pool; }\n  }\n}\n", line)
			result, err := transform.Transform(parse(t, oneFile(tree)),
				transform.Rules{Listen: map[int]int{80: 8080}, Snippets: short})
			require.NoError(t, err, line)
			got := result.Files["nginx.conf"]
			require.Contains(t, got, "    location /x/ {  # secret token\n        "+line+"\n", line)
			require.Contains(t, got, "  map $host $token_pool { default web; a.x 'web'; }\n", line)
			require.Contains(t, got, "    server_name 10.0.0.1 ~^(?<token>.+)$;\n", line)
			require.Contains(t, got, "location /y { proxy_pass http://$token_pool; }\n", line)
		}
	}
}

// An upstream that is asked over TLS without keepalive is reported.
func TestTLSWithoutKeepaliveIsReported(t *testing.T) {
	t.Parallel()
	const tree = "http { upstream a { server x; } upstream b { server x; keepalive 4; } upstream " +
		"c { server x; }\n" +
		"server { listen 80; location /a { proxy_pass https://a; } location /b { proxy_pass " +
		"https://b; } location /c { proxy_pass http://c; } } }"
	result, err := transform.Transform(parse(t, oneFile(tree)),
		transform.Rules{Listen: map[int]int{80: 8080}, Snippets: short})
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(result.Summary(), "is asked over TLS and has no keepalive"))
}

// JSON stays JSON, with escape=json and without.
func TestLogFormatsOfJSON(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{
		`j '{"a":"$uri"}'`:                    `j "{\"a\":\"$uri\",\"sluice_vip\":\"$sluice_vip\",\"sluice_version\":\"$sluice_version\"}";`,
		`j escape=json '{' '"a":"$uri" ' '}'`: `j escape=json '{' '"a":"$uri" ' ,"sluice_vip":"$sluice_vip","sluice_version":"$sluice_version"};`,
		`j escape=json '{}'`:                  `j escape=json "{\"sluice_vip\":\"$sluice_vip\",\"sluice_version\":\"$sluice_version\"}";`,
		`j '$uri {$args}'`:                    `j '$uri {$args}' ' vip=$sluice_vip version=$sluice_version';`,
	} {
		result, err := transform.Transform(parse(t, oneFile("http { log_format "+format+"; }")),
			transform.Rules{Snippets: short})
		require.NoError(t, err)
		require.Contains(t, result.Files["nginx.conf"], "log_format "+want)
	}
}

// A block of the main context is refused, left out, or kept byte for byte, as the rules say.
func TestBlocksOfTheMainContext(t *testing.T) {
	t.Parallel()
	const stream = "stream {\n    upstream db { server 10.0.0.3:3306; }\n    server { listen " +
		"3306; proxy_pass db; }\n}\n"
	for _, name := range []string{"", "drop", "accept"} {
		rules := transform.Rules{Snippets: short}
		switch name {
		case "drop":
			rules.Drop = []string{"stream"}
		case "accept":
			rules.Accept = []string{"stream"}
		}
		result, err := transform.Transform(parse(t, oneFile(stream+"http { }\n")), rules)
		if name == "" {
			require.ErrorContains(t, err, "stream block: nothing maps its upstreams; name it in "+
				"the rules under drop to leave it out, or under accept")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, name == "accept", strings.Contains(result.Files["nginx.conf"], stream))
	}
}

// Code stays as it is written, where the rules trust it; the driver's own comes in front of it
// where both have to stand in one block.
func TestCodeKeepsItsText(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/transform.md")
	require.NoError(t, err)
	require.Contains(t, string(text), "it comes in front, in the same block; code in quotes")
	const code = " -- the token of 10.0.0.1\n    local api_key = \"secret\"; x = { [[}]] }\n"
	for _, c := range []struct{ http, location, want string }{
		{"", "access_by_lua_block {" + code + "}", "access_by_lua_block {" + code + "}"},
		{"", "content_by_lua 'ngx.say(\"10.0.0.1\")';", "content_by_lua 'ngx.say(\"10.0.0.1\")';"},
		{"init_worker_by_lua_block {" + code + "}", "", "init_worker_by_lua_block {" + code + "}"},
		{"init_by_lua_block {" + code + "}", "", "start()\nend" + code + "}"},
		{"init_by_lua 'x = \"secret\"';", "", "start()\nend\nx = \"secret\"\n}"},
		{"init_by_lua_file /etc/waf.lua;", "", "start()\nend\nreturn package.loaded"},
	} {
		tree := "http {\n" + c.http + "\nserver { listen 80; location / { " + c.location +
			" } } }\n"
		result, err := transform.Transform(parse(t, oneFile(tree)),
			transform.Rules{Listen: map[int]int{80: 8080}, TrustCode: true, Snippets: short})
		require.NoError(t, err, tree)
		require.Contains(t, strings.ReplaceAll(result.Files["nginx.conf"], "\n    end", "\nend"),
			c.want)
	}
}
