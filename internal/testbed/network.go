package testbed

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
)

// network is a bridge of this machine.
type network struct {
	bridge string
	ip     string // of this machine on it
	prefix netip.Prefix
}

// linkName is how the names of the links that a test binary makes begin. With the numbers of network and peer they are no
// longer than the 15 bytes that a link's name may have.
func linkName(pid int) string { return "sl" + strconv.FormatInt(int64(pid), 36) + "-" }

// newNetwork makes a bridge with an address in a network that no interface of this machine is in. Its name is told to record
// before it is made.
func newNetwork(record func(link string) error) (*network, error) {
	for second := 64; second < 128; second++ {
		n := &network{
			bridge: linkName(os.Getpid()) + strconv.Itoa(second),
			ip:     fmt.Sprintf("10.%d.0.1", second), prefix: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", second)),
		}
		// Whoever holds it looks and makes; from then on the address says that the network is taken.
		lock, err := net.Listen("unix", "@sluice-testbed/network/"+n.prefix.String())
		if err != nil {
			continue
		}
		made, err := n.make(record)
		if err := errors.Join(err, lock.Close()); err != nil || made {
			return n, err
		}
	}
	return nil, errors.New("no free network in 10.64.0.0/10")
}

func (n *network) make(record func(link string) error) (bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	for _, a := range addrs {
		if other, err := netip.ParsePrefix(a.String()); err == nil && n.prefix.Overlaps(other) {
			return false, nil
		}
	}
	if err := record(n.bridge); err != nil {
		return false, err
	}
	for _, args := range [][]string{
		{"link", "add", n.bridge, "type", "bridge"},
		{"address", "add", n.ip + "/24", "dev", n.bridge},
		{"link", "set", n.bridge, "up"},
	} {
		if err := run("", "ip", args...); err != nil {
			return false, err
		}
	}
	return true, nil
}
