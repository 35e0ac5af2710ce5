package testbed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports are taken below those that the kernel and Kubernetes give away by themselves.
const firstPort, lastPort = 15000, 29999

// Port is a port that is free for TCP and UDP on every address, and that no other test binary on this machine takes until the
// test has ended.
func Port(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if held, err := holdPort(port); err == nil {
			t.Cleanup(func() { held.Close() })
			return port
		}
	}
	t.Fatalf("no free port in %d to %d", firstPort, lastPort)
	return 0
}

// holdPort takes a port among the test binaries, and looks whether the rest of the machine leaves it free. A listener on an
// abstract socket is the lock: it leaves no file, goes with its process and holds in the network namespace, as the port does.
func holdPort(port int) (net.Listener, error) {
	held, err := net.Listen("unix", fmt.Sprintf("@sluice-testbed/port/%d", port))
	if err != nil {
		return nil, err
	}
	addr := ":" + strconv.Itoa(port)
	tcp, err := net.Listen("tcp", addr)
	if err == nil {
		tcp.Close()
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", addr); err == nil {
			udp.Close()
		}
	}
	if err != nil {
		held.Close()
		return nil, err
	}
	return held, nil
}
