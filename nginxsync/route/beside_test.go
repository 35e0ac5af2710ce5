//go:build linux

package route_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

var asksFor = regexp.MustCompile(`: to (\S+), asked for (\S+)$`)

// The requests that Explain names beside the one that is asked are those that a real Nginx makes.
func TestExplainBeside(t *testing.T) {
	t.Parallel()
	dir, port := nginxtest.Dir(t), nginxtest.Port(t)
	made := make(chan string, 64)
	var upstreams strings.Builder
	for _, name := range []string{"one", "two", "three"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			made <- name + " " + r.Method + " " + r.RequestURI
			w.Header().Set("Content-Type", "text/html")
		}))
		t.Cleanup(s.Close)
		fmt.Fprintf(&upstreams, "upstream %s { server %s; }\n", name, s.Listener.Addr())
	}
	text := fmt.Sprintf(`pid %[1]s/pid; daemon off; worker_processes 1; events {}
http {
    access_log off; client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2;
    fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
    %[2]s
    server {
        listen %[3]d;
        mirror /m;
        location / { proxy_pass http://one; }
        location /all/ { auth_request /auth; add_before_body /before?b; add_after_body /n/after; proxy_pass http://one/base/; }
        location /off/ { mirror off; proxy_pass http://one; }
        location /two/ { mirror /n/1; mirror /n/2; proxy_pass http://one; }
        location /none/ { return 204; }
        location = /m { internal; proxy_pass http://two; }
        location = /auth { mirror off; internal; proxy_pass http://two/x; }
        location /before { mirror off; proxy_pass http://three; }
        location /n/ { mirror off; rewrite ^/n/(.*)$ /r/$1 break; proxy_pass http://three$request_uri/$uri; }
    }
}
`, dir, upstreams.String(), port)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(text), 0o600))
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
	require.NoError(t, err)
	nginxtest.Start(t, dir, filepath.Join(dir, "nginx.conf"))
	for _, path := range []string{"/p", "/all/p?q=1", "/off/p", "/two/p?q=%20", "/none/p"} {
		url := fmt.Sprintf("http://a.x:%d%s", port, path)
		answer, err := route.Explain(tree, route.Request{URL: url})
		require.NoError(t, err)
		var want []string
		if answer.Upstream != "" {
			want = []string{answer.Upstream + " GET " + answer.URI}
		}
		for _, b := range answer.Beside {
			m := asksFor.FindStringSubmatch(b.Text)
			require.NotNil(t, m, b.Text)
			want = append(want, m[1]+" GET "+m[2])
		}
		resp, err := http.Get(strings.Replace(url, "a.x", "127.0.0.1", 1))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		var got []string
		for len(got) < len(want) {
			select {
			case r := <-made:
				got = append(got, r)
			case <-time.After(time.Minute):
				t.Fatalf("%s: want %q, got %q", path, want, got)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		require.Equal(t, want, got, path)
	}
	require.Empty(t, made)
}
