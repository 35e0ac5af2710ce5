package transform_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// TestFormat0 reads testdata/formats/0/rules.json: testdata/formats/README.md says how it was made.
func TestFormat0(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../testdata/formats/0/rules.json")
	require.NoError(t, err)
	defer f.Close()
	got, err := transform.ReadRules(f)
	require.NoError(t, err)
	require.Equal(t, transform.Rules{
		Listen:     map[int]int{80: 8880, 443: 8443},
		Main:       map[string]string{"pid": "/srv/test/nginx.pid", "user": ""},
		Paths:      map[string]string{"/var/log/nginx/": "/srv/test/logs/", "syslog:": "off"},
		TempDir:    "/srv/test/temp",
		Clusters:   map[string]string{"hello_backend": "hello_web"},
		Pass:       map[string]string{"10.0.0.7:8080": "hello_web", "$backend": "$backend"},
		Resolver:   "127.0.0.53 valid=5s",
		Drop:       []string{"stream", "mail"},
		Accept:     []string{"auth_request"},
		KeepStatus: []string{"stub_status"},
		Secrets: map[string]string{"authorization": "Basic dGVzdDp0ZXN0",
			"$api_token": "test"},
		TrustCode: true,
		AllowClients: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"),
			netip.MustParsePrefix("2001:db8::/32")},
		TrustVIPHeader: []netip.Prefix{netip.MustParsePrefix("10.58.0.0/16")},
	}, got)
}
