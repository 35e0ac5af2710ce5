package localaddr_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sluice-deploy/sluice/vip/provision/localaddr"
	"github.com/sluice-deploy/sluice/vip/provision/provisiontest"
)

// TestMain runs the tests in a network of their own, in which they are root: routes of this machine
// stay as they are.
func TestMain(m *testing.M) {
	if os.Getenv("OWN_NETWORK") != "" {
		if err := loopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), "OWN_NETWORK=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(),
			Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(),
			Size: 1}}
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "in a network of its own:", err)
		os.Exit(1)
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

func addrs(all ...string) []netip.Addr {
	var parsed []netip.Addr
	for _, a := range all {
		parsed = append(parsed, netip.MustParseAddr(a))
	}
	return parsed
}

// answers says whether a server that listens on any address is reached by addr.
func answers(t *testing.T, addr netip.Addr) bool {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", netip.AddrPortFrom(addr, uint16(l.Addr().(*net.TCPAddr).Port)).String())
	if err != nil {
		require.ErrorIs(t, err, syscall.ENETUNREACH)
		return false
	}
	require.Equal(t, addr.String(), c.RemoteAddr().(*net.TCPAddr).IP.String())
	return c.Close() == nil
}

// One test, one after the other: they share the routes of one network.
func TestLocalRoutes(t *testing.T) {
	all := addrs("10.58.0.1", "10.58.0.2", "fd58::1")
	other := &localaddr.Driver{Protocol: 200}
	_, err := other.Apply(t.Context(), addrs("10.59.0.1"))
	require.NoError(t, err)

	d := &localaddr.Driver{}
	aside, err := d.Apply(t.Context(), all)
	require.NoError(t, err)
	require.Empty(t, aside)
	for _, a := range all {
		require.True(t, answers(t, a), "%s", a)
	}
	aside, err = (&localaddr.Driver{}).Apply(t.Context(), append(addrs("10.58.0.2", "10.58.0.3"),
		addrs("10.59.0.1")...))
	require.NoError(t, err, "another process takes over")
	require.Len(t, aside, 1)
	require.ErrorIs(t, aside[netip.MustParseAddr("10.59.0.1")], syscall.EEXIST,
		"it is another driver's")
	for addr, want := range map[string]bool{"10.58.0.1": false, "10.58.0.2": true,
		"10.58.0.3": true, "fd58::1": false, "10.59.0.1": true} {
		require.Equal(t, want, answers(t, netip.MustParseAddr(addr)), addr)
	}
	_, err = d.Apply(t.Context(), nil)
	require.NoError(t, err)
	require.False(t, answers(t, netip.MustParseAddr("10.58.0.2")))
	require.True(t, answers(t, netip.MustParseAddr("10.59.0.1")), "other routes stay")

	var many []netip.Addr
	for a := netip.MustParseAddr("10.60.0.1"); len(many) < 2000; a = a.Next() {
		many = append(many, a)
	}
	aside, err = d.Apply(t.Context(), many)
	require.NoError(t, err)
	require.Empty(t, aside)
	require.True(t, answers(t, many[1999]))
	_, err = (&localaddr.Driver{Interface: "no-such"}).Apply(t.Context(), nil)
	require.ErrorContains(t, err, "interface no-such")
	_, err = (&localaddr.Driver{Protocol: 2}).Apply(t.Context(), nil)
	require.ErrorContains(t, err, "protocol 2: want 5 to 255")

	// an address that the machine has by itself is foreign: it is set aside, and stays
	aside, err = d.Apply(t.Context(), addrs("10.58.0.1", "127.0.0.1"))
	require.NoError(t, err)
	require.ErrorIs(t, aside[netip.MustParseAddr("127.0.0.1")], syscall.EEXIST)
	_, err = d.Apply(t.Context(), nil)
	require.NoError(t, err)
	require.True(t, answers(t, netip.MustParseAddr("127.0.0.1")), "the kernel's routes stay")
}

func TestDriver(t *testing.T) {
	provisiontest.Run(t, func(t *testing.T) provisiontest.Harness {
		d := &localaddr.Driver{Protocol: 201}
		t.Cleanup(func() {
			_, err := d.Apply(context.Background(), nil)
			require.NoError(t, err)
		})
		return provisiontest.Harness{
			Driver: d,
			Announced: func(t *testing.T) (announced []netip.Addr) {
				for _, addr := range provisiontest.Addrs() {
					if answers(t, addr) {
						announced = append(announced, addr)
					}
				}
				return announced
			},
		}
	})
}
