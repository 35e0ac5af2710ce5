//go:build linux

package luadriver_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// startTree runs an Nginx on the transform of a production tree of one file, whose port is 80.
func startTree(t *testing.T, text string, rules transform.Rules) *bed {
	t.Helper()
	return startFiles(t, fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, rules)
}

func startFiles(t *testing.T, files fstest.MapFS, rules transform.Rules) *bed {
	t.Helper()
	dir := nginxtest.Dir(t)
	b := &bed{port: nginxtest.Port(t)}
	b.cfg = luadriver.SnippetConfig{Socket: filepath.Join(dir, "admin.sock"), Memory: 1 << 20}
	tree, err := conf.Parse(files, "nginx.conf")
	require.NoError(t, err)
	if rules.Listen == nil {
		rules.Listen = map[int]int{}
	}
	rules.Listen[80], rules.TempDir, rules.Snippets = b.port, dir, luadriver.Snippets(b.cfg)
	own := map[string]string{"user": "", "pid": filepath.Join(dir, "nginx.pid"), "daemon": "off",
		"worker_processes": "1"}
	maps.Copy(own, rules.Main)
	rules.Main = own
	if rules.Paths == nil {
		rules.Paths = map[string]string{}
	}
	rules.Paths["/var/log/nginx/"], rules.Paths["/var/cache/nginx/"] = dir+"/", dir+"/"
	rules.Paths["syslog:"] = "off"
	result, err := transform.Transform(tree, rules)
	require.NoError(t, err)
	require.NoError(t, result.WriteTo(filepath.Join(dir, "conf")))
	b.Nginx = nginxtest.Start(t, dir, filepath.Join(dir, "conf", "nginx.conf"))
	b.driver, err = luadriver.New(luadriver.Config{Socket: b.cfg.Socket})
	require.NoError(t, err)
	b.ready(t)
	return b
}

func one(id, version string, addr netip.AddrPort) []nginxsync.Instance {
	return []nginxsync.Instance{{ID: id, Addr: addr, Version: version}}
}

// Caches, limits and logs keep the versions apart.
func TestVersionsDoNotMix(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    limit_req_zone $binary_remote_addr zone=by_client:1m rate=1r/m;
    limit_req_zone $arg_who zone=by_name:1m rate=1r/m;
    limit_conn_zone $server_name zone=by_server:1m;
    log_format short '$request';
    log_format json escape=json '{"r":"$request"}';
    access_log /var/log/nginx/short.log short;
    access_log /var/log/nginx/json.log json;
    access_log /var/log/nginx/combined.log;
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        server_name city.example;
        location /cached { proxy_cache p; proxy_cache_valid 1h; proxy_pass http://a; }
        location /keyed { proxy_cache p; proxy_cache_key $uri; proxy_cache_valid 1h; proxy_pass http://a; }
        location /client { limit_req zone=by_client; proxy_pass http://a; }
        location /name { limit_req zone=by_name; proxy_pass http://a; }
        location /server { limit_conn by_server 1; proxy_pass http://a; }
    }
}
`, transform.Rules{})
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1",
			nginxtest.Backend(t, "one"))},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": one("a2", "v2",
			nginxtest.Backend(t, "two"))}},
	}).All()))
	get := func(vip netip.Addr, path string) string {
		t.Helper()
		a, err := b.get(t.Context(), vip, path)
		require.NoError(t, err)
		first, _, _ := strings.Cut(a.Body, " ")
		return fmt.Sprint(a.Status, " ", first)
	}
	for _, path := range []string{"/cached", "/keyed"} {
		for range 2 { // from the instance, then from the cache
			require.Equal(t, "200 one", get(vipB, path))
			require.Equal(t, "200 two", get(vipA, path))
		}
	}
	for _, path := range []string{"/client", "/name?who=x"} {
		require.Equal(t, "200 one", get(vipB, path))
		require.Equal(t, "503 <html>\r\n<head><title>503", get(vipB, path), "the limit counts")
		require.Equal(t, "200 two", get(vipA, path), "but not on another VIP")
	}
	for range 3 { // an empty key is not counted
		require.Equal(t, "200 one", get(vipB, "/name"))
	}

	ctx, cancel := context.WithCancel(t.Context())
	held := make(chan struct{})
	go func() {
		defer close(held)
		for ctx.Err() == nil {
			_, _ = b.get(ctx, vipB, "/server?hold")
		}
	}()
	nginxtest.Poll(t, "the connection is counted", func() error {
		if got := get(vipB, "/server"); !strings.HasPrefix(got, "503") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	require.Equal(t, "200 two", get(vipA, "/server"))
	cancel()
	<-held

	for name, want := range map[string]string{
		"short.log":    "GET /cached HTTP/1.1 vip=127.58.0.2 version=v2\n",
		"json.log":     `{"r":"GET /cached HTTP/1.1","sluice_vip":"127.58.0.2","sluice_version":"v2"}` + "\n",
		"combined.log": ` vip=127.58.0.2 version=v2` + "\n",
	} {
		nginxtest.Poll(t, name, func() error {
			text, err := os.ReadFile(filepath.Join(b.Prefix, name))
			if err == nil && !strings.Contains(string(text), want) {
				err = fmt.Errorf("want %q in %s", want, text)
			}
			return err
		})
	}
}

// A backend that calls production's host name comes back to the VIP of its own caller, when it is a
// known peer.
func TestVIPHeaderOfTrustedPeers(t *testing.T) {
	t.Parallel()
	trusted := netip.MustParseAddr("127.9.0.9")
	b := startTree(t, `
events { }
http {
    set_real_ip_from 0.0.0.0/0;      # whoever comes may say for whom, but does not become a trusted peer
    real_ip_header X-Forwarded-For;
    upstream a { server 10.9.9.1:80; }
    server { listen 80; location / { proxy_pass http://a; } }
}
`, transform.Rules{TrustVIPHeader: []netip.Prefix{netip.PrefixFrom(trusted, 32)}})
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1",
			nginxtest.Backend(t, "one"))},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": one("a2", "v2",
			nginxtest.Backend(t, "two"))}},
	}).All()))
	for _, c := range []struct {
		from                         netip.Addr
		header, forwarded, want, vip string
	}{
		{plain, "nonsense", "", "one", plain.String()},
		{trusted, vipA.String(), "", "two", vipA.String()},
		{trusted, vipA.String(), "10.0.0.1", "two", vipA.String()},
		{trusted, "", "", "one", plain.String()},
		{plain, vipA.String(), "", "one", plain.String()},
		{plain, vipA.String(), trusted.String(), "one", plain.String()},
	} {
		transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: c.from.AsSlice()}}).DialContext, DisableKeepAlives: true}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			fmt.Sprintf("http://%s:%d/", plain, b.port), nil)
		require.NoError(t, err)
		if c.header != "" {
			req.Header.Set("X-Env-VIP", c.header)
		}
		if c.forwarded != "" {
			req.Header.Set("X-Forwarded-For", c.forwarded)
		}
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.True(t, strings.HasPrefix(string(body), c.want+" ") &&
			strings.HasSuffix(string(body), "vip="+c.vip), "%+v: %s", c, body)
	}
}
