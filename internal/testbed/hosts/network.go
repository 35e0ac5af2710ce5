//go:build linux

package hosts

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Network is a bridge of this machine.
type Network struct {
	Bridge string
	IP     string // of this machine on it
	Prefix netip.Prefix
}

// linkName is how the names of the links that a test binary makes begin. With the numbers of
// network and peer they are no longer than the 15 bytes that a link's name may have.
func linkName(pid int) string { return "sl" + strconv.FormatInt(int64(pid), 36) + "-" }

// NewNetwork makes a bridge with an address in a network that no interface of this machine is in.
// record gets its name before it is made.
func NewNetwork(record func(link string) error) (*Network, error) {
	for second := 64; second < 128; second++ {
		n := &Network{
			Bridge: linkName(os.Getpid()) + strconv.Itoa(second),
			IP:     fmt.Sprintf("10.%d.0.1", second),
			Prefix: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", second)),
		}
		// The holder of the lock looks for a free network and makes it; from then on the address
		// says that the network is taken.
		lock, err := net.Listen("unix", "@sluice-testbed/network/"+n.Prefix.String())
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

func (n *Network) make(record func(link string) error) (bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	for _, a := range addrs {
		if other, err := netip.ParsePrefix(a.String()); err == nil && n.Prefix.Overlaps(other) {
			return false, nil
		}
	}
	if err := record(n.Bridge); err != nil {
		return false, err
	}
	for _, args := range [][]string{
		{"link", "add", n.Bridge, "type", "bridge"},
		{"address", "add", n.IP + "/24", "dev", n.Bridge},
		{"link", "set", n.Bridge, "up"},
	} {
		if err := testbed.Run("", "ip", args...); err != nil {
			return false, err
		}
	}
	return true, nil
}
