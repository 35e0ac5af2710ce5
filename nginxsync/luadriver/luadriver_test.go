//go:build linux

package luadriver_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/drivertest"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

const production = `
user www-data;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    upstream a {
        server 10.9.9.1:80;
        server 10.9.9.2:80;
        keepalive 4;
    }
    upstream b { server 10.9.9.3:80; }
    upstream hash { hash $arg_key consistent; server 10.9.9.4:80; server 10.9.9.5:80; }
    upstream least { least_conn; server 10.9.9.6:80; server 10.9.9.7:80; }
    upstream slow { server 10.9.9.8:80 slow_start=10h; server 10.9.9.9:80 slow_start=10h; }
    server {
        listen 80 default_server;
        location / { proxy_pass http://a; }
        location /b/ { proxy_pass http://b/; }
        location /hash/ { proxy_pass http://hash; }
        location /least/ { proxy_pass http://least; }
        location /slow/ { proxy_pass http://slow; }
    }
}
`

type bed struct {
	*nginxtest.Nginx
	driver *luadriver.Driver
	cfg    luadriver.SnippetConfig
	port   int
	state  string
	crash  string // the file of WithCrash
}

// start runs an Nginx with two workers on the transform of a production tree.
func start(t testing.TB, memory int) *bed {
	return startWith(t, luadriver.SnippetConfig{Memory: memory})
}

// startWith is start with a configuration, whose paths it sets.
func startWith(t testing.TB, cfg luadriver.SnippetConfig) *bed {
	dir := nginxtest.Dir(t)
	b := &bed{port: nginxtest.Port(t), state: filepath.Join(dir, "routes"), cfg: cfg}
	b.cfg.Socket, b.cfg.StateFile = filepath.Join(dir, "admin.sock"), b.state
	b.crash = filepath.Join(dir, "crash")
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(production)}}, "nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	result, err := transform.Transform(tree, transform.Rules{
		Listen: map[int]int{80: b.port},
		Main: map[string]string{"user": "", "pid": filepath.Join(dir, "nginx.pid"),
			"daemon": "off", "worker_processes": "2"},
		TempDir:  dir,
		Snippets: luadriver.Snippets(luadriver.WithCrash(b.cfg, b.crash)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := result.WriteTo(filepath.Join(dir, "conf")); err != nil {
		t.Fatal(err)
	}
	b.Nginx = nginxtest.Start(t, dir, filepath.Join(dir, "conf", "nginx.conf"))
	if b.driver, err = luadriver.New(luadriver.Config{Socket: b.cfg.Socket,
		Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	b.ready(t)
	return b
}

// ready polls until every worker has reported.
func (b *bed) ready(t testing.TB) {
	t.Helper()
	nginxtest.Poll(t, "workers report", func() error {
		state, err := b.driver.State(t.Context())
		for _, w := range state.Workers {
			if w.PID == 0 {
				err = fmt.Errorf("slot %d is empty", w.Slot)
			}
		}
		if pids := b.Workers(); err == nil && len(pids) != len(state.Workers) {
			err = fmt.Errorf("%d slots, processes %d", len(state.Workers), pids)
		}
		return err
	})
}

func (b *bed) get(ctx context.Context, to netip.Addr, path string) (drivertest.Answer, error) {
	status, header, body, err := nginxtest.Get(ctx, netip.AddrPortFrom(to, uint16(b.port)),
		"bj.example.com", path)
	return drivertest.Answer{Status: status, Body: body, VIP: header.Get("X-Sluice-Vip"),
		Version: header.Get("X-Sluice-Version")}, err
}

var (
	vipA  = netip.MustParseAddr("127.58.0.2")
	vipB  = netip.MustParseAddr("127.58.0.3")
	plain = netip.MustParseAddr("127.0.0.1")
)

func TestDriver(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, func(t *testing.T) *drivertest.Harness {
		b := start(t, 1<<20)
		return &drivertest.Harness{
			Driver: b.driver, VIPs: [2]netip.Addr{vipA, vipB}, Plain: plain, Get: b.get,
			Workers: b.Workers, Methods: true,
			Backend: func(name string) netip.AddrPort { return nginxtest.Backend(t, name) },
		}
	})
}
