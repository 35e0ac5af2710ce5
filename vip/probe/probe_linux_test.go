//go:build linux

package probe_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/probe"
)

var (
	used   = netip.MustParseAddr("10.58.0.7")
	unused = netip.MustParseAddr("10.58.0.8")
)

// TestProbes asks on a link of its own, with a host at 10.58.0.7 at the other end, which another
// network has.
func TestProbes(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // a started process ends with the thread that started it
	defer runtime.UnlockOSThread()
	if os.Getenv("OWN_NETWORK") == "" {
		inOwnNetwork(t)
		return
	}
	other := exec.Command("sleep", "600")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET,
		Pdeathsig: syscall.SIGKILL}
	require.NoError(t, other.Start())
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	pid := strconv.Itoa(other.Process.Pid)
	for _, args := range [][]string{
		{"ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", pid},
		{"ip", "addr", "add", "10.58.0.1/24", "dev", "here"}, {"ip", "link", "set", "here", "up"},
		{"nsenter", "-t", pid, "-n", "ip", "addr", "add", "10.58.0.7/24", "dev", "there"},
		{"nsenter", "-t", pid, "-n", "ip", "link", "set", "there", "up"},
		{"nsenter", "-t", pid, "-n", "ip", "addr", "add", "fd58::7/64", "dev", "there", "nodad"},
		{"ip", "addr", "add", "fe80::58/64", "dev", "here", "nodad"},
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
	}
	arp := probe.ARP{Interface: "here", Timeout: 30 * time.Second}
	tcp := probe.TCP{Ports: []uint16{80, 443}, Timeout: 30 * time.Second}
	for name, ask := range map[string]func(context.Context, netip.Addr) (bool, error){
		"arp": arp.InUse, "tcp": tcp.InUse,
	} {
		inUse, err := ask(t.Context(), used)
		require.NoError(t, err, name)
		require.True(t, inUse, name)
	}
	arp.Timeout, tcp.Timeout = time.Second, time.Second
	for name, ask := range map[string]func(context.Context, netip.Addr) (bool, error){
		"arp": arp.InUse, "tcp": tcp.InUse,
	} {
		inUse, err := ask(t.Context(), unused)
		require.NoError(t, err, name)
		require.False(t, inUse, name)
		cause := errors.New("no longer wanted")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, err = ask(ctx, unused)
		require.ErrorIs(t, err, cause, name)
	}
	_, err := tcp.InUse(t.Context(), netip.MustParseAddr("192.0.2.1"))
	require.ErrorIs(t, err, syscall.ENETUNREACH)
	_, err = probe.ARP{Interface: "nowhere"}.InUse(t.Context(), used)
	require.ErrorContains(t, err, `on "nowhere"`)
	_, err = arp.InUse(t.Context(), netip.MustParseAddr("fd00::1"))
	require.ErrorIs(t, err, vip.ErrInvalid)

	nd := probe.ND{Interface: "here", Timeout: 30 * time.Second}
	inUse, err := nd.InUse(t.Context(), netip.MustParseAddr("fd58::7"))
	require.NoError(t, err)
	require.True(t, inUse)
	nd.Timeout = time.Second
	inUse, err = nd.InUse(t.Context(), netip.MustParseAddr("fd58::8"))
	require.NoError(t, err)
	require.False(t, inUse)
	_, err = nd.InUse(t.Context(), used)
	require.ErrorIs(t, err, vip.ErrInvalid)
	cause := errors.New("no longer wanted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = nd.InUse(ctx, netip.MustParseAddr("fd58::8"))
	require.ErrorIs(t, err, cause)

	// The allocator sets the address aside that the other host has.
	p, err := vip.ParsePool("p", "10.58.0.7-10.58.0.8")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p},
		Probe: arp.InUse})
	require.NoError(t, err)
	l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T1"}})
	require.NoError(t, err)
	require.Equal(t, unused, l.Addr)
}

func TestTCP(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	open := netip.MustParseAddrPort(l.Addr().String())
	inUse, err := probe.TCP{Ports: []uint16{open.Port()}}.InUse(t.Context(), open.Addr())
	require.NoError(t, err)
	require.True(t, inUse)
	for _, bad := range []probe.TCP{{}, {Ports: []uint16{80}, Timeout: -1}} {
		_, err := bad.InUse(t.Context(), open.Addr())
		require.ErrorIs(t, err, vip.ErrInvalid)
	}
}

// inOwnNetwork runs the test again, as root of a network that goes with it.
func inOwnNetwork(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "OWN_NETWORK=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET,
		Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(),
			Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(),
			Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
