//go:build linux

package luadriver_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// pair is a tree on two Nginx: plain, and transformed with the driver. Both have the same servers in
// the same order.
type pair struct {
	plain, driven int // ports
	bed           *bed
}

// upstream is one upstream of a pair, which answers on /name/.
type upstream struct {
	name, directives, location string
	servers                    []nginxsync.Instance // by the order of their ids
	params                     string               // of each server line
}

// newPair starts a pair of one worker each.
func newPair(t *testing.T, upstreams ...upstream) *pair {
	t.Helper()
	return pairOf(t, 1, upstreams...)
}

// pairOf starts a pair of so many workers each, which name themselves in X-Worker.
func pairOf(t *testing.T, workers int, upstreams ...upstream) *pair {
	t.Helper()
	var blocks, locations strings.Builder
	baseline := map[string][]nginxsync.Instance{}
	for _, u := range upstreams {
		fmt.Fprintf(&blocks, "upstream %s {\n%s\n", u.name, u.directives)
		for _, in := range u.servers {
			params := u.params
			if in.Backup {
				params += " backup"
			}
			fmt.Fprintf(&blocks, "server %s weight=%d %s;\n", in.Addr, max(in.Weight, 1), params)
		}
		fmt.Fprintf(&blocks, "}\n")
		fmt.Fprintf(&locations, "location /%s/ { proxy_pass http://%s; %s }\n", u.name, u.name,
			u.location)
		baseline[u.name] = u.servers
	}
	tree := "events { }\nhttp {\nset_real_ip_from 127.0.0.0/8;\nreal_ip_header X-Client;\n" +
		"add_header X-Worker $pid always;\n" + blocks.String() + "server { listen %d reuseport;\n" +
		locations.String() + "}\n}\n"

	dir := nginxtest.Dir(t)
	p := &pair{plain: nginxtest.Port(t)}
	main := fmt.Sprintf("pid %s;\ndaemon off;\nworker_processes %d;\n", filepath.Join(dir, "pid"),
		workers) +
		strings.Replace(fmt.Sprintf(tree, p.plain), "http {",
			fmt.Sprintf("http {\naccess_log off;\n"+
				"client_body_temp_path %[1]s/1;\nproxy_temp_path %[1]s/2;\nfastcgi_temp_path "+
				"%[1]s/3;\n"+
				"uwsgi_temp_path %[1]s/4;\nscgi_temp_path %[1]s/5;", dir), 1)
	require.NoError(t, (&transform.Result{Main: "nginx.conf",
		Files: map[string]string{"nginx.conf": main}}).WriteTo(filepath.Join(dir, "conf")))
	nginxtest.Start(t, dir, filepath.Join(dir, "conf", "nginx.conf"))

	p.bed = startTree(t, fmt.Sprintf(tree, 80), transform.Rules{
		Main: map[string]string{"worker_processes": fmt.Sprint(workers)}})
	p.driven = p.bed.port
	require.NoError(t, p.bed.driver.Apply(t.Context(), nginxsync.NewRoutes(1,
		nginxsync.Snapshot{Baseline: baseline}).All()))
	return p
}

// ask sends one request on a connection of its own and returns the status and the first word of the
// body.
func ask(t *testing.T, port int, method, path, client string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method,
		fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	require.NoError(t, err)
	req.Header.Set("X-Client", client)
	req.Close = true
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(body), " ")
	return resp.StatusCode, first
}

// instances are n backends, named by their ids.
func instances(t *testing.T, n int) []nginxsync.Instance {
	t.Helper()
	var list []nginxsync.Instance
	for i := range n {
		id := fmt.Sprintf("i%02d", i)
		list = append(list, nginxsync.Instance{ID: id, Addr: nginxtest.Backend(t, id),
			Version: "v"})
	}
	return list
}

// broken is a listener that takes a request and gives no answer: it resets the connection, or holds
// it.
func broken(t *testing.T, hold bool) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { close(done); l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if hold {
					<-done
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_ = conn.(*net.TCPConn).SetLinger(0)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}
