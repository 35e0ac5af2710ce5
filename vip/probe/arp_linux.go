package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-deploy/sluice/vip"
)

// ARP asks all hosts of a link for an IPv4 address, as RFC 5227 does before an address is taken:
// the question names no address of its own and changes no host's cache. It needs CAP_NET_RAW.
type ARP struct {
	// Interface of the link, as "eth0"; required.
	Interface string
	// Timeout of the question, which is sent three times in it. The default is 1 s.
	Timeout time.Duration
}

const (
	questions = 3  // RFC 5227, PROBE_NUM
	arpSize   = 28 // of Ethernet and IPv4: RFC 826
)

// InUse reports whether a host of the link answers for addr, or asks for it in order to take it.
// The error is of the interface or its socket, or context.Cause(ctx).
func (p ARP) InUse(ctx context.Context, addr netip.Addr) (inUse bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("probe %s by ARP on %q: %w", addr, p.Interface, err)
		}
	}()
	if addr = addr.Unmap(); !addr.Is4() || p.Timeout < 0 {
		return false, fmt.Errorf("ARP.Timeout: %s: want 0 (default %s) or more, and an IPv4 "+
			"address: %w", p.Timeout, defaultTimeout, vip.ErrInvalid)
	}
	link, err := net.InterfaceByName(p.Interface)
	if err != nil {
		return false, err
	}
	if len(link.HardwareAddr) != 6 {
		return false, errors.New("want an interface with an Ethernet address")
	}
	socket, send, err := open(link)
	if err != nil {
		return false, err
	}
	defer socket.Close()
	timeout := p.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return ask(ctx, socket, timeout, func() error {
		return send(question(link.HardwareAddr, addr))
	}, func(packet []byte) bool { return answers(packet, link.HardwareAddr, addr) })
}

// ask sends the question several times within timeout, and reports whether a packet that it reads
// is an answer.
func ask(
	ctx context.Context, socket *os.File, timeout time.Duration, send func() error,
	answer func(packet []byte) bool,
) (bool, error) {
	stop := context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1500)
	for range questions {
		if err := send(); err != nil {
			return false, err
		}
		_ = socket.SetReadDeadline(time.Now().Add(timeout / questions))
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		for {
			n, err := socket.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return false, err
			}
			if answer(buf[:n]) {
				return true, nil
			}
		}
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return false, nil
}

// open returns a socket for the ARP packets of the link, and what sends one to all hosts.
func open(link *net.Interface) (_ *os.File, send func([]byte) error, err error) {
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		int(protocol))
	if err != nil {
		return nil, nil, os.NewSyscallError("socket", err)
	}
	at := unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}
	if err := unix.Bind(fd, &at); err != nil {
		_ = unix.Close(fd)
		return nil, nil, os.NewSyscallError("bind", err)
	}
	all := at
	all.Halen, all.Addr = 6, [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	return os.NewFile(uintptr(fd), "ARP of "+link.Name), func(packet []byte) error {
		return os.NewSyscallError("sendto", unix.Sendto(fd, packet, 0, &all))
	}, nil
}

// question is the ARP probe for addr: RFC 5227, section 2.1.1.
func question(from net.HardwareAddr, addr netip.Addr) []byte {
	b := binary.BigEndian.AppendUint16(nil, 1) // Ethernet
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4, 0, 1) // lengths of the addresses; a request
	b = append(b, from...)
	b = append(b, make([]byte, 4+6)...)
	return append(b, addr.AsSlice()...)
}

// answers reports whether an ARP packet shows that another host has addr, or asks for it.
func answers(b []byte, own net.HardwareAddr, addr netip.Addr) bool {
	if len(b) < arpSize || string(b[8:14]) == string(own) {
		return false
	}
	sender, target, want := [4]byte(b[14:18]), [4]byte(b[24:28]), addr.As4()
	return sender == want || sender == [4]byte{} && target == want // it asks like this probe
}
