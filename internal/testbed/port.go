//go:build linux

package testbed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports are taken below the ones that the kernel and Kubernetes give away by themselves.
const firstPort, lastPort = 15000, 29999

// Port is a port that is free for TCP and UDP on every address, and that no other test binary on
// this machine takes until the test has ended.
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

// holdPort takes a port among the test binaries, and looks whether the rest of the machine leaves
// it free. A listener on an abstract socket is the lock: it leaves no file, goes with its process
// and holds in the network namespace, as the port does.
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

// Endpoint makes a directory for a server of a test and finds a free port on an address of this
// machine; the first of hosts, or 127.0.0.1 without one. addr is host:port.
func Endpoint(t testing.TB, name string, hosts []string) (dir, addr string) {
	t.Helper()
	ip := "127.0.0.1"
	if len(hosts) > 0 {
		ip = hosts[0]
	}
	return Own(t).TestDir(t, name), fmt.Sprintf("%s:%d", ip, Port(t))
}

// FreePort finds a port of the range at random, for a server of a program that is no test. Nothing
// reserves it.
func FreePort() (int, error) {
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if held, err := holdPort(port); err == nil {
			return port, held.Close()
		}
	}
	return 0, fmt.Errorf("no free port in %d to %d", firstPort, lastPort)
}

// FreePorts finds ports for servers that outlive the test. Nothing reserves a port after it
// returns, so the caller listens on each soon.
func FreePorts(count int) ([]string, error) {
	var found []string
	for port := firstPort; port <= lastPort && len(found) < count; port++ {
		held, err := holdPort(port)
		if err != nil {
			continue
		}
		defer held.Close()
		found = append(found, fmt.Sprint(port))
	}
	if len(found) < count {
		return nil, fmt.Errorf("fewer than %d free ports in %d to %d", count, firstPort, lastPort)
	}
	return found, nil
}
