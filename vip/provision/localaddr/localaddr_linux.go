package localaddr

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/sluice-deploy/sluice/vip/provision"
)

// DefaultProtocol is the number by which the driver knows its routes.
const DefaultProtocol = 158

const (
	tableLocal = 255 // RT_TABLE_LOCAL
	rtmsgSize  = syscall.SizeofRtMsg
)

// Driver is a provision.Driver. Its fields are not changed while it is in use.
type Driver struct {
	// Protocol marks the routes of this driver, 5 to 255: two drivers on one machine need two
	// numbers. The default is DefaultProtocol.
	Protocol uint8
	// Interface that the routes are on. The default is "lo".
	Interface string
}

var _ provision.Driver = (*Driver)(nil)

// Apply implements provision.Driver. An address that the kernel refuses is set aside.
func (d *Driver) Apply(ctx context.Context, want []netip.Addr) (map[netip.Addr]error, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if p := d.protocol(); p < 5 {
		return nil, fmt.Errorf("protocol %d: want 5 to 255: those below are the kernel's and the "+
			"administrator's routes", p)
	}
	name := cmp.Or(d.Interface, "lo")
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	have, err := d.routes(device.Index)
	if err != nil {
		return nil, fmt.Errorf("read local routes: %w", err)
	}
	conn, err := dial()
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	defer conn.close()
	aside := map[netip.Addr]error{}
	for _, addr := range want {
		if have[addr] {
			delete(have, addr)
			continue
		}
		err := conn.ask(syscall.RTM_NEWROUTE, syscall.NLM_F_CREATE|syscall.NLM_F_EXCL,
			d.route(addr, device.Index))
		if errors.Is(err, syscall.EPERM) {
			return nil, fmt.Errorf("add a local route: the driver needs CAP_NET_ADMIN: %w", err)
		}
		if err != nil {
			aside[addr] = fmt.Errorf("add a local route: %w", err)
		}
	}
	var errs []error
	// they are not wanted any more
	for _, addr := range slices.SortedFunc(maps.Keys(have), netip.Addr.Compare) {
		if err := conn.ask(syscall.RTM_DELROUTE, 0, d.route(addr, device.Index)); err != nil &&
			!errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("remove the local route of %s: %w", addr, err))
		}
	}
	return aside, errors.Join(errs...)
}

func (d *Driver) protocol() uint8 { return cmp.Or(d.Protocol, DefaultProtocol) }

// route is the body of a message about the local route of addr.
func (d *Driver) route(addr netip.Addr, device int) []byte {
	family := byte(syscall.AF_INET)
	if addr.Is6() {
		family = syscall.AF_INET6
	}
	b := []byte{family, byte(addr.BitLen()), 0, 0, tableLocal, d.protocol(), syscall.RT_SCOPE_HOST,
		syscall.RTN_LOCAL, 0, 0, 0, 0}
	b = attribute(b, syscall.RTA_DST, addr.AsSlice())
	return attribute(b, syscall.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(device)))
}

func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(syscall.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// routes lists the addresses that have a route of this driver.
func (d *Driver) routes(device int) (map[netip.Addr]bool, error) {
	have := map[netip.Addr]bool{}
	for _, family := range []int{syscall.AF_INET, syscall.AF_INET6} {
		data, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, family)
		if err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(data)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if m.Header.Type != syscall.RTM_NEWROUTE || len(m.Data) < rtmsgSize ||
				m.Data[4] != tableLocal || m.Data[5] != d.protocol() ||
				m.Data[7] != syscall.RTN_LOCAL {
				continue
			}
			attributes, err := syscall.ParseNetlinkRouteAttr(&m)
			if err != nil {
				return nil, err
			}
			var addr netip.Addr
			on := 0
			for _, a := range attributes {
				switch a.Attr.Type {
				case syscall.RTA_DST:
					addr, _ = netip.AddrFromSlice(a.Value)
				case syscall.RTA_OIF:
					on = int(binary.NativeEndian.Uint32(a.Value))
				}
			}
			if addr.IsValid() && on == device && int(m.Data[1]) == addr.BitLen() {
				have[addr] = true
			}
		}
	}
	return have, nil
}

// conn is a netlink socket for one question at a time.
type conn struct {
	fd       int
	sequence uint32
}

func dial() (*conn, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC,
		syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return nil, errors.Join(err, syscall.Close(fd))
	}
	return &conn{fd: fd}, nil
}

func (c *conn) close() { _ = syscall.Close(c.fd) }

// ask sends one message and waits for the kernel's answer to it.
func (c *conn) ask(kind, flags uint16, body []byte) error {
	c.sequence++
	b := binary.NativeEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, syscall.NLM_F_REQUEST|syscall.NLM_F_ACK|flags)
	b = binary.NativeEndian.AppendUint32(b, c.sequence)
	b = binary.NativeEndian.AppendUint32(b, 0)
	if err := syscall.Sendto(c.fd, append(b, body...), 0,
		&syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 8192)
	for {
		n, _, err := syscall.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Seq != c.sequence || m.Header.Type != syscall.NLMSG_ERROR ||
				len(m.Data) < 4 {
				continue
			}
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				return syscall.Errno(-code)
			}
			return nil
		}
	}
}
