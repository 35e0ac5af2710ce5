package cutoff

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The layout of sock_diag(7): struct inet_diag_req_v2, whose last 48 bytes are the id of a
// connection, and struct inet_diag_msg, whose first 4 bytes are before the id.
const (
	idBytes      = 48
	requestBytes = 8 + idBytes
	answerBytes  = 4 + idBytes + 20
)

// socket is a connection of a worker: its family and its id, with the cookie that no other
// connection of this machine has.
type socket struct {
	family byte
	id     [idBytes]byte
}

// states are those in which a connection may carry something: established, SYN sent, half closed.
const states = 1<<1 | 1<<2 | 1<<8 // TCP_ESTABLISHED, TCP_SYN_SENT, TCP_CLOSE_WAIT

// diag is a netlink socket.
type diag int

func openDiag() (diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC,
		unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, fmt.Errorf("sock_diag: %w", err)
	}
	limit := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("sock_diag: %w", err)
	}
	return diag(fd), nil
}

func (d diag) close() { unix.Close(int(d)) }

// ask sends a request about connections of a family, and calls f with each message that is no
// error. It returns at the end of the dump, or with the acknowledgement.
func (d diag) ask(kind uint16, flags uint16, family byte, id [idBytes]byte,
	f func([]byte)) error {
	b := make([]byte, unix.SizeofNlMsghdr+requestBytes)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	request := b[unix.SizeofNlMsghdr:]
	request[0], request[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(request[4:], states)
	copy(request[8:], id[:])
	err := unix.Sendto(int(d), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err != nil {
		return fmt.Errorf("sock_diag: %w", err)
	}
	buffer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(int(d), buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sock_diag: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return fmt.Errorf("sock_diag: %w", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return errors.New("sock_diag: an answer is cut short")
				}
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
					return fmt.Errorf("sock_diag: %w", unix.Errno(-code))
				}
				return nil
			default:
				f(m.Data)
			}
		}
	}
}

// connections are the connections to the addresses of all workers whose master is that of one of
// the workers.
func connections(workers []int, wanted map[netip.AddrPort]bool) ([]socket, error) {
	d, err := openDiag()
	if err != nil {
		return nil, err
	}
	defer d.close()
	found := map[uint32]socket{} // by inode
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if !has(wanted, family) {
			continue
		}
		err := d.ask(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, family, [idBytes]byte{},
			func(m []byte) {
				if len(m) < answerBytes {
					return
				}
				s := socket{family: m[0]}
				copy(s.id[:], m[4:])
				if wanted[s.to()] {
					found[binary.NativeEndian.Uint32(m[4+idBytes+16:])] = s
				}
			})
		if err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	var own []socket
	for _, pid := range siblings(workers) {
		inodes, err := socketsOf(pid)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended, and its connections with it
		}
		if err != nil {
			return nil, err
		}
		for _, inode := range inodes {
			if s, ok := found[inode]; ok {
				own = append(own, s)
				delete(found, inode)
			}
		}
	}
	return own, nil
}

func has(wanted map[netip.AddrPort]bool, family byte) bool {
	for addr := range wanted {
		if addr.Addr().Is4() == (family == unix.AF_INET) {
			return true
		}
	}
	return false
}

// to is where the connection leads.
func (s socket) to() netip.AddrPort {
	var addr netip.Addr
	if s.family == unix.AF_INET {
		addr = netip.AddrFrom4([4]byte(s.id[20:24]))
	} else {
		addr = netip.AddrFrom16([16]byte(s.id[20:36]))
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(s.id[2:4]))
}

// destroy ends connections. One that has ended by itself is no error.
func destroy(list []socket) error {
	if len(list) == 0 {
		return nil
	}
	d, err := openDiag()
	if err != nil {
		return err
	}
	defer d.close()
	for _, s := range list {
		err := d.ask(unix.SOCK_DESTROY, unix.NLM_F_ACK, s.family, s.id, func([]byte) {})
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESTALE), err == nil:
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("end a connection to %s: want CAP_NET_ADMIN: %w", s.to(), err)
		default:
			return fmt.Errorf("end a connection to %s: %w", s.to(), err)
		}
	}
	return nil
}

// siblings are the processes of the masters of the workers: also workers that a reload has
// retired.
func siblings(workers []int) (pids []int) {
	masters := map[int]bool{}
	for _, pid := range workers {
		// The process of that number is another one where Nginx has a PID namespace of its own.
		parent := parentOf(pid)
		title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", parent))
		if strings.HasPrefix(string(title), "nginx: master process") {
			masters[parent] = true
		}
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if pid, _ := strconv.Atoi(filepath.Base(dir)); masters[parentOf(pid)] {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parentOf returns 0 where the parent is not known.
func parentOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	end := strings.LastIndexByte(string(text), ')') // the name before it may have any byte
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// socketsOf are the inodes of the sockets of a process.
func socketsOf(pid int) (inodes []uint32, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // it was closed meanwhile
		}
		text, ok := strings.CutPrefix(target, "socket:[")
		inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 32)
		if ok && err == nil {
			inodes = append(inodes, uint32(inode))
		}
	}
	return inodes, nil
}

// able returns an error that names the capabilities which this process lacks.
func able() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	var missing []string
	for _, c := range []struct {
		bit  int
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE"}} {
		if data[0].Effective&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("to end connections takes %s, which this process lacks",
			strings.Join(missing, " and "))
	}
	return nil
}
