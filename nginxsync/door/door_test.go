//go:build linux

package door_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
	"github.com/sluice-deploy/sluice/nginxsync/door"
)

// tasks are the tasks of a test, by name.
type tasks struct {
	mu   sync.Mutex
	by   map[string]door.Task
	fail error
}

func (l *tasks) set(task door.Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[string]door.Task{}
	}
	l.by[task.Name] = task
}

func (l *tasks) get(_ context.Context, name string) (door.Task, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	task, ok := l.by[name]
	switch {
	case l.fail != nil:
		return door.Task{}, l.fail
	case !ok:
		return door.Task{}, fmt.Errorf("task %q: %w", name, door.ErrNotFound)
	}
	return task, nil
}

// live is a task on a VIP.
func live(name, lease, vip string) door.Task {
	return door.Task{Name: name, Lease: lease, VIP: netip.MustParseAddr(vip),
		Versions: map[string]string{"web": "v-" + name}}
}

// rig is a running door.
type rig struct {
	*door.Door
	*tasks
	cfg  door.Config
	stop func()
}

func serves(host string, port int) bool {
	return (port == 80 || port == 443) && (host == "bj.example" ||
		strings.HasSuffix(host, ".bj.example"))
}

// start starts a door that forwards port 80 to port, which the edit may change.
func start(t testing.TB, port int, edit func(*door.Config)) *rig {
	t.Helper()
	r := &rig{tasks: &tasks{}}
	first := testbed.Port(t)
	r.cfg = door.Config{Task: r.get, Serves: serves, Targets: map[int]int{80: port, 443: port},
		First: first, Last: first, State: filepath.Join(t.TempDir(), "ports.json"),
		Shared: "127.0.0.1:0"}
	if edit != nil {
		edit(&r.cfg)
	}
	r.run(t)
	return r
}

func (r *rig) run(t testing.TB) {
	t.Helper()
	d, err := door.Open(context.Background(), r.cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	var running sync.WaitGroup
	over := errors.New("over")
	running.Go(func() {
		if err := d.Run(ctx); !errors.Is(err, over) {
			t.Errorf("Run: %v", err)
		}
	})
	r.Door = d
	r.stop = sync.OnceFunc(func() { cancel(over); running.Wait() })
	t.Cleanup(r.stop)
}

// client asks by the shared port as the task.
func (r *rig) client(task string) *http.Client {
	proxy := &url.URL{Scheme: "http", Host: r.Shared(), User: url.User(task)}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy)},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}
}

func ask(t *testing.T, client *http.Client, url string) (status int, body string) {
	t.Helper()
	response, err := client.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(data)
}

// raw is a connection to the shared port on which a test writes bytes.
func (r *rig) raw(t *testing.T, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	return dial(t, r.Shared(), text)
}

func dial(t *testing.T, addr, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	return conn, bufio.NewReader(conn)
}

// Beginnings of requests, and the field that names task a.
const (
	get  = "GET http://bj.example/ HTTP/1.1\r\nHost: x\r\n"
	post = "POST http://bj.example/ HTTP/1.1\r\nHost: x\r\n"
	user = "Proxy-Authorization: Basic YTo=\r\n"
	end  = "Proxy-Authorization: Basic Z29uZTo=\r\n"
)

// machine is Nginx on all addresses of this machine: its answers show the request as it came.
func machine(t testing.TB, more string) (port int, n *nginx.Server) {
	t.Helper()
	testbed.NeedProgram(t, "nginx", "nginx")
	dir := testbed.Dir(t)
	port = testbed.Port(t)
	text := fmt.Sprintf(`worker_processes 1; error_log %[1]s/error.log info;
pid %[1]s/nginx.pid; daemon off;
events { worker_connections 256; }
http {
	access_log %[1]s/access.log; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen %[2]d%[3]s; default_type text/plain;
		set $seen "$server_addr|$http_host|$request_uri|$http_x_forwarded_for";
		location / { return 200
			"$seen|$http_proxy_authorization|$http_via|$proxy_protocol_addr\n"; } } }
`, dir, port, more)
	main := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(main, []byte(text), 0o600))
	return port, nginx.Start(t, dir, main)
}

func TestForward(t *testing.T) {
	t.Parallel()
	port, _ := machine(t, "")
	r := start(t, port, nil)
	r.set(live("a", "1", "127.61.0.1"))
	r.set(live("b", "1", "127.61.0.2"))
	for task, vip := range map[string]string{"a": "127.61.0.1", "b": "127.61.0.2"} {
		status, body := ask(t, r.client(task), "http://BJ.example./x?y=1")
		require.Equal(t, 200, status)
		require.Equal(t, vip+"|BJ.example.|/x?y=1||||\n", body)
	}
	own, err := r.Port(t.Context(), "a")
	require.NoError(t, err)
	for _, target := range []string{"/", "//two//x", "/a|b^c/%7e?d={e}&&f=%zz;g", "/?", "?q",
		"", "/x/%2F/..%2f"} {
		_, lines := dial(t, fmt.Sprint("127.0.0.1:", own), "GET http://www.bj.example:80"+target+
			" HTTP/1.1\r\nHost: elsewhere.example\r\nX-Forwarded-For: 1.2.3.4\r\n"+
			"Connection: close\r\n\r\n")
		response, err := http.ReadResponse(lines, nil)
		require.NoError(t, err)
		data, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
		require.Equal(t, "127.61.0.1|www.bj.example:80|"+target+"|1.2.3.4|||\n", string(data))
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	untouched, err := net.Listen("tcp", "127.0.0.1:0") // a connection to it would be seen
	require.NoError(t, err)
	defer untouched.Close()
	r := start(t, untouched.Addr().(*net.TCPAddr).Port, nil)
	r.set(live("a", "1", "127.0.0.1"))
	gone := live("gone", "1", "127.0.0.1")
	gone.Ended = time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	r.set(gone)
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"host":     {"GET http://example.org/ HTTP/1.1\r\nHost: bj.example\r\n" + user, 403},
		"connect":  {"CONNECT example.org:443 HTTP/1.1\r\nHost: bj.example\r\n" + user, 403},
		"port":     {"CONNECT bj.example:22 HTTP/1.1\r\nHost: bj.example:22\r\n" + user, 403},
		"address":  {"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n" + user, 403},
		"no_port":  {"CONNECT bj.example HTTP/1.1\r\nHost: x\r\n" + user, 400},
		"IPv6":     {"GET http://[::1]/ HTTP/1.1\r\nHost: x\r\n" + user, 400},
		"suffix":   {"GET http://notbj.example/ HTTP/1.1\r\nHost: x\r\n" + user, 403},
		"scheme":   {"GET https://bj.example/ HTTP/1.1\r\nHost: x\r\n" + user, 400},
		"user":     {"GET http://u@bj.example/ HTTP/1.1\r\nHost: x\r\n" + user, 400},
		"bad_host": {"GET http://bj_%20example/ HTTP/1.1\r\nHost: x\r\n" + user, 400},
		"body": {"CONNECT bj.example:80 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" +
			user, 400},
		"no_name":      {get, 407},
		"no_basic":     {get + "Proxy-Authorization: Bearer a\r\n", 407},
		"unknown":      {get + "Proxy-Authorization: Basic eDo=\r\n", 404},
		"ended":        {get + end, 410},
		"ended_tunnel": {"CONNECT bj.example:443 HTTP/1.1\r\nHost: x\r\n" + end, 410},
		"two_hosts":    {get + "Host: y\r\n" + user, 400},
		"two_lengths":  {post + "Content-Length: 1\r\nContent-Length: 2\r\n" + user, 400},
		"coding":       {post + "Transfer-Encoding: x, chunked\r\n" + user, 501},
		"folded":       {get + "A : b\r\n" + user, 400},
		"large":        {get + "A: " + strings.Repeat("b", 100<<10) + "\r\n" + user, 431},
		"trace":        {"TRACE" + get[3:] + "Max-Forwards: 0\r\n" + user, 405},
		"options":      {"OPTIONS" + get[3:] + "Max-Forwards: 0\r\n" + user, 204},
	} {
		t.Run(name, func(t *testing.T) {
			_, lines := r.raw(t, c.request+"\r\n")
			response, err := http.ReadResponse(lines, nil)
			require.NoError(t, err)
			data, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Equal(t, c.status, response.StatusCode, "%s", data)
			if c.status == 410 {
				require.Contains(t, string(data), "2026-11-30T09:00:00Z")
				require.Contains(t, string(data), "web v-gone")
				require.Equal(t, "no-store", response.Header.Get("Cache-Control"))
			}
		})
	}
	r.mu.Lock()
	r.fail = errors.New("the store is away")
	r.mu.Unlock()
	status, _ := ask(t, r.client("a"), "http://bj.example/")
	require.Equal(t, 503, status)
	listening, err := untouched.(*net.TCPListener).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, listening.Control(func(fd uintptr) {
		_, _, err = syscall.Accept(int(fd))
	}))
	require.ErrorIs(t, err, syscall.EAGAIN, "the door has dialled")
}

// peer is an instance of raw bytes in place of Nginx.
func peer(t *testing.T, f func(net.Conn, *bufio.Reader)) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				f(conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

// The fields between a client and the door do not reach Nginx, and a request of two lengths reaches
// it with one.
func TestFieldsBetween(t *testing.T) {
	t.Parallel()
	heads := make(chan http.Header, 10)
	bodies := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		r.Header.Set("X-Coding", strings.Join(r.TransferEncoding, ","))
		heads <- r.Header
		bodies <- string(data)
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
	}))
	defer server.Close()
	r := start(t, server.Listener.Addr().(*net.TCPAddr).Port, nil)
	r.set(live("a", "1", "127.0.0.1"))
	_, lines := r.raw(t, "POST http://bj.example/ HTTP/1.1\r\nHost: x\r\n"+user+
		"Connection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\n"+
		"Proxy-Connection: keep-alive\r\nX-Kept: 1\r\nTransfer-Encoding: chunked\r\n"+
		"Content-Length: 5\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	response, err := http.ReadResponse(lines, nil)
	require.NoError(t, err)
	require.Equal(t, 200, response.StatusCode)
	require.Empty(t, response.Header.Get("X-Hop"))
	require.True(t, response.Close, "the connection ends after a request of two lengths")
	require.Empty(t, response.Header.Get("Keep-Alive"))
	got := <-heads
	for _, name := range []string{"X-Mine", "Keep-Alive", "Te", "Proxy-Connection",
		"Proxy-Authorization", "Via", "X-Forwarded-For", "Accept-Encoding", "User-Agent"} {
		require.Empty(t, got.Values(name), name)
	}
	require.Equal(t, "1", got.Get("X-Kept"))
	require.Equal(t, "chunked", got.Get("X-Coding"))
	require.Equal(t, "abc", <-bodies)
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	// it counts the bytes until the client ends its direction
	port := peer(t, func(conn net.Conn, lines *bufio.Reader) {
		data, _ := io.ReadAll(lines)
		_, _ = fmt.Fprintf(conn, "%d bytes", len(data))
	})
	r := start(t, port, nil)
	r.set(live("a", "1", "127.0.0.1"))
	const connect = "CONNECT bj.example:443 HTTP/1.1\r\nHost: bj.example:443\r\n" + user + "\r\n"
	t.Run("a_half_that_is_closed_leaves_the_other_open", func(t *testing.T) {
		conn, lines := r.raw(t, connect+"early") // before the door has answered
		response, err := http.ReadResponse(lines, &http.Request{Method: http.MethodConnect})
		require.NoError(t, err)
		require.Equal(t, 200, response.StatusCode)
		_, err = conn.Write(make([]byte, 1<<20))
		require.NoError(t, err)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		data, err := io.ReadAll(lines)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%d bytes", 1<<20+len("early")), string(data))
	})
	t.Run("a_task_that_ends_closes_its_tunnels_and_no_others", func(t *testing.T) {
		r.set(live("b", "1", "127.0.0.1"))
		mine, mineLines := r.raw(t, connect)
		_, otherLines := r.raw(t, strings.Replace(connect, "YTo=", "Yjo=", 1))
		for _, lines := range []*bufio.Reader{mineLines, otherLines} {
			response, err := http.ReadResponse(lines, &http.Request{Method: http.MethodConnect})
			require.NoError(t, err)
			require.Equal(t, 200, response.StatusCode)
		}
		r.set(live("b", "2", "127.0.0.1")) // the VIP is another tenure
		require.NoError(t, r.Check(t.Context()))
		_, err := io.ReadAll(otherLines)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, mine.(*net.TCPConn).CloseWrite())
		data, err := io.ReadAll(mineLines)
		require.NoError(t, err)
		require.Equal(t, "0 bytes", string(data))
	})
	t.Run("a_door_that_stops_closes_tunnels", func(t *testing.T) {
		_, lines := r.raw(t, connect)
		response, err := http.ReadResponse(lines, &http.Request{Method: http.MethodConnect})
		require.NoError(t, err)
		require.Equal(t, 200, response.StatusCode)
		r.stop()
		_, err = io.ReadAll(lines)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

func TestSilentPeers(t *testing.T) {
	t.Parallel()
	port := peer(t, func(conn net.Conn, lines *bufio.Reader) { _, _ = io.Copy(io.Discard, lines) })
	ended := make(chan error, 10)
	r := start(t, port, func(cfg *door.Config) {
		cfg.Tunnel, cfg.HalfClosed, cfg.Header, cfg.Idle = 200*time.Millisecond,
			100*time.Millisecond, 500*time.Millisecond, 300*time.Millisecond
		cfg.Observe = func(op string, _ time.Duration, err error) { ended <- err }
	})
	r.set(live("a", "1", "127.0.0.1"))
	for name, text := range map[string]string{
		"tunnel": "CONNECT bj.example:443 HTTP/1.1\r\nHost: x\r\n" + user + "\r\n",
		"body":   post + user + "Content-Length: 9\r\n\r\nabc",
		"header": "GET http://bj.example/ HTTP/1.1\r\nHost:",
	} {
		t.Run(name, func(t *testing.T) {
			_, lines := r.raw(t, text)
			_, err := io.Copy(io.Discard, lines)
			var timeout net.Error
			require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the door waits on")
			if name != "header" {
				require.Error(t, <-ended)
			}
		})
	}
}

// streams starts a door before the handler, with 2 s for a client to read a part of an answer.
func streams(t *testing.T, handler http.HandlerFunc) (r *rig, ended <-chan error) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	ends := make(chan error, 10)
	r = start(t, server.Listener.Addr().(*net.TCPAddr).Port, func(cfg *door.Config) {
		cfg.Idle = 2 * time.Second
		cfg.Observe = func(_ string, _ time.Duration, err error) { ends <- err }
	})
	r.set(live("a", "1", "127.0.0.1"))
	return r, ends
}

func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	r, ended := streams(t, func(w http.ResponseWriter, _ *http.Request) {
		for part := make([]byte, 64<<10); ; {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	})
	r.raw(t, get+user+"\r\n")
	require.ErrorIs(t, <-ended, http.ErrAbortHandler)
}

// An answer may pause for longer than the client has time to read a part, and end then.
func TestAnswerThatPauses(t *testing.T) {
	t.Parallel()
	r, ended := streams(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, "first")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-time.After(3 * time.Second):
		case <-r.Context().Done():
		}
	})
	status, body := ask(t, r.client("a"), "http://bj.example/")
	require.Equal(t, 200, status)
	require.Equal(t, "first\n", body)
	require.NoError(t, <-ended)
}

// The answer of a long request stops when its task ends.
func TestEndedWhileAnswering(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	r := start(t, server.Listener.Addr().(*net.TCPAddr).Port, nil)
	task := live("a", "1", "127.0.0.1")
	r.set(task)
	response, err := r.client("a").Get("http://bj.example/")
	require.NoError(t, err)
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "first\n", line)
	task.Ended = time.Now()
	r.set(task) // Run looks
	_, err = io.Copy(io.Discard, lines)
	require.Error(t, err)
	status, _ := ask(t, r.client("a"), "http://bj.example/")
	require.Equal(t, 410, status)
}

func TestWebSocketInAbsoluteForm(t *testing.T) {
	t.Parallel()
	port := peer(t, func(conn net.Conn, lines *bufio.Reader) {
		r, err := http.ReadRequest(lines)
		if err != nil || r.Header.Get("Upgrade") != "websocket" {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"+
			"Upgrade: websocket\r\n\r\nhello ")
		_, _ = io.CopyN(conn, lines, 4)
	})
	r := start(t, port, nil)
	r.set(live("a", "1", "127.0.0.1"))
	conn, lines := r.raw(t, "GET http://bj.example/ws HTTP/1.1\r\nHost: x\r\n"+user+
		"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	response, err := http.ReadResponse(lines, nil)
	require.NoError(t, err)
	require.Equal(t, 101, response.StatusCode)
	_, err = io.WriteString(conn, "ping")
	require.NoError(t, err)
	data, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.Equal(t, "hello ping", string(data))
}

func TestNginxLearnsTheClient(t *testing.T) {
	t.Parallel()
	t.Run("X-Forwarded-For", func(t *testing.T) {
		t.Parallel()
		port, _ := machine(t, "")
		r := start(t, port, func(cfg *door.Config) { cfg.Client = door.ForwardedFor })
		r.set(live("a", "1", "127.61.0.3"))
		_, body := ask(t, r.client("a"), "http://bj.example/")
		require.Equal(t, "127.61.0.3|bj.example|/|127.0.0.1|||\n", body)
	})
	t.Run("PROXY_protocol", func(t *testing.T) {
		t.Parallel()
		port, _ := machine(t, " proxy_protocol")
		r := start(t, port, func(cfg *door.Config) { cfg.Client = door.ProxyProtocol })
		r.set(live("a", "1", "127.61.0.4"))
		for range 2 {
			_, body := ask(t, r.client("a"), "http://bj.example/")
			require.Equal(t, "127.61.0.4|bj.example|/||||127.0.0.1\n", body)
		}
		_, lines := r.raw(t, "CONNECT bj.example:80 HTTP/1.1\r\nHost: x\r\n"+user+"\r\n"+
			"GET / HTTP/1.0\r\nHost: bj.example\r\n\r\n")
		data, err := io.ReadAll(lines)
		require.NoError(t, err)
		require.Contains(t, string(data), "|127.0.0.1\n")
	})
}

func TestMagicHost(t *testing.T) {
	t.Parallel()
	r := start(t, 9, func(cfg *door.Config) {
		cfg.CA = []byte("-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n")
		cfg.Now = func() time.Time { return time.Unix(1000, 0) }
	})
	task := live("a", "1", "127.61.0.9")
	task.Expires = time.Unix(1000+90, 0)
	r.set(task)
	client := r.client("a")
	status, body := ask(t, client, "http://sluice.test/")
	require.Equal(t, 200, status)
	for _, want := range []string{"<h1>a</h1>", "web v-a", "127.61.0.9", "1m30s", "/ca.pem"} {
		require.Contains(t, body, want)
	}
	status, body = ask(t, client, "http://sluice.test/ca.pem")
	require.Equal(t, 200, status)
	require.Equal(t, string(r.cfg.CA), body)
	status, body = ask(t, client, "http://sluice.test/ca.crt")
	require.Equal(t, 200, status)
	require.Equal(t, "\x01\x02\x03", body)
	status, _ = ask(t, client, "http://sluice.test/x")
	require.Equal(t, 404, status)
	task.Ended = time.Unix(1010, 0)
	r.set(task)
	status, body = ask(t, client, "http://sluice.test/status.json")
	require.Equal(t, 410, status)
	require.JSONEq(t, `{"task":"a","versions":["web v-a"],"ended":"1970-01-01T00:16:50Z",
		"ca":true}`, body)
	own, err := r.Port(t.Context(), "a") // opened without a proxy
	require.NoError(t, err)
	status, _ = ask(t, http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/", own))
	require.Equal(t, 410, status)
}

// A task keeps its port over restarts, and no other task gets it while it rests.
func TestPorts(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	r := start(t, 9, func(cfg *door.Config) {
		cfg.Shared = ""
		cfg.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
	})
	r.set(live("a", "1", "127.61.0.9"))
	port, err := r.Port(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, r.cfg.First, port)
	_, err = r.Port(t.Context(), "b")
	require.ErrorIs(t, err, door.ErrExhausted)
	task := live("a", "1", "127.61.0.9")
	task.Ended = now
	r.set(task)
	_, err = r.Port(t.Context(), "b")
	require.ErrorIs(t, err, door.ErrExhausted)
	_, known := r.PortOf("b")
	require.False(t, known)
	require.NoError(t, r.Check(t.Context()))
	r.mu.Lock()
	delete(r.by, "a") // the platform has forgotten it
	r.mu.Unlock()
	r.stop()
	r.run(t)
	status, text := ask(t, http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/", port))
	require.Equal(t, 410, status)
	require.Contains(t, text, "The test task a ended at 2026-11-30T00:00:00Z. "+
		"Its last version was web v-a.")
	mu.Lock()
	now = now.Add(7 * 24 * time.Hour)
	mu.Unlock()
	r.set(live("b", "1", "127.61.0.8"))
	got, err := r.Port(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, port, got)
	status, body := ask(t, http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/", port))
	require.Equal(t, 200, status)
	got, known = r.PortOf("b")
	require.True(t, known)
	require.Equal(t, port, got)
	require.Contains(t, body, "<h1>b</h1>")
	cause := errors.New("the caller has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = r.Port(ctx, "c")
	require.ErrorIs(t, err, door.ErrExhausted) // nothing to wait for: no port is free
}

// While a port is unused a door is opened without a question about the tasks of the others.
func TestUnusedPortNeedsNoAnswers(t *testing.T) {
	t.Parallel()
	d, err := door.Open(t.Context(), door.Config{Serves: serves, Targets: map[int]int{80: 80},
		Task: func(_ context.Context, name string) (door.Task, error) {
			t.Errorf("the door asks about %q", name)
			return door.Task{}, door.ErrNotFound
		}, First: 61000, Last: 65000, State: filepath.Join(t.TempDir(), "ports.json")})
	require.NoError(t, err)
	seen := map[int]bool{}
	for n := range 5 {
		port, err := d.Port(t.Context(), fmt.Sprint("t", n))
		require.NoError(t, err)
		seen[port] = true
	}
	require.Len(t, seen, 5)
	d.Close()
	_, err = d.Port(t.Context(), "t0")
	require.ErrorIs(t, err, http.ErrServerClosed)
}

// A port that another program has is passed over.
func TestPortOfAnotherProgram(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	r := start(t, 9, func(cfg *door.Config) {
		cfg.First = l.Addr().(*net.TCPAddr).Port
		cfg.Last = cfg.First
	})
	_, err = r.Port(t.Context(), "a")
	require.ErrorIs(t, err, door.ErrExhausted)
	require.ErrorContains(t, err, "address already in use")
}
