//go:build linux

package luadriver_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// Nginx reads the body before it asks an upstream. A push that is verified meanwhile counts.
func TestRequestFollowsAPushWhileItsBodyComes(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	snapshot := func(version string) nginxsync.Snapshot {
		return nginxsync.Snapshot{Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
			vipA: {"a": one("i"+version, version, nginxtest.Backend(t, version))},
			vipB: {"a": one("other", "other", nginxtest.Backend(t, "other"))}}}
	}
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, snapshot("v1")).All()))

	conn, err := net.Dial("tcp", netip.AddrPortFrom(vipA, uint16(b.port)).String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: bj.example.com\r\nContent-Length: 2\r\n"+
		"Expect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = r.ReadString('\n')
	require.NoError(t, err)

	routes := nginxsync.NewRoutes(2, snapshot("v2"))
	require.NoError(t, b.driver.Apply(t.Context(), routes.All()))
	nginxtest.Poll(t, "every worker follows", func() error {
		state, err := b.driver.State(t.Context())
		if err == nil && !state.Verified(routes.Generation) {
			err = fmt.Errorf("%+v", state)
		}
		return err
	})
	for range 8 { // other requests of the worker do not lend it their address
		answer, err := b.get(t.Context(), vipB, "/")
		require.NoError(t, err)
		require.Equal(t, "other", answer.Version)
	}
	_, err = fmt.Fprint(conn, "ok")
	require.NoError(t, err)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "v2", resp.Header.Get("X-Sluice-Version"))
	require.Equal(t, vipA.String(), resp.Header.Get("X-Sluice-Vip"))
}
