//go:build linux

package cutoff_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// endless is an instance that answers each request with a byte for each beat, until the test ends.
type endless struct {
	addr  netip.AddrPort
	beats chan struct{}
}

// answer writes the bytes of one answer, its first one at once.
func (e *endless) answer(ctx context.Context, w io.Writer, flush func()) {
	for {
		if _, err := io.WriteString(w, "x"); err != nil {
			return
		}
		flush()
		select {
		case <-e.beats:
		case <-ctx.Done():
			return
		}
	}
}

// newEndless starts an instance that speaks the protocol of a cluster: grpc, fastcgi, uwsgi, or HTTP/1.1
// for other names.
func newEndless(t *testing.T, cluster string) *endless {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	e := &endless{netip.MustParseAddrPort(l.Addr().String()), make(chan struct{})}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cluster == "grpc" {
			w.Header().Set("Content-Type", "application/grpc")
		}
		e.answer(t.Context(), w, func() { _ = http.NewResponseController(w).Flush() })
	})
	var server *http.Server
	switch cluster {
	case "fastcgi":
		t.Cleanup(func() { l.Close() })
		go func() {
			_ = fcgi.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				e.answer(t.Context(), w, w.(http.Flusher).Flush)
			}))
		}()
	case "uwsgi":
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go e.uwsgi(t.Context(), conn)
			}
		}()
	default:
		server = &http.Server{Handler: handler, Protocols: &http.Protocols{}}
		server.Protocols.SetHTTP1(true)
		server.Protocols.SetUnencryptedHTTP2(true)
		t.Cleanup(func() { server.Close() })
		go func() { _ = server.Serve(l) }()
	}
	return e
}

// uwsgi answers as a server of the uwsgi protocol does: with the bytes of HTTP.
func (e *endless) uwsgi(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	var head [4]byte // modifier1, bytes of the variables (little-endian), modifier2
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return
	}
	size := int64(head[1]) | int64(head[2])<<8
	if _, err := io.CopyN(io.Discard, conn, size); err != nil {
		return
	}
	fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
	e.answer(ctx, conn, func() {})
}

// open asks for an answer of an instance and reads its first byte.
func (e *endless) open(t *testing.T, client *http.Client, url string) io.ReadCloser {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := client.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	require.Equal(t, http.StatusOK, resp.StatusCode, url)
	read(t, resp.Body)
	return resp.Body
}

func read(t *testing.T, r io.Reader) {
	t.Helper()
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	require.NoError(t, err)
	require.Equal(t, "x", string(b[:]))
}

// Answers of a version that is gone end in each protocol that Nginx speaks with its instance and
// with the client; those of another version go on.
func TestAnswersOfAGoneVersionEnd(t *testing.T) {
	t.Parallel()
	b, d := start(t, time.Millisecond)
	overlays := map[netip.Addr]map[string][]nginxsync.Instance{vipA: {}, vipB: {}}
	instances := map[netip.Addr]map[string]*endless{vipA: {}, vipB: {}}
	one := &http.Client{Transport: &http.Transport{}}
	two := &http.Client{Transport: &http.Transport{Protocols: &http.Protocols{}}}
	two.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(one.CloseIdleConnections)
	t.Cleanup(two.CloseIdleConnections)
	type kind struct {
		client  *http.Client
		port    int
		cluster string
	}
	kinds := []kind{{one, b.port, "http"}, {one, b.port, "fastcgi"}, {one, b.port, "uwsgi"},
		{two, b.http2, "other"}, {two, b.http2, "grpc"}}
	for vip, version := range map[netip.Addr]string{vipA: "v1", vipB: "v2"} {
		for _, k := range kinds {
			e := newEndless(t, k.cluster)
			instances[vip][k.cluster] = e
			overlays[vip][k.cluster] = single(version, version, e.addr)
		}
	}
	put(t, d, overlays)
	var gone, stay []io.ReadCloser
	for _, k := range kinds {
		url := func(vip netip.Addr) string {
			return fmt.Sprintf("http://%s:%d/open/%s", vip, k.port, k.cluster)
		}
		gone = append(gone, instances[vipA][k.cluster].open(t, k.client, url(vipA)))
		stay = append(stay, instances[vipB][k.cluster].open(t, k.client, url(vipB)))
	}
	for _, k := range kinds {
		overlays[vipA][k.cluster] = []nginxsync.Instance{}
	}
	put(t, d, overlays)
	for i, k := range kinds {
		ended := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, gone[i]); close(ended) }()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			require.Fail(t, "the answer goes on", "%s", k.cluster)
		}
	}
	for i, k := range kinds {
		select {
		case instances[vipB][k.cluster].beats <- struct{}{}:
		case <-time.After(time.Minute):
			require.Fail(t, "nobody answers", "%s", k.cluster)
		}
		read(t, stay[i])
	}
}
