package transform_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// The versions on all VIPs share the connections that an upstream of the driver keeps, so there are
// more of them than in production, but never so many that they take much memory.
func TestKeepaliveGrows(t *testing.T) {
	t.Parallel()
	many := strings.Repeat("upstream c%d { server 10.0.0.1; keepalive 16; }\n", 1000)
	for i := range 1000 {
		many = strings.Replace(many, "c%d", fmt.Sprint("c", i), 1)
	}
	for name, c := range map[string]struct {
		upstreams string
		times     int
		want      string
	}{
		"a small tree":      {"upstream a { server 10.0.0.1; keepalive 4; }", 0, "keepalive 64;"},
		"a large tree":      {many, 0, "keepalive 64;"},
		"as in production":  {"upstream a { server 10.0.0.1; keepalive 4; }", 1, "keepalive 4;"},
		"as the rules say":  {many, 3, "keepalive 48;"},
		"a variable number": {"upstream a { server 10.0.0.1; keepalive x; }", 0, "keepalive x;"},
		"an upstream of its own": {"upstream a..b { server 10.0.0.1; keepalive 4; }", 0,
			"keepalive 4;"},
		"already large": {"upstream a { server 10.0.0.1; keepalive 65000; }", 0,
			"keepalive 65000;"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte("events { }\nhttp {\n" +
				c.upstreams + "\nserver { listen 80; access_log off; }\n}\n")}}, "nginx.conf")
			require.NoError(t, err)
			rules := transform.Rules{Listen: map[int]int{80: 8080}, KeepaliveTimes: c.times,
				Pass: map[string]string{"10.0.0.1": "10.0.0.2"},
				Snippets: transform.Snippets{Upstream: func(transform.Upstream) string {
					return "server 0.0.0.1;"
				}}}
			result, err := transform.Transform(tree, rules)
			require.NoError(t, err)
			text := result.Files["nginx.conf"]
			require.Equal(t, strings.Count(text, "keepalive"), strings.Count(text, c.want), text)
		})
	}
}

// A connection over TLS takes more requests than by default, unless production says how many.
func TestConnectionsOverTLSLast(t *testing.T) {
	t.Parallel()
	const upstreams = "upstream a { server x; keepalive 4; } upstream b { server x; keepalive 4; " +
		"keepalive_requests 7; } upstream c { server x; keepalive 4; } upstream d { server x; }"
	for times, want := range map[int]string{
		0: "keepalive 64;\nkeepalive_requests 10000;", 1: "keepalive 4; }"} {
		result, err := transform.Transform(parse(t, oneFile("http { "+upstreams+" server { listen "+
			"80; location /a { grpc_pass grpcs://a; } location /b { proxy_pass https://b; } "+
			"location /c { proxy_pass http://c; } location /d { proxy_pass https://d; } } }")),
			transform.Rules{Listen: map[int]int{80: 8080}, KeepaliveTimes: times, Snippets: short})
		require.NoError(t, err)
		text := result.Files["nginx.conf"]
		require.Contains(t, text, want)
		require.Contains(t, text, "keepalive_requests 7;")
		require.Equal(t, 2-times, strings.Count(text, "keepalive_requests"), text)
	}
}
