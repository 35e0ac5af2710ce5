package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/edge"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/internal/depcheck"
)

func TestMain(m *testing.M) { servertest.Main(m) }

func TestTaskGetsAVIPInARealNginx(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	require.NoError(t, listener.Close())
	nginx, err := edge.Open(t.Context(), edge.Config{
		Dir: filepath.Join(t.TempDir(), "nginx"), Ports: map[int]int{80: port},
		Tree: fstest.MapFS{"nginx.conf": {Data: []byte(`
error_log /var/log/nginx/error.log;
events {}
http {
    access_log off;
    upstream hello_web { server 10.1.1.1:80; }
    server { listen 80; location / { proxy_pass http://hello_web; } }
}
`)}},
	})
	require.NoError(t, err)
	servertest.Sweep(t, nginx.Dir())
	require.NoError(t, nginx.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, edge.Stop(context.Background(), nginx.Dir())) })
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "v2 on %s", r.Header.Get("X-Env-VIP"))
	}))
	t.Cleanup(service.Close)

	ctx, finish := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan error, 1) // one result
	go func() {
		err := run(ctx, []string{"-socket", nginx.Socket(), "-data", t.TempDir(), "-instance",
			strings.TrimPrefix(service.URL, "http://")}, write)
		_ = write.CloseWithError(err)
		ended <- err
	}()
	line, err := bufio.NewReader(read).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "127.58.1.1 serves hello_web v2 for the task search-redesign; Ctrl-C "+
		"finishes it\n", line)
	status, body := get(t, fmt.Sprintf("http://127.58.1.1:%d/", port))
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "v2 on 127.58.1.1", body)
	finish()
	require.NoError(t, <-ended)
	status, _ = get(t, fmt.Sprintf("http://127.58.1.1:%d/", port))
	require.Equal(t, http.StatusServiceUnavailable, status, "the baseline has no instance")
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

func TestImportsStayLight(t *testing.T) {
	t.Parallel()
	depcheck.Allow(t, "github.com/sluice-deploy/sluice/examples/embed", []string{"go.etcd.io/bbolt",
		"golang.org/x/sys"})
}
