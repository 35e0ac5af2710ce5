//go:build linux

package hosts_test

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/echo"
	"github.com/sluice-deploy/sluice/internal/testbed/hosts"
)

// reaches is nil when a new connection between two hosts is made and used. A nil host is the test's
// own.
func reaches(from, to *hosts.Host) error { return reachesWithin(time.Minute, from, to) }

// cutOff looks for a moment whether no connection is made.
func cutOff(t *testing.T, from, to *hosts.Host) {
	t.Helper()
	require.Error(t, reachesWithin(300*time.Millisecond, from, to))
}

func reachesWithin(timeout time.Duration, from, to *hosts.Host) error {
	dial := func() error {
		conn, err := net.DialTimeout("tcp", to.IP+":7", timeout)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		return echo.Try(conn, "hello")
	}
	if from == nil {
		return dial()
	}
	return from.Do(dial)
}

// echoHosts are hosts with an echo server each.
func echoHosts(t *testing.T, n int) []*hosts.Host {
	t.Helper()
	hosts := hosts.Start(t, n)
	for _, h := range hosts {
		var l net.Listener
		require.NoError(t, h.Do(func() (err error) {
			l, err = net.Listen("tcp", h.IP+":7")
			return
		}))
		t.Cleanup(func() { l.Close() })
		go echo.Serve(l)
	}
	return hosts
}

func healed(t *testing.T, from, to *hosts.Host) {
	t.Helper()
	testbed.Poll(t, "the way is open again", func() error { return reaches(from, to) })
}

func TestAHostThatIsCutOffReachesNobody(t *testing.T) {
	t.Parallel()
	h := echoHosts(t, 2)
	require.NoError(t, reaches(h[0], h[1]))
	require.NoError(t, reaches(h[1], h[0]))
	require.NoError(t, reaches(nil, h[0]))
	h[0].Cut()
	cutOff(t, h[0], h[1])
	cutOff(t, h[1], h[0])
	cutOff(t, nil, h[0])
	require.NoError(t, reaches(nil, h[1]))
	h[0].Heal()
	healed(t, h[0], h[1])
	healed(t, h[1], h[0])
	healed(t, nil, h[0])
}

func TestHostsThatArePartedReachTheRest(t *testing.T) {
	t.Parallel()
	h := echoHosts(t, 3)
	h[0].Part(h[1])
	cutOff(t, h[0], h[1])
	cutOff(t, h[1], h[0])
	for _, way := range [][2]*hosts.Host{{h[0], h[2]}, {h[2], h[0]}, {h[1], h[2]}, {nil, h[0]},
		{nil, h[1]}} {
		require.NoError(t, reaches(way[0], way[1]))
	}
	h[1].Heal()
	healed(t, h[0], h[1])
	healed(t, h[1], h[0])
}

func TestAHostThatStopsClosesNoConnection(t *testing.T) {
	t.Parallel()
	h := hosts.Start(t, 1)[0]
	server := h.Run("rsync", "--daemon", "--no-detach", "--config=/dev/null", "--address="+h.IP,
		"--port=7")
	var conn net.Conn
	testbed.Poll(t, "the server on the host", func() (err error) {
		conn, err = net.Dial("tcp", h.IP+":7")
		return err
	})
	defer conn.Close()
	_, err := conn.Read(make([]byte, 100)) // rsync speaks first
	require.NoError(t, err)
	h.Stop()
	<-server.Done()
	echo.Silent(t, conn)
	h.Heal()
	server.Start()
	out, err := h.Command("ip", "-4", "-o", "address", "show", "dev", "eth0").CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), h.IP)
}
