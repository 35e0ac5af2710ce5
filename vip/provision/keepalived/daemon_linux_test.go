//go:build linux

package keepalived_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sluice-deploy/sluice/vip/provision/keepalived"
)

// A keepalived that runs, in a network of its own: it announces the driver's addresses, and stops.
func TestKeepalivedThatRuns(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // a started process ends with the thread that started it
	defer runtime.UnlockOSThread()
	if os.Getenv("OWN_NETWORK") == "" {
		inOwnNetwork(t)
		return
	}
	require.NoError(t, bridge("br58", [4]byte{192, 0, 2, 9}))
	d, _ := driver(t)
	dir := filepath.Dir(d.Path)
	*d = keepalived.Driver{Path: d.Path, Interface: "br58", PidFile: filepath.Join(dir,
		"keepalived.pid")}
	one, two, three := netip.MustParseAddr("10.58.0.1"), netip.MustParseAddr("10.58.0.2"),
		netip.MustParseAddr("10.58.0.3")
	require.NoError(t, os.WriteFile(d.Path, d.Render([]netip.Addr{one}), 0o644))
	cmd := exec.Command("keepalived", "--dont-fork", "--log-console", "--vrrp", "--use-file",
		d.Path, "--pid", d.PidFile, "--vrrp_pid", filepath.Join(dir, "vrrp.pid"))
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	soon := func(condition func() bool) {
		t.Helper()
		require.Eventually(t, condition, time.Minute, 10*time.Millisecond)
	}
	soon(func() bool {
		_, err := d.Apply(t.Context(), []netip.Addr{one})
		return err == nil
	})
	soon(announces(one))
	_, err := d.Apply(t.Context(), []netip.Addr{two, three})
	require.NoError(t, err)
	soon(announces(two, three))
	_, err = d.Apply(t.Context(), nil)
	require.NoError(t, err)
	soon(announces())
}

// announces says whether br58 has these addresses besides its own.
func announces(want ...netip.Addr) func() bool {
	return func() bool {
		device, err := net.InterfaceByName("br58")
		if err != nil {
			return false
		}
		all, err := device.Addrs()
		var have []netip.Addr
		for _, a := range all {
			if p, err := netip.ParsePrefix(a.String()); err == nil &&
				netip.MustParsePrefix("10.58.0.0/24").Contains(p.Addr()) {
				have = append(have, p.Addr())
			}
		}
		return err == nil && fmt.Sprint(have) == fmt.Sprint(want)
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

// bridge makes an interface that VRRP can use, with an address.
func bridge(name string, addr [4]byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	text, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCBRADDBR,
		uintptr(unsafe.Pointer(text))); errno != 0 {
		return fmt.Errorf("add bridge %s: %w", name, errno)
	}
	ifreq, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := ifreq.SetInet4Addr(addr[:]); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, ifreq); err != nil {
		return fmt.Errorf("address of %s: %w", name, err)
	}
	ifreq.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_MULTICAST | unix.IFF_BROADCAST)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq)
}
