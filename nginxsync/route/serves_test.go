package route_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

func TestServes(t *testing.T) {
	t.Parallel()
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(`http {
	server { listen 80 default_server; server_name _ ""; }
	server { listen 10.1.1.2:80; server_name Only.Address; }
	server { server_name bj.x .both.y *.wild.z www.* ~^r(\d)\.q$ ~^(?R)$; }
	server { listen 443 ssl; listen [::]:443 ssl; server_name tls.x; }
	server { listen 9000-9002; server_name range.x; }
	server { listen unix:/run/x; server_name sock.x; }
}`)}}, "nginx.conf")
	require.NoError(t, err)
	r := route.NewRouter(tree)
	for host, port := range map[string]int{"only.address": 80, "bj.x": 80, "both.y": 80,
		"a.both.y": 80, "a.b.wild.z": 80, "www.anything.org": 80, "r7.q": 80, "tls.x": 443,
		"range.x": 9001} {
		require.True(t, r.Serves(host, port), host)
		require.False(t, r.Serves(host, port+5), host)
	}
	for _, host := range []string{"", "_", "wild.z", "xbj.x", "www.", "r77.q", "tls.x", "sock.x",
		"10.1.1.2", "aboth.y"} {
		require.False(t, r.Serves(host, 80), host)
	}
	require.Equal(t, []string{"*.wild.z", ".both.y", "bj.x", "only.address", "www.*", "~^(?R)$",
		`~^r(\d)\.q$`}, r.Hosts(80))
	require.Equal(t, []int{80, 443, 9000, 9002}, r.Ports())
}
