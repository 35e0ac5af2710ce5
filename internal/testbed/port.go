//go:build linux

package testbed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports are taken below the ones that the kernel and Kubernetes give away by themselves. Ports that
// nothing reserves have a range of their own, so that no test takes one before its server listens.
const (
	firstShared = 14000
	firstPort   = 15000
	lastPort    = 29999
)

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

// FreePort finds a port at random, for a server of a program that is no test. Nothing reserves it.
func FreePort() (int, error) {
	found, err := freePorts(1)
	if err != nil {
		return 0, err
	}
	return found[0], nil
}

// FreePorts finds ports for servers that outlive the test. Nothing reserves a port after it
// returns, but Port takes none of them.
func FreePorts(count int) ([]string, error) {
	found, err := freePorts(count)
	names := make([]string, len(found))
	for i, port := range found {
		names[i] = strconv.Itoa(port)
	}
	return names, err
}

func freePorts(count int) ([]int, error) {
	var found []int
	for _, n := range rand.Perm(firstPort - firstShared) {
		if len(found) == count {
			break
		}
		held, err := holdPort(firstShared + n)
		if err != nil {
			continue
		}
		defer held.Close()
		found = append(found, firstShared+n)
	}
	if len(found) < count {
		return nil, fmt.Errorf("fewer than %d free ports in %d to %d", count, firstShared,
			firstPort-1)
	}
	return found, nil
}
