package viphttp_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

// smallBuffers makes a connection full after some kilobytes.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = tcp.SetWriteBuffer(4096)
	}
	return conn, err
}

// A client that does not read is cut off, and goes on after the last event that it has read.
func TestWatchCutsOffSlowReader(t *testing.T) {
	t.Parallel()
	p, err := vip.ParsePool("p", "10.0.0.1")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	ended := make(chan error, 10)
	handler, err := viphttp.New(viphttp.Config{
		Leases: a, WriteTimeout: 500 * time.Millisecond,
		Observe: func(_ string, _ time.Duration, err error) { ended <- err },
	})
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(handler)
	s.Listener = smallBuffers{s.Listener}
	s.Start()
	t.Cleanup(s.Close)

	slow := slowClient()
	defer slow.CloseIdleConnections()
	resp, err := slow.Get(s.URL + "/watch")
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, 16)
	kind, _ := event(t, lines)
	require.Equal(t, "hello", kind)
	l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T1"}})
	require.NoError(t, err)
	instances := make([]vip.Instance, 200)
	for i := range instances {
		instances[i] = vip.Instance{ID: fmt.Sprint("c", i),
			Addr: netip.AddrPortFrom(mustAddr("192.0.2.1"), uint16(i+1))}
	}
	for range 300 { // megabytes, and far fewer events than the allocator keeps
		_, err := a.Bind(t.Context(), l.ID, instances)
		require.NoError(t, err)
	}
	select {
	case err := <-ended:
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	case <-time.After(time.Minute):
		require.Fail(t, "the client was not cut off")
	}

	last, kinds := "", []string(nil)
	for { // the output that has reached the client, up to the last whole event
		kind, id := event(t, lines)
		if id == "" {
			break
		}
		last, kinds = id, append(kinds, kind)
	}
	require.Equal(t, "allocated", kinds[0])
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/watch", nil)
	require.NoError(t, err)
	req.Header.Set("Last-Event-ID", last)
	resp, err = http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	lines = bufio.NewReader(resp.Body)
	kind, hello := event(t, lines)
	require.Equal(t, []string{"hello", last}, []string{kind, hello})
	_, next := event(t, lines)
	was, err := strconv.ParseUint(last, 10, 64)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(was+1), next)
}

// event reads the next event that is whole; it is "" at the end of the stream.
func event(t *testing.T, lines *bufio.Reader) (kind, id string) {
	t.Helper()
	for {
		line, err := lines.ReadString('\n')
		switch {
		case err != nil:
			return "", ""
		case strings.HasPrefix(line, "event: "):
			kind = strings.TrimSpace(line[len("event: "):])
		case strings.HasPrefix(line, "id: "):
			id = strings.TrimSpace(line[len("id: "):])
		case line == "\n" && id != "":
			return kind, id
		}
	}
}
