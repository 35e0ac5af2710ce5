package nginxsync_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// TestRoutesFormat0 reads testdata/formats/0/routes.state: testdata/formats/README.md describes how
// it was made.
func TestRoutesFormat0(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../testdata/formats/0/routes.state")
	require.NoError(t, err)
	var got nginxsync.Routes
	require.NoError(t, got.UnmarshalText(text))
	at := netip.MustParseAddrPort
	require.Equal(t, nginxsync.Routes{
		Generation: nginxsync.Generation{Number: 58, Digest: "ab395d5292db7230"},
		Snapshot: nginxsync.Snapshot{
			Baseline: map[string][]nginxsync.Instance{
				"Greet.API": {{ID: "greet:1", Addr: at("192.0.2.3:80"), Weight: 65535,
					Version: "2.0.0+build.7"}},
				"empty": {},
				"hello_web": {
					{ID: "hello_web-1", Addr: at("192.0.2.1:8080"), Weight: 3, Version: "v1"},
					{ID: "hello_web-2", Addr: at("[2001:db8::2]:8080"), Weight: 1, Backup: true},
				},
			},
			Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
				netip.MustParseAddr("10.58.0.2"): {
					"Greet.API": {},
					"hello_web": {{ID: "hello_web-3", Addr: at("192.0.2.4:8080"), Weight: 1,
						Version: "v2"}},
				},
				netip.MustParseAddr("fd00:58::1"): {
					"hello_web": {{ID: "hello_web-4", Addr: at("192.0.2.5:8080"), Weight: 1,
						Version: "v3"}},
				},
			},
		},
	}, got)
	_, rows, _ := strings.Cut(string(text), "\n")
	require.Contains(t, rows, "s 2001:db8::2 8080 1 - hello_web-2\n")
}
