package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSlowClientsAreCutOff gives little time to clients that leave things half done, and as much as
// it takes to others.
func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	// long enough for a client that a busy machine does not let run at once
	l := limits{header: time.Second, idle: time.Second, body: time.Second, rate: 1}
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/unread":
			return
		case "/long": // longer than all limits, after the body has ended
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
				rw.WriteHeader(http.StatusTeapot)
			case <-time.After(2 * time.Second):
			}
		default:
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(rw, n, err)
		}
	})
	go func() { ended <- l.serve(ctx, listener, handler) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	dial := func(text string) net.Conn {
		c, err := net.Dial("tcp", listener.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = io.WriteString(c, text)
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		return c
	}
	for name, text := range map[string]string{
		"half a header": "GET / HTTP/1.1\r\nHost: x\r\n",
		"half a body":   "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"half a chunk": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n",
		"half a body, unread":     "POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"nothing after a request": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"nothing":                 "",
	} {
		c := dial(text)
		_, err := io.Copy(io.Discard, c)
		require.NoError(t, err, "%s: the server ends the connection", name)
	}
	c := dial("POST /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody")
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.StatusCode, "the body's limit does not end what comes "+
		"after it")
}

// TestASteadyBodyGetsItsTime reads the deadlines that a body sets as it arrives.
func TestASteadyBodyGetsItsTime(t *testing.T) {
	t.Parallel()
	connection := &deadlines{ResponseWriter: httptest.NewRecorder()}
	body := &slowBody{
		ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", 400))),
		limits:     limits{body: time.Minute, rate: 100},
		connection: http.NewResponseController(connection), start: time.Now(),
	}
	body.extend()
	for {
		if _, err := body.Read(make([]byte, 200)); err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
	}
	var after []time.Duration
	for _, at := range connection.set[:3] {
		after = append(after, at.Sub(body.start))
	}
	require.Equal(t, []time.Duration{time.Minute, time.Minute + 2*time.Second, time.Minute +
		4*time.Second}, after)
	require.True(t, connection.set[3].IsZero(), "none after the end")
	require.Len(t, connection.set, 4)
}

// deadlines keeps the deadlines that are set.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}
