//go:build linux

package luadriver_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
)

// scripted is a backend that answers each request with some bytes, and counts the requests. Without
// bytes it resets the connection. It closes the connection first only where the answer is in parts:
// the system may give the port of a connection that the other side closed to a new one at once, and
// refuse that.
func scripted(t *testing.T, answer string, parts bool) (netip.AddrPort, *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	requests := &atomic.Int64{}
	serve := func(conn net.Conn) {
		defer conn.Close()
		if n, _ := conn.Read(make([]byte, 4096)); n == 0 {
			return
		}
		requests.Add(1)
		if answer == "" {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_, _ = conn.Write([]byte(answer))
		if answer != "" && !parts {
			_, _ = io.Copy(io.Discard, conn)
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String()), requests
}

// An instance whose answers Nginx may take to the next one gets as many requests as from plain
// Nginx, whether these answers count as failures or not, and clients get the same answers.
func TestTriesAreThoseOfNginx(t *testing.T) {
	t.Parallel()
	scripts := map[string]string{"reset": "", "short": "HTTP/1.1 200 OK\r\nContent-Le",
		"invalid": "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\nBad\x00: -\r\n\r\n- ",
		"cut":     "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n-"}
	for _, status := range []int{403, 404, 429, 500, 503} {
		scripts[fmt.Sprint(status)] = fmt.Sprintf("HTTP/1.1 %d No\r\nConnection: close\r\n"+
			"Content-Length: 2\r\n\r\n- ", status)
	}
	all := "proxy_next_upstream error timeout invalid_header http_403 http_404 http_429 http_500 " +
		"http_503"
	nexts := map[string]string{"default": "", "off": "proxy_next_upstream off;", "all": all + ";",
		"posts": all + " non_idempotent;", "one": all + "; proxy_next_upstream_tries 1;"}
	limits := map[string]string{"": "", "once": "max_fails=1 fail_timeout=1h",
		"thrice": "max_fails=3 fail_timeout=1h", "never": "max_fails=0"}
	type kind struct {
		path, method string
		requests     *atomic.Int64
	}
	var upstreams []upstream
	var kinds []kind
	for _, script := range slices.Sorted(maps.Keys(scripts)) {
		for _, next := range slices.Sorted(maps.Keys(nexts)) {
			for _, limit := range slices.Sorted(maps.Keys(limits)) {
				answer, location, params := scripts[script], nexts[next], limits[limit]
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					name := strings.ToLower(strings.Join([]string{script, next, limit + "x", method}, "-"))
					servers := instances(t, 2)
					addr, requests := scripted(t, answer, script == "short" || script == "cut")
					servers[1].Addr = addr
					upstreams = append(upstreams, upstream{name: name, servers: servers,
						location: location, params: params})
					kinds = append(kinds, kind{"/" + name + "/", method, requests})
				}
			}
		}
	}
	p := newPair(t, upstreams...)
	step := 7 // through all scripts, ways on, limits and methods
	if soak.Whole() {
		step = 1
	}
	for i := 0; i < len(kinds); i += step {
		k := kinds[i]
		count := func(port int) map[string]int {
			k.requests.Store(0)
			got := map[string]int{}
			for range 8 {
				got[try(t, port, k.method, k.path)]++
			}
			got["asked"] = int(k.requests.Load())
			return got
		}
		require.Equal(t, count(p.plain), count(p.driven), "%s %s", k.method, k.path)
	}
}

// try sends one request and returns the status and the first bytes of its answer.
func try(t *testing.T, port int, method, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method,
		fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	require.NoError(t, err)
	req.Close = true
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var first [2]byte
	n, _ := resp.Body.Read(first[:]) // a body may be cut
	return fmt.Sprint(resp.StatusCode, " ", string(first[:n]))
}
