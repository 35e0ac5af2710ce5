package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-deploy/sluice/vip"
)

// ND asks all hosts of a link for an IPv6 address by neighbor solicitations: RFC 4861, section 4.3.
// The interface needs a link-local address. It needs CAP_NET_RAW.
type ND struct {
	// Interface of the link, as "eth0"; required.
	Interface string
	// Timeout of the question, which is sent three times in it. The default is 1 s.
	Timeout time.Duration
}

const (
	solicitation  = 135 // ICMPv6 types of RFC 4861
	advertisement = 136
	hopLimit      = 255 // it shows that no router has passed the packet on: section 7.1
)

// InUse reports whether a host of the link answers for addr. The error is of the interface or its
// socket, or context.Cause(ctx).
func (p ND) InUse(ctx context.Context, addr netip.Addr) (inUse bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("probe %s by ND on %q: %w", addr, p.Interface, err)
		}
	}()
	if !addr.Is6() || addr.Is4In6() || p.Timeout < 0 {
		return false, fmt.Errorf("ND.Timeout: %s: want 0 (default %s) or more, and an IPv6 "+
			"address: %w", p.Timeout, defaultTimeout, vip.ErrInvalid)
	}
	link, err := net.InterfaceByName(p.Interface)
	if err != nil {
		return false, err
	}
	socket, send, err := openND(link, addr)
	if err != nil {
		return false, err
	}
	defer socket.Close()
	timeout := p.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	packet := append([]byte{solicitation, 7: 0}, addr.AsSlice()...)
	packet = append(append(packet, 1, 1), link.HardwareAddr...) // the source, in units of 8 bytes
	return ask(ctx, socket, timeout, func() error { return send(packet) },
		func(b []byte) bool {
			return len(b) >= 24 && b[0] == advertisement && b[1] == 0 &&
				netip.AddrFrom16([16]byte(b[8:24])) == addr
		})
}

// openND returns a socket for the neighbor advertisements of the link, and what sends a packet to
// the hosts that may have addr; the kernel fills in the checksum.
func openND(link *net.Interface, addr netip.Addr) (_ *os.File, send func([]byte) error, err error) {
	if len(link.HardwareAddr) != 6 {
		return nil, nil, errors.New("want an interface with an Ethernet address")
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, nil, os.NewSyscallError("socket", err)
	}
	err = errors.Join(
		os.NewSyscallError("bind to device", unix.BindToDevice(fd, link.Name)),
		os.NewSyscallError("hop limit", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6,
			unix.IPV6_MULTICAST_HOPS, hopLimit)),
	)
	if err != nil {
		_ = unix.Close(fd)
		return nil, nil, err
	}
	a := addr.As16()
	to := unix.SockaddrInet6{ZoneId: uint32(link.Index)} // solicited-node: RFC 4291, section 2.7.1
	to.Addr = [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}
	return os.NewFile(uintptr(fd), "ND of "+link.Name), func(packet []byte) error {
		return os.NewSyscallError("sendto", unix.Sendto(fd, packet, 0, &to))
	}, nil
}
