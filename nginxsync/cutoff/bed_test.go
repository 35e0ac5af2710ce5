//go:build linux

package cutoff_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/cutoff"
	"github.com/sluice-deploy/sluice/nginxsync/drivertest"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// production has the upstreams of the suite of drivers, a location of streams, and one whose
// connections are kept.
const production = `
user www-data;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    proxy_read_timeout 1h;
    upstream a { server 10.9.9.1:80; keepalive 4; }
    upstream b { server 10.9.9.3:80; }
    upstream hash { hash $arg_key consistent; server 10.9.9.4:80; server 10.9.9.5:80; }
    upstream least { least_conn; server 10.9.9.6:80; server 10.9.9.7:80; }
    upstream slow { server 10.9.9.8:80 slow_start=10h; server 10.9.9.9:80 slow_start=10h; }
    server {
        listen 80 default_server;
        proxy_http_version 1.1;
        location / { proxy_pass http://a; }
        location /b/ { proxy_pass http://b/; }
        location /hash/ { proxy_pass http://hash; }
        location /least/ { proxy_pass http://least; }
        location /slow/ { proxy_pass http://slow; }
        location /kept { proxy_set_header Connection ""; proxy_pass http://a; }
        location /stream {
            proxy_set_header Upgrade echo;
            proxy_set_header Connection upgrade;
            proxy_pass http://a;
        }
        location /open/ {
            proxy_buffering off;
            fastcgi_buffering off;
            uwsgi_buffering off;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param SERVER_PROTOCOL $server_protocol;
            location /open/http { proxy_pass http://http; }
            location /open/fastcgi { fastcgi_pass fastcgi; }
            location /open/uwsgi { uwsgi_pass uwsgi; }
        }
    }
    server {
        listen 81 http2;
        location /open/other { proxy_buffering off; proxy_pass http://other; }
        location /open/grpc { grpc_pass grpc://grpc; }
    }
    upstream http { server 10.9.9.10:80; }
    upstream other { server 10.9.9.14:80; }
    upstream fastcgi { server 10.9.9.11:80; }
    upstream uwsgi { server 10.9.9.12:80; }
    upstream grpc { server 10.9.9.13:80; }
    fastcgi_read_timeout 1h;
    uwsgi_read_timeout 1h;
    grpc_read_timeout 1h;
}
`

var (
	vipA = netip.MustParseAddr("127.58.0.2")
	vipB = netip.MustParseAddr("127.58.0.3")
)

// bed is an Nginx with one worker.
type bed struct {
	*nginxtest.Nginx
	port  int
	http2 int // the port whose connections speak HTTP/2 from their first byte on
}

// start runs an Nginx on the transformed tree, and a driver that ends connections so long after
// their address is gone.
func start(t *testing.T, after time.Duration) (*bed, *cutoff.Driver) {
	t.Helper()
	testbed.NeedRoot(t, "the end of connections")
	dir := nginxtest.Dir(t)
	b := &bed{port: nginxtest.Port(t), http2: nginxtest.Port(t)}
	socket := filepath.Join(dir, "admin.sock")
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(production)}}, "nginx.conf")
	require.NoError(t, err)
	result, err := transform.Transform(tree, transform.Rules{
		Listen: map[int]int{80: b.port, 81: b.http2}, TempDir: dir,
		Main: map[string]string{"user": "", "pid": filepath.Join(dir, "nginx.pid"),
			"daemon": "off", "worker_processes": "1"},
		Snippets: luadriver.Snippets(luadriver.SnippetConfig{Socket: socket, Memory: 1 << 20}),
	})
	require.NoError(t, err)
	require.NoError(t, result.WriteTo(filepath.Join(dir, "conf")))
	b.Nginx = nginxtest.Start(t, dir, filepath.Join(dir, "conf", "nginx.conf"))
	inner, err := luadriver.New(luadriver.Config{Socket: socket, Timeout: time.Minute})
	require.NoError(t, err)
	nginxtest.Poll(t, "the worker reports", func() error {
		state, err := inner.State(t.Context())
		if err == nil && (len(state.Workers) != 1 || state.Workers[0].PID == 0) {
			err = fmt.Errorf("%+v", state)
		}
		return err
	})
	d, err := cutoff.New(cutoff.Config{Driver: inner, After: after})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() { stop(); require.ErrorIs(t, <-ended, context.Canceled) })
	return b, d
}

func (b *bed) get(ctx context.Context, to netip.Addr, path string) (drivertest.Answer, error) {
	status, header, body, err := nginxtest.Get(ctx, netip.AddrPortFrom(to, uint16(b.port)),
		"bj.example.com", path)
	return drivertest.Answer{Status: status, Body: body, VIP: header.Get("X-Sluice-Vip"),
		Version: header.Get("X-Sluice-Version")}, err
}

func single(id, version string, addr netip.AddrPort) []nginxsync.Instance {
	return []nginxsync.Instance{{ID: id, Addr: addr, Version: version}}
}
