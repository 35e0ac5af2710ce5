//go:build linux

package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// probe ends with 0 when the service answers with a status below 500, and with 1 when it does not.
func TestProbe(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil || r.Method != http.MethodGet || r.Host == "" {
			status = http.StatusInternalServerError
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000)) // more than is read
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	closed := httptest.NewServer(nil)
	closed.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // closes each connection without an answer
	require.NoError(t, err)
	defer mute.Close()
	go func() {
		for {
			c, err := mute.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "220 mail.example ESMTP\r\n")
			_ = c.Close()
		}
	}()
	for _, c := range []struct {
		url, says string
		code      int
	}{
		{server.URL + "/200", "", 0}, {server.URL + "/302", "", 0}, {server.URL + "/404", "", 0},
		{"http://localhost:" + port + "/200", "", 0},
		{"http://127.0.0.1:$PORT/200", "", 0}, {"http://127.0.0.1:${PORT}/200", "", 0},
		{"tcp://127.0.0.1:" + port, "", 0},
		{server.URL + "/503", "answers with status 503: unhealthy", 1},
		{closed.URL + "/200", "connect: connection refused: unhealthy", 1},
		{"tcp" + strings.TrimPrefix(closed.URL, "http"), "connect: connection refused", 1},
		{"http://" + mute.Addr().String() + "/", "unhealthy", 1},
		{"http://127.0.0.1:$NOPORT/", "variable \"NOPORT\" is not set", 64},
		{"http://192.0.2.1:80/", "the host must be 127.0.0.1", 64},
		{"http://127.0.0.1/", "want http://127.0.0.1:PORT/PATH", 64},
		{"https://127.0.0.1:1/", "want http://127.0.0.1:PORT/PATH", 64},
		{"tcp://127.0.0.1:1/path", "want http://127.0.0.1:PORT/PATH", 64},
		{"http://127.0.0.1:1/a b", "want http://127.0.0.1:PORT/PATH", 64},
		{"http://127.0.0.1:0/", "want a port from 1 to 65535", 64},
	} {
		cmd := exec.Command(exe, "probe", c.url)
		cmd.Env = append(cmd.Environ(), "PORT="+port)
		out, _ := cmd.CombinedOutput()
		require.Equal(t, c.code, cmd.ProcessState.ExitCode(), "%s: %s", c.url, out)
		require.Contains(t, string(out), c.says, c.url)
	}
	require.Equal(t, 64, run([]string{"probe"}, nil, io.Discard, io.Discard))
}

// An answer over IPv6 counts, too.
func TestProbeOverIPv6(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	require.NoError(t, err)
	l, err := net.Listen("tcp", "[::1]:0")
	require.NoError(t, err)
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.NotFoundHandler()}}
	server.Start()
	defer server.Close()
	out, err := exec.Command(exe, "probe", server.URL+"/").CombinedOutput()
	require.NoError(t, err, "%s", out)
}
