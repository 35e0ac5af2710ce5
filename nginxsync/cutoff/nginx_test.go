//go:build linux

package cutoff_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/hosts"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/drivertest"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// echoes accepts connections that become streams: each returns the bytes that it gets. Other
// requests are answered with the name. The connections end with the test.
func echoes(t *testing.T, l net.Listener, name string) netip.AddrPort {
	var mu sync.Mutex
	var open []net.Conn
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	serve := func(conn net.Conn) {
		defer conn.Close()
		r := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.Header.Get("Upgrade") == "echo" {
				fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n"+
					"Connection: upgrade\r\n\r\n")
				_, _ = io.Copy(conn, r)
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), name)
		}
	}
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			wg.Go(func() { serve(conn) })
		}
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

// stream is an open stream.
type stream struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func openStream(t *testing.T, to netip.AddrPort) *stream {
	t.Helper()
	conn, err := net.Dial("tcp", to.String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	fmt.Fprint(conn, "GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\n"+
		"Connection: upgrade\r\n\r\n")
	s := &stream{t, conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(s.r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	s.lives()
	return s
}

// lives sends a line and reads it again.
func (s *stream) lives() {
	s.t.Helper()
	fmt.Fprintln(s.conn, "x")
	line, err := s.r.ReadString('\n')
	require.NoError(s.t, err)
	require.Equal(s.t, "x\n", line)
}

// ends waits for the end of the stream.
func (s *stream) ends() {
	s.t.Helper()
	require.NoError(s.t, s.conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err := io.Copy(io.Discard, s.r)
	require.False(s.t, errors.Is(err, net.ErrClosed) || isTimeout(err), "%v", err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	return l
}

// changes pushes the overlays of the two VIPs, the addresses of instances of versions, as a change
// of the routes before.
func changes(t *testing.T, d nginxsync.Driver, onA, onB []nginxsync.Instance) {
	t.Helper()
	put(t, d, map[netip.Addr]map[string][]nginxsync.Instance{vipA: {"a": onA}, vipB: {"a": onB}})
}

// put pushes overlays as a change of the routes before.
func put(t *testing.T, d nginxsync.Driver,
	overlays map[netip.Addr]map[string][]nginxsync.Instance) {
	t.Helper()
	before, err := d.Routes(t.Context())
	require.NoError(t, err)
	s := nginxsync.Snapshot{Overlays: overlays}
	next := nginxsync.NewRoutes(before.Generation.Number+1, s)
	delta := nginxsync.NewDelta(before, next)
	delta.Full = before.Generation == nginxsync.Generation{}
	require.NoError(t, d.Apply(t.Context(), delta))
	nginxtest.Poll(t, "the routes are verified", func() error {
		state, err := d.State(t.Context())
		if err == nil && !state.Verified(next.Generation) {
			err = fmt.Errorf("%+v", state)
		}
		return err
	})
}

// Streams of a version that is gone end, also in a worker that a reload has retired. Streams of
// another version go on, and so does a connection of another program to the same instance.
func TestStreamsOfAGoneVersionEnd(t *testing.T) {
	t.Parallel()
	b, d := start(t, time.Millisecond)
	v1, v2 := echoes(t, listen(t, "127.0.0.1:0"), "v1"), echoes(t, listen(t, "127.0.0.1:0"), "v2")
	changes(t, d, single("1", "v1", v1), single("2", "v2", v2))
	onA, onB := netip.AddrPortFrom(vipA, uint16(b.port)), netip.AddrPortFrom(vipB, uint16(b.port))
	old, stays, own := openStream(t, onA), openStream(t, onB), openStream(t, v1)
	first := b.Workers()
	require.NoError(t, syscall.Kill(b.Pid(), syscall.SIGHUP))
	nginxtest.Poll(t, "a new worker is there", func() error {
		state, err := d.State(t.Context())
		if err == nil && (len(state.Workers) != 1 || state.Workers[0].PID == first[0]) {
			err = fmt.Errorf("%+v, was %d", state.Workers, first)
		}
		return err
	})
	fresh := openStream(t, onA)
	old.lives()
	changes(t, d, []nginxsync.Instance{}, single("2", "v2", v2))
	old.ends()
	fresh.ends()
	stays.lives()
	own.lives()
}

// An instance whose machine has lost its power closes nothing: its streams end all the same.
func TestStreamsToASilentMachineEnd(t *testing.T) {
	t.Parallel()
	b, d := start(t, time.Millisecond)
	host := hosts.Start(t, 1)[0]
	var l net.Listener
	require.NoError(t, host.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(host.IP, "0"))
		return err
	}))
	addr := echoes(t, l, "v1")
	other := echoes(t, listen(t, "127.0.0.1:0"), "v2")
	changes(t, d, single("1", "v1", addr), single("2", "v2", other))
	s := openStream(t, netip.AddrPortFrom(vipA, uint16(b.port)))
	host.Cut()
	changes(t, d, single("2", "v2", other), single("2", "v2", other))
	s.ends()
}

// An address changes hands: the process of before has let its port go, and keeps the connections
// that it has. No request goes there any more, and no request is lost.
func TestAddressChangesHands(t *testing.T) {
	t.Parallel()
	b, d := start(t, time.Hour)
	before := listen(t, "127.0.0.1:0")
	addr := echoes(t, before, "old")
	other := echoes(t, listen(t, "127.0.0.1:0"), "other")
	changes(t, d, single("1", "v1", addr), single("2", "v2", other))
	asks := func(vip netip.Addr, want string) {
		t.Helper()
		for i := range 20 {
			// Nginx does not send a POST again that a dead connection has lost.
			resp, err := http.Post(fmt.Sprintf("http://%s:%d/kept", vip, b.port), "text/plain", nil)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, "200 OK "+want, resp.Status+" "+string(body), i)
		}
	}
	asks(vipA, "old")
	asks(vipB, "other")
	stays := openStream(t, netip.AddrPortFrom(vipB, uint16(b.port)))
	require.NoError(t, before.Close())
	var next net.Listener
	testbed.Poll(t, "the port is free", func() (err error) {
		next, err = net.Listen("tcp", addr.String())
		return err
	})
	echoes(t, next, "new")
	changes(t, d, single("1", "v2", addr), single("2", "v2", other))
	asks(vipA, "new")
	asks(vipB, "other")
	stays.lives()
	// It comes back to its last owner within the hour: nothing is ended.
	again := openStream(t, netip.AddrPortFrom(vipA, uint16(b.port)))
	changes(t, d, []nginxsync.Instance{}, single("2", "v2", other))
	changes(t, d, single("1", "v2", addr), single("2", "v2", other))
	again.lives()
}

// The suite of drivers holds with a cutoff around the driver.
func TestDriver(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, func(t *testing.T) *drivertest.Harness {
		b, d := start(t, time.Millisecond)
		return &drivertest.Harness{
			Driver: d, VIPs: [2]netip.Addr{vipA, vipB}, Plain: netip.MustParseAddr("127.0.0.1"),
			Get: b.get, Workers: b.Workers, Methods: true,
			Backend: func(name string) netip.AddrPort { return nginxtest.Backend(t, name) },
		}
	})
}
