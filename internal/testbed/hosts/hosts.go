//go:build linux

// Package hosts makes hosts for tests: network namespaces on a bridge, each with its own address,
// that a test can cut off, partition and stop. They need root.
package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"golang.org/x/sys/unix"
)

// Host is a machine of a test with an address of its own: a network namespace. All hosts of one
// call of Hosts, and the test itself, are on one network. Methods without an error end the test
// when they do not succeed; they belong to one goroutine.
type Host struct {
	Name string
	IP   string

	t      testing.TB
	Dir    string
	parted map[*Host]bool
}

// Start makes n hosts, at most 99, which go with the test. It needs root.
func Start(t testing.TB, n int) []*Host {
	t.Helper()
	testbed.NeedRoot(t, "a network namespace")
	testbed.NeedProgram(t, "ip", "iproute2")
	o := testbed.Own(t)
	claim := func(kind, name string) error { return o.Claim(t, kind, name) }
	network, err := NewNetwork(func(link string) error { return claim("link", link) })
	if err != nil {
		t.Fatal(err)
	}
	hosts := make([]*Host, n)
	addr := network.Prefix.Addr().Next()
	for i := range hosts {
		addr = addr.Next()
		name := fmt.Sprintf("%s-%d", network.Bridge, i+1)
		if err := errors.Join(claim("netns", name), claim("link", name)); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"netns", "add", name},
			{"link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name},
			{"link", "set", name, "master", network.Bridge, "up"},
			{"-n", name, "link", "set", "lo", "up"},
			{"-n", name, "address", "add", addr.String() + "/24", "dev", "eth0"},
			{"-n", name, "link", "set", "eth0", "up"},
		} {
			if err := testbed.Run("", "ip", args...); err != nil {
				t.Fatal(err)
			}
		}
		hosts[i] = &Host{Name: name, IP: addr.String(), t: t, Dir: o.TestDir(t, "host"),
			parted: map[*Host]bool{}}
	}
	return hosts
}

// Run starts a program on the host. It is stopped when the test has ended.
func (h *Host) Run(name string, args ...string) *testbed.Process {
	h.t.Helper()
	return testbed.Start(h.t, testbed.DirIn(h.t, h.Dir, "process"),
		testbed.Command{Name: name + " on " + h.Name, Path: name, Args: args, Netns: h.Name})
}

// Command is a command that runs on the host.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(h.t.Context(), "nsenter",
		append([]string{"--net=" + testbed.NetnsDir + h.Name, "--", name}, args...)...)
	cmd.Env = append(os.Environ(), testbed.MarkKey+"="+h.Dir)
	return cmd
}

// Do calls f on a thread that is on the host. The sockets that f itself opens, not those of
// goroutines that it starts, stay on the host. Looking up a name is a goroutine's work: f has to
// dial addresses. It has to return, and not to end the test.
func (h *Host) Do(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends here
		result <- func() error {
			ns, err := os.Open(testbed.NetnsDir + h.Name)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", h.Name, err)
			}
			return f()
		}()
	}()
	return <-result
}

// Cut pulls the host's cable: no packet leaves or reaches it, the test's included, and no
// connection is closed.
func (h *Host) Cut() { h.t.Helper(); h.ip("link", "set", h.Name, "down") }

// Part loses every packet between the host and others, in both directions. All of them go on to
// reach the test.
func (h *Host) Part(others ...*Host) {
	h.t.Helper()
	for _, other := range others {
		h.parted[other], other.parted[h] = true, true
		h.lose(other)
		other.lose(h)
	}
}

// lose sends packets for the other's address to a station that does not exist.
func (h *Host) lose(other *Host) {
	h.t.Helper()
	h.ip("-n", h.Name, "neighbour", "replace", other.IP, "lladdr", "02:00:00:00:00:00", "nud",
		"permanent", "dev", "eth0")
}

// Heal undoes Cut and Part of the host, and its share in the Part of others.
func (h *Host) Heal() {
	h.t.Helper()
	h.ip("link", "set", h.Name, "up")
	for other := range h.parted {
		h.ip("-n", h.Name, "neighbour", "delete", other.IP, "dev", "eth0")
		h.ip("-n", other.Name, "neighbour", "delete", h.IP, "dev", "eth0")
		delete(other.parted, h)
	}
	clear(h.parted)
}

// Stop takes the power from the host: it is cut off, then everything that runs on it ends, so that
// no connection is closed in the eyes of others. After Heal, its processes may be started again.
func (h *Host) Stop() {
	h.t.Helper()
	h.Cut()
	if err := testbed.KillAll(h.Dir); err != nil {
		h.t.Fatal(err)
	}
}

func (h *Host) ip(args ...string) {
	h.t.Helper()
	if err := testbed.Run("", "ip", args...); err != nil {
		h.t.Fatal(err)
	}
}
