//go:build linux

package proxy_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed/echo"
	"github.com/sluice-deploy/sluice/internal/testbed/proxy"
	"github.com/stretchr/testify/require"
)

func proxied(t *testing.T) (*proxy.Proxy, func() net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go echo.Serve(l)
	p := proxy.Start(t, l.Addr().String())
	return p, func() net.Conn {
		conn, err := net.Dial("tcp", p.Addr)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

func TestAProxyStallsAndGoesOn(t *testing.T) {
	t.Parallel()
	p, dial := proxied(t)
	conn := dial()
	require.NoError(t, echo.Try(conn, "before"))
	p.Stall()
	later := dial()
	for _, c := range []net.Conn{conn, later} {
		_, err := c.Write([]byte("during"))
		require.NoError(t, err)
		echo.Silent(t, c)
	}
	p.Heal()
	for _, c := range []net.Conn{conn, later} {
		got := make([]byte, len("during"))
		_, err := io.ReadFull(c, got)
		require.NoError(t, err)
		require.Equal(t, "during", string(got))
		require.NoError(t, echo.Try(c, "after"))
	}
}

func TestAProxyDelays(t *testing.T) {
	t.Parallel()
	p, dial := proxied(t)
	conn := dial()
	p.Delay(time.Hour)
	p.Delay(100 * time.Millisecond) // in the place of the hour
	began := time.Now()
	require.NoError(t, echo.Try(conn, "there and back"))
	// a slow answer comes later still
	require.GreaterOrEqual(t, time.Since(began), 200*time.Millisecond)
}

func TestAProxyCutsAndRefuses(t *testing.T) {
	t.Parallel()
	p, dial := proxied(t)
	conn := dial()
	require.NoError(t, echo.Try(conn, "before"))
	p.Cut()
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = net.Dial("tcp", p.Addr)
	require.Error(t, err)
	p.Heal()
	require.NoError(t, echo.Try(dial(), "after"))
}

func TestAProxyCutsWithinAnAnswer(t *testing.T) {
	t.Parallel()
	p, dial := proxied(t)
	p.CutAfter(1000)
	conn := dial()
	go func() { _, _ = conn.Write(make([]byte, 10_000)) }()
	data, _ := io.ReadAll(conn) // closed or reset
	require.Len(t, data, 1000)
	p.Heal()
	require.NoError(t, echo.Try(dial(), "after"))
}

func TestAProxyLimits(t *testing.T) {
	t.Parallel()
	p, dial := proxied(t)
	conn := dial()
	p.Limit(100_000)
	began := time.Now()
	require.NoError(t, echo.Try(conn, string(make([]byte, 30_000))))
	require.GreaterOrEqual(t, time.Since(began), 200*time.Millisecond)
	p.Heal()
	require.NoError(t, echo.Try(conn, "after"))
}
