//go:build linux

package luadriver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// Nginx starts with the maps of targets where the tree's own sizes of maps are too small for them.
func TestMapsOfTargetsFitTheSizesOfTheTree(t *testing.T) {
	t.Parallel()
	long := "http://a/" + strings.Repeat("long/", 20)
	b := startTree(t, `
events { }
http {
    map_hash_bucket_size 64;
    map_hash_max_size 128;
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        location / { set $p `+long+`; if ($arg_x) { set $p http://10.0.0.1:81/; } proxy_pass $p; }
    }
}
`, transform.Rules{Pass: map[string]string{"10.0.0.1:81": "a"}})
	b.apply(t, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
		"a": one("s", "1", nginxtest.Backend(t, "one"))}})
	require.Contains(t, b.ask(t, plain, "/").Body, "one /long/")
	require.Contains(t, b.ask(t, plain, "/?x=1").Body, "one /")
}

// Each zone of a limit keeps the key of its own, also where its name is long or differs from
// another's in case only: Nginx knows variables by their names in lower case.
func TestKeysOfZonesStayApart(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long_", 12)
	var zones, locations strings.Builder
	names := []string{"one", "One", "ONE", long + "a", long + "b", strings.ToUpper(long) + "A"}
	for i, name := range names {
		fmt.Fprintf(&zones, "limit_req_zone $arg_k%d zone=%s:64k rate=1000r/s;\n", i, name)
		fmt.Fprintf(&locations, "location /%[1]s/ { limit_req zone=%[1]s burst=1000 nodelay; "+
			"proxy_pass http://a; }\n", name)
	}
	b := startTree(t, "events { }\nhttp {\n"+zones.String()+"upstream a { server 10.9.9.1:80; }\n"+
		"add_header X-Limit \"limit $limit_req_status\" always;\nserver { listen 80;\n"+
		locations.String()+"}\n}\n", transform.Rules{})
	b.apply(t, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
		"a": one("s", "1", nginxtest.Backend(t, "one"))}})
	for i, name := range names {
		for j := range names {
			want := "limit" // the key is empty, so it does not count
			if i == j {
				want = "limit PASSED"
			}
			got := b.answer(t, plain, fmt.Sprintf("/%s/?k%d=x", name, j), "X-None", "")
			require.Equal(t, want, strings.TrimSpace(got.header.Get("X-Limit")),
				"%s, key %d", name, j)
		}
	}
}
