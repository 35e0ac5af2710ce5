//go:build linux

package luadriver_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// fakeMemcached has no page and notes the key that it was last asked for.
func fakeMemcached(t *testing.T, asked *atomic.Value) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			asked.Store(strings.TrimPrefix(strings.TrimSpace(line), "get "))
			_, _ = io.WriteString(c, "END\r\n")
			c.Close()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}
