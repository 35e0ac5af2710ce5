package testbed_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// reaches is nil when a new connection between two hosts is made and used. A nil host is the test's own.
func reaches(from, to *testbed.Host) error { return reachesWithin(10*time.Second, from, to) }

// cutOff looks for a moment whether no connection is made.
func cutOff(t *testing.T, from, to *testbed.Host) {
	t.Helper()
	require.Error(t, reachesWithin(300*time.Millisecond, from, to))
}

func reachesWithin(timeout time.Duration, from, to *testbed.Host) error {
	dial := func() error {
		conn, err := net.DialTimeout("tcp", to.IP+":7", timeout)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		return echo(conn, "hello")
	}
	if from == nil {
		return dial()
	}
	return from.Do(dial)
}

func echo(conn net.Conn, text string) error {
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	back := make([]byte, len(text))
	for read := 0; read < len(back); {
		n, err := conn.Read(back[read:])
		if err != nil {
			return err
		}
		read += n
	}
	if string(back) != text {
		return fmt.Errorf("got %q", back)
	}
	return nil
}

// echoes serves whatever connects until the listener is closed.
func echoes(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, 64<<10)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				if _, err := conn.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

// echoHosts are hosts with an echo server each.
func echoHosts(t *testing.T, n int) []*testbed.Host {
	t.Helper()
	hosts := testbed.Hosts(t, n)
	for _, h := range hosts {
		var l net.Listener
		require.NoError(t, h.Do(func() (err error) { l, err = net.Listen("tcp", h.IP+":7"); return }))
		t.Cleanup(func() { l.Close() })
		go echoes(l)
	}
	return hosts
}

func healed(t *testing.T, from, to *testbed.Host) {
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
	for _, way := range [][2]*testbed.Host{{h[0], h[2]}, {h[2], h[0]}, {h[1], h[2]}, {nil, h[0]}, {nil, h[1]}} {
		require.NoError(t, reaches(way[0], way[1]))
	}
	h[1].Heal()
	healed(t, h[0], h[1])
	healed(t, h[1], h[0])
}

func TestAHostThatStopsClosesNoConnection(t *testing.T) {
	t.Parallel()
	h := testbed.Hosts(t, 1)[0]
	server := h.Run("rsync", "--daemon", "--no-detach", "--config=/dev/null", "--address="+h.IP, "--port=7")
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
	silent(t, conn)
	h.Heal()
	server.Start()
	out, err := h.Command("ip", "-4", "-o", "address", "show", "dev", "eth0").CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), h.IP)
}
