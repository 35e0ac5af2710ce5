package nginxsync_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// TestRoutesFormats reads the files routes.state in testdata/formats, which hold the same routes:
// testdata/formats/README.md describes how they were made.
func TestRoutesFormats(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"0", "1"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			testRoutesFormat(t, format)
		})
	}
}

func testRoutesFormat(t *testing.T, format string) {
	text, err := os.ReadFile("../testdata/formats/" + format + "/routes.state")
	require.NoError(t, err)
	var got nginxsync.Routes
	require.NoError(t, got.UnmarshalText(text))
	at := netip.MustParseAddrPort
	require.Equal(t, nginxsync.Routes{
		Generation: nginxsync.Generation{Number: 58, Digest: "897167406593c50f"},
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
	require.Contains(t, string(text), "\ns 2001:db8::2 8080 1 - hello_web-2\n")
}
