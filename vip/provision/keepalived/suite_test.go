package keepalived_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip/provision/keepalived"
	"github.com/sluice-deploy/sluice/vip/provision/provisiontest"
)

// The suite looks at the file that keepalived would read. A program that accepts every file stands
// for keepalived, whose own opinion the other tests of this package ask.
func TestDriver(t *testing.T) {
	t.Parallel()
	provisiontest.Run(t, func(t *testing.T) provisiontest.Harness {
		path := filepath.Join(t.TempDir(), "sluice.conf")
		return provisiontest.Harness{
			Driver: &keepalived.Driver{
				Path: path, Interface: "eth0", Keepalived: "true",
				Reload: func(context.Context) error { return nil },
			},
			Announced: func(t *testing.T) (announced []netip.Addr) {
				text, err := os.ReadFile(path)
				if !errors.Is(err, os.ErrNotExist) {
					require.NoError(t, err)
				}
				for _, addr := range provisiontest.Addrs() {
					if strings.Contains(string(text), " "+addr.String()+"/32\n") {
						announced = append(announced, addr)
					}
				}
				return announced
			},
		}
	})
}
