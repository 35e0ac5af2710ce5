// Package keepalived announces addresses with keepalived: one vrrp_instance that holds all of them,
// and a virtual_server for each address and port that spreads connections over real servers with
// LVS.
//
// The driver owns one configuration file, which keepalived.conf may include. It writes a candidate
// beside it, has keepalived itself check it ("keepalived -t"), puts it in place in one step, and
// asks the running keepalived to reload. An address whose block keepalived refuses is found by
// halving, set aside and left out; when it refuses every one the fault is taken for a common one,
// and the file stays. Nothing is written or reloaded when nothing has changed since the driver's
// last reload; the first one always is made, as a former process may have ended between the file
// and the reload.
//
// It needs the right to write the file and to signal keepalived. It does not start keepalived, and
// does not put the addresses on the real servers: in direct routing those need them on lo, with
// arp_ignore=1 and arp_announce=2.
package keepalived

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/vip/provision"
)

// RealServer is one machine behind the addresses: a test Nginx.
type RealServer struct {
	Addr   netip.Addr // required
	Weight int        // share of connections; 0 takes it out of new ones. Negative is refused
}

// Check is how keepalived finds out whether a real server lives.
type Check struct {
	// Path of an HTTP request, which must be answered with 200. The default is a TCP connection.
	Path string
	// Timeout of one attempt, in whole seconds. The default is 3 s.
	Timeout time.Duration
	// Retries before the server is taken out. The default is 2.
	Retries int
	// Interval between two checks, in whole seconds. The default is 5 s.
	Interval time.Duration
}

// Driver is a provision.Driver. Its fields are not changed while it is in use.
type Driver struct {
	// Path of the file that the driver owns; required.
	Path string
	// Interface that announces the addresses; required.
	Interface string
	// RouterID is the VRRP virtual router id, 1 to 255, the same on all machines of the group and
	// on no other. The default is 58.
	RouterID int
	// Priority of this machine, 1 to 254, the highest announces. The default is 100.
	Priority int
	// Ports that are served on every address. None announces the addresses without LVS.
	Ports []uint16
	// RealServers behind every address; required when there are Ports.
	RealServers []RealServer
	// Quorum is the weight that the living real servers must have together; below it keepalived
	// says that the quorum is lost, in its log and to its notifiers, and goes on with the living
	// ones. The default is 1.
	Quorum int
	// Scheduler of LVS: rr, wrr, lc, wlc, sh, … The default is wrr.
	Scheduler string
	// Forward is how LVS forwards: DR, TUN or NAT. The default is DR, which keeps the address that
	// the request came to.
	Forward string
	// Check of the real servers.
	Check Check
	// Keepalived is the program that checks a file. The default is "keepalived".
	Keepalived string
	// Reload makes the running keepalived read the file. The default sends SIGHUP to the process in
	// PidFile.
	Reload func(ctx context.Context) error
	// PidFile of the running keepalived. The default is /run/keepalived.pid.
	PidFile string

	reloaded bool // the file as it is has been read by keepalived
}

var _ provision.Driver = (*Driver)(nil)

// Apply implements provision.Driver.
func (d *Driver) Apply(ctx context.Context, want []netip.Addr) (map[netip.Addr]error, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := d.validate(); err != nil {
		return nil, err
	}
	old, err := os.ReadFile(d.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	had := err == nil
	if data := d.Render(want); d.reloaded && had && bytes.Equal(data, old) {
		return nil, nil
	}
	good, aside, err := d.sift(ctx, want)
	if err != nil {
		return nil, err
	}
	if len(good) == 0 && len(aside) > 0 {
		return nil, fmt.Errorf("every address is refused, such as %s: %w", want[0], aside[want[0]])
	}
	data := d.Render(good)
	if err := d.check(ctx, data); err != nil {
		return nil, err
	}
	if d.reloaded && had && bytes.Equal(data, old) {
		return aside, nil
	}
	d.reloaded = false
	if err := atomicfile.Write(d.Path, data, 0o644); err != nil {
		return nil, err
	}
	if err := d.reload(ctx); err != nil {
		switch {
		case len(want) == 0: // a keepalived that starts later announces nothing
		case had: // the running keepalived has the old file: restore it
			err = errors.Join(err, atomicfile.Write(d.Path, old, 0o644))
		default:
			err = errors.Join(err, os.Remove(d.Path))
		}
		return nil, fmt.Errorf("reload keepalived: %w", err)
	}
	d.reloaded = true
	return aside, nil
}

func (d *Driver) validate() error {
	var errs []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	add(d.Path == "", "path is empty")
	add(d.Interface == "" || strings.ContainsAny(d.Interface, " \t\n{}#!"),
		"interface %q: want the name of a network interface", d.Interface)
	add(d.RouterID < 0 || d.RouterID > 255, "router id %d: want 1 to 255", d.RouterID)
	add(d.Priority < 0 || d.Priority > 254, "priority %d: want 1 to 254", d.Priority)
	add(len(d.Ports) > 0 && len(d.RealServers) == 0, "ports without real servers")
	add(d.Quorum < 0 || d.Check.Retries < 0, "quorum %d, retries %d: want 1 or more", d.Quorum,
		d.Check.Retries)
	add(strings.ContainsAny(d.Scheduler+d.Forward, " \t\n{}#!"), "scheduler %q, forward %q: want "+
		"one word each", d.Scheduler, d.Forward)
	add(d.Check.Path != "" && (d.Check.Path[0] != '/' || strings.ContainsAny(d.Check.Path,
		" \t\n{}#!\"")), "check path %q: want an absolute path", d.Check.Path)
	for _, r := range d.RealServers {
		add(!r.Addr.IsValid() || r.Weight < 0, "real server %q: weight %d: want an address and a "+
			"weight of 0 or more", r.Addr, r.Weight)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("keepalived driver: %w", err)
	}
	return nil
}

// sift splits want into the addresses that keepalived accepts and the ones that it does not. One
// bad address among n costs about 2·log n checks.
func (d *Driver) sift(ctx context.Context, want []netip.Addr) (good []netip.Addr,
	aside map[netip.Addr]error, err error) {
	if len(want) == 0 {
		return nil, nil, nil
	}
	err = d.check(ctx, d.Render(want))
	switch refused := (*refusal)(nil); {
	case err == nil:
		return want, nil, nil
	case !errors.As(err, &refused):
		return nil, nil, err
	case len(want) == 1:
		return nil, map[netip.Addr]error{want[0]: refused}, nil
	}
	aside = map[netip.Addr]error{}
	for _, half := range [][]netip.Addr{want[:len(want)/2], want[len(want)/2:]} {
		ok, bad, err := d.sift(ctx, half)
		if err != nil {
			return nil, nil, err
		}
		good = append(good, ok...)
		for addr, why := range bad {
			aside[addr] = why
		}
	}
	return good, aside, nil
}

// refusal is keepalived's output about a file that it does not accept.
type refusal struct{ output string }

func (r *refusal) Error() string { return "keepalived refuses it: " + r.output }

func (d *Driver) check(ctx context.Context, data []byte) error {
	candidate := d.Path + ".candidate"
	if err := os.WriteFile(candidate, data, 0o644); err != nil {
		return err
	}
	defer os.Remove(candidate)
	out, err := exec.CommandContext(ctx, cmp.Or(d.Keepalived, "keepalived"), "--config-test",
		"--use-file", candidate).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit):
		text := strings.TrimSpace(strings.ReplaceAll(string(out), candidate, d.Path))
		return &refusal{text[:min(len(text), 2000)]}
	}
	return err
}

func (d *Driver) reload(ctx context.Context) error {
	if d.Reload != nil {
		return d.Reload(ctx)
	}
	name := cmp.Or(d.PidFile, "/run/keepalived.pid")
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid < 2 {
		return fmt.Errorf("%s: %q is no process id", name, data)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return process.Signal(syscall.SIGHUP)
}

// Render is the file for the addresses.
func (d *Driver) Render(addrs []netip.Addr) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by the keepalived driver of Sluice: changes made here are lost.\n")
	for _, family := range []struct {
		name string
		is   func(netip.Addr) bool
	}{{"4", netip.Addr.Is4}, {"6", netip.Addr.Is6}} {
		var mine []netip.Addr
		for _, a := range addrs {
			if family.is(a) {
				mine = append(mine, a)
			}
		}
		d.instance(&b, "sluice"+family.name, mine)
		for _, a := range mine {
			for _, port := range d.Ports {
				d.server(&b, a, port)
			}
		}
	}
	return b.Bytes()
}

// instance writes the VRRP side. The advertisement has room for few addresses, so all but the first
// are "excluded" from it: they are put on the interface all the same.
func (d *Driver) instance(b *bytes.Buffer, name string, addrs []netip.Addr) {
	if len(addrs) == 0 {
		return
	}
	fmt.Fprintf(b, "\nvrrp_instance %s {\n    state BACKUP\n    interface %s\n    "+
		"virtual_router_id %d\n    priority %d\n    advert_int 1\n",
		name, d.Interface, cmp.Or(d.RouterID, 58), cmp.Or(d.Priority, 100))
	bits := addrs[0].BitLen()
	fmt.Fprintf(b, "    virtual_ipaddress {\n        %s/%d\n    }\n", addrs[0], bits)
	if len(addrs) > 1 {
		b.WriteString("    virtual_ipaddress_excluded {\n")
		for _, a := range addrs[1:] {
			fmt.Fprintf(b, "        %s/%d\n", a, bits)
		}
		b.WriteString("    }\n")
	}
	b.WriteString("}\n")
}

// server writes the LVS side. A server that fails its check gets weight 0, so that its connections
// may end.
func (d *Driver) server(b *bytes.Buffer, addr netip.Addr, port uint16) {
	fmt.Fprintf(b, "\nvirtual_server %s %d {\n    delay_loop %d\n    lb_algo %s\n    lb_kind "+
		"%s\n    protocol TCP\n    quorum %d\n    hysteresis 0\n    inhibit_on_failure\n",
		addr, port, seconds(d.Check.Interval, 5), cmp.Or(d.Scheduler, "wrr"),
		cmp.Or(d.Forward, "DR"), cmp.Or(d.Quorum, 1))
	for _, r := range d.RealServers {
		if r.Addr.Is4() != addr.Is4() {
			continue
		}
		fmt.Fprintf(b, "    real_server %s %d {\n        weight %d\n", r.Addr, port, r.Weight)
		timeout, retries := seconds(d.Check.Timeout, 3), cmp.Or(d.Check.Retries, 2)
		if d.Check.Path != "" {
			fmt.Fprintf(b, "        HTTP_GET {\n            url {\n                path %s\n     "+
				"           status_code 200\n            }\n", d.Check.Path)
		} else {
			b.WriteString("        TCP_CHECK {\n")
		}
		fmt.Fprintf(b, "            connect_timeout %d\n            retry %d\n            "+
			"delay_before_retry 1\n        }\n    }\n", timeout, retries)
	}
	b.WriteString("}\n")
}

func seconds(d time.Duration, otherwise int) int {
	if d <= 0 {
		return otherwise
	}
	return max(1, int(d/time.Second))
}
