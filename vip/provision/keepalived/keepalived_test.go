package keepalived_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip/provision/keepalived"
)

// driver checks with the keepalived of this machine, which apt-get install keepalived brings.
func driver(t *testing.T) (*keepalived.Driver, *int) {
	t.Helper()
	_, err := exec.LookPath("keepalived")
	require.NoError(t, err, "these tests ask the real keepalived: apt-get install keepalived")
	reloads := 0
	return &keepalived.Driver{
		Path: filepath.Join(t.TempDir(), "sluice.conf"), Interface: device(t),
		Ports: []uint16{80, 443}, Quorum: 1,
		RealServers: []keepalived.RealServer{{Addr: netip.MustParseAddr("192.0.2.1"), Weight: 2},
			{Addr: netip.MustParseAddr("192.0.2.2"), Weight: 1},
			{Addr: netip.MustParseAddr("fd00::a1"), Weight: 2}},
		Check:  keepalived.Check{Path: "/health"},
		Reload: func(context.Context) error { reloads++; return nil },
	}, &reloads
}

// device is an interface that VRRP can use: any but the loopback. Nothing is sent over it.
func device(t *testing.T) string {
	all, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagMulticast != 0 {
			return i.Name
		}
	}
	t.Fatal("keepalived wants a network interface besides lo")
	return ""
}

func addrs(all ...string) []netip.Addr {
	var parsed []netip.Addr
	for _, a := range all {
		parsed = append(parsed, netip.MustParseAddr(a))
	}
	return parsed
}

func TestKeepalivedAcceptsWhatIsWritten(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*keepalived.Driver){
		func(*keepalived.Driver) {},
		func(d *keepalived.Driver) { d.Check = keepalived.Check{} },
		func(d *keepalived.Driver) { d.Ports, d.RealServers = nil, nil },
		func(d *keepalived.Driver) {
			d.Forward, d.Scheduler, d.RouterID, d.Priority, d.Quorum = "TUN", "sh", 200, 254, 2
		},
	} {
		d, reloads := driver(t)
		change(d)
		var many []netip.Addr
		for i := range 40 {
			many = append(many, netip.MustParseAddr(fmt.Sprint("10.58.0.", i+1)))
		}
		for i, want := range [][]netip.Addr{addrs("10.58.0.1"), many, addrs("10.58.0.1", "fd00::1",
			"fd00::2"), nil} {
			aside, err := d.Apply(t.Context(), want)
			require.NoError(t, err)
			require.Empty(t, aside)
			data, err := os.ReadFile(d.Path)
			require.NoError(t, err)
			require.Equal(t, string(d.Render(want)), string(data))
			require.Equal(t, i+1, *reloads)
			_, err = d.Apply(t.Context(), want)
			require.NoError(t, err)
			require.Equal(t, i+1, *reloads, "nothing has changed")
		}
	}
}

// A keepalived that refuses some addresses: the script stands between the driver and the real one.
func TestARefusedAddressDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	d, _ := driver(t)
	d.Keepalived = filepath.Join(t.TempDir(), "picky")
	script := "#!/bin/sh\nif grep -q -e '10.58.0.7 ' -e '10.58.0.9 ' \"$3\"; then echo \"$3: " +
		"line 7: no such luck\"; exit 5; fi\nexec keepalived \"$@\"\n"
	syscall.ForkLock.RLock() // a child of another test would hold it open: text file busy
	err := os.WriteFile(d.Keepalived, []byte(script), 0o755)
	syscall.ForkLock.RUnlock()
	require.NoError(t, err)
	var want, good []netip.Addr
	for i := 1; i <= 16; i++ {
		a := netip.MustParseAddr(fmt.Sprint("10.58.0.", i))
		if want = append(want, a); i != 7 && i != 9 {
			good = append(good, a)
		}
	}
	aside, err := d.Apply(t.Context(), want)
	require.NoError(t, err)
	require.Len(t, aside, 2)
	require.ErrorContains(t, aside[want[6]], "sluice.conf: line 7: no such luck")
	data, err := os.ReadFile(d.Path)
	require.NoError(t, err)
	require.Equal(t, string(d.Render(good)), string(data))
}

func TestARefusedFileOrReloadChangesNothing(t *testing.T) {
	t.Parallel()
	d, _ := driver(t)
	_, err := d.Apply(t.Context(), addrs("10.58.0.1"))
	require.NoError(t, err)
	before, err := os.ReadFile(d.Path)
	require.NoError(t, err)

	d.Reload = func(context.Context) error { return errors.New("no such process") }
	_, err = d.Apply(t.Context(), addrs("10.58.0.2"))
	require.ErrorContains(t, err, "reload keepalived: no such process")
	d.Keepalived = "/bin/false"
	_, err = d.Apply(t.Context(), addrs("10.58.0.3"))
	require.ErrorContains(t, err, "every address is refused, such as 10.58.0.3: keepalived "+
		"refuses it")
	d.Keepalived = "/no/such/program"
	_, err = d.Apply(t.Context(), addrs("10.58.0.3"))
	require.ErrorIs(t, err, os.ErrNotExist)
	d.Interface = "eth0 }"
	_, err = d.Apply(t.Context(), addrs("10.58.0.3"))
	require.ErrorContains(t, err, `interface "eth0 }"`)

	after, err := os.ReadFile(d.Path)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
	left, err := os.ReadDir(filepath.Dir(d.Path))
	require.NoError(t, err)
	require.Len(t, left, 1, "no candidate is left behind")
}

// A process that ended between the file and the reload leaves a file that keepalived has not read:
// the next one has it read.
func TestFirstApplyReloads(t *testing.T) {
	t.Parallel()
	d, reloads := driver(t)
	want := addrs("10.58.0.1")
	require.NoError(t, os.WriteFile(d.Path, d.Render(want), 0o644))
	for range 2 {
		_, err := d.Apply(t.Context(), want)
		require.NoError(t, err)
		require.Equal(t, 1, *reloads)
	}
	failing := errors.New("no such process")
	reload := d.Reload
	d.Reload = func(context.Context) error { return failing }
	_, err := d.Apply(t.Context(), addrs("10.58.0.2"))
	require.ErrorIs(t, err, failing)
	d.Reload = reload
	_, err = d.Apply(t.Context(), want)
	require.NoError(t, err)
	require.Equal(t, 2, *reloads, "whether it has read the refused file is not known")
}

// The default is SIGHUP to the process of the PID file, which is this one here.
func TestReloadSignalsKeepalived(t *testing.T) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	d, _ := driver(t)
	d.Reload, d.PidFile = nil, filepath.Join(t.TempDir(), "keepalived.pid")
	_, err := d.Apply(t.Context(), addrs("10.58.0.1"))
	require.ErrorIs(t, err, os.ErrNotExist, "it does not run")
	require.NoFileExists(t, d.Path)
	for _, text := range []string{"", "x", "1", "-1"} {
		require.NoError(t, os.WriteFile(d.PidFile, []byte(text), 0o600))
		_, err = d.Apply(t.Context(), addrs("10.58.0.1"))
		require.ErrorContains(t, err, "is no process id", "%q", text)
	}
	require.NoError(t, os.WriteFile(d.PidFile, fmt.Appendln(nil, os.Getpid()), 0o600))
	_, err = d.Apply(t.Context(), addrs("10.58.0.1"))
	require.NoError(t, err)
	<-hup
}

// Withdrawn addresses stay out of the file when keepalived does not run: it may start later.
func TestAWithdrawalStands(t *testing.T) {
	t.Parallel()
	d, reloads := driver(t)
	_, err := d.Apply(t.Context(), addrs("10.58.0.1"))
	require.NoError(t, err)
	reload := d.Reload
	d.Reload = func(context.Context) error { return errors.New("no such process") }
	_, err = d.Apply(t.Context(), nil)
	require.ErrorContains(t, err, "no such process")
	data, err := os.ReadFile(d.Path)
	require.NoError(t, err)
	require.Equal(t, string(d.Render(nil)), string(data))
	d.Reload = reload
	_, err = d.Apply(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, *reloads)
}

func ExampleDriver_Render() {
	d := &keepalived.Driver{Interface: "eth0"}
	fmt.Print(string(d.Render([]netip.Addr{netip.MustParseAddr("10.58.0.1"),
		netip.MustParseAddr("10.58.0.2")})))
	// Output:
	// # Written by the keepalived driver of Sluice: changes made here are lost.
	//
	// vrrp_instance sluice4 {
	//     state BACKUP
	//     interface eth0
	//     virtual_router_id 58
	//     priority 100
	//     advert_int 1
	//     virtual_ipaddress {
	//         10.58.0.1/32
	//     }
	//     virtual_ipaddress_excluded {
	//         10.58.0.2/32
	//     }
	// }
}
