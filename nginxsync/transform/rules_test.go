package transform_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

func TestReadRules(t *testing.T) {
	t.Parallel()
	want := transform.Rules{
		Listen: map[int]int{80: 8080}, TempDir: "/tmp", KeepStatus: []string{"stub_status"},
		TrustCode:      true,
		AllowClients:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		TrustVIPHeader: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Selector:       transform.Selector{Cookie: "vip"},
	}
	const now = `{"listen":{"80":8080},"tempDir":"/tmp","keepStatus":["stub_status"],"trustCode":true,` +
		`"allowClients":["127.0.0.0/8"],"trustVIPHeader":["10.0.0.0/8"],"selector":{"cookie":"vip"}}`
	const before = `{"listen":{"80":8080},"temp_dir":"/tmp","keep_status":["stub_status"],"trust_code":true,` +
		`"allow_clients":["127.0.0.0/8"],"trust_vip_header":["10.0.0.0/8"],` +
		`"selector":{"cookie":"vip"}}`
	text, err := json.Marshal(want)
	require.NoError(t, err)
	require.Equal(t, now, string(text))
	for _, text := range []string{now, before} {
		got, err := transform.ReadRules(strings.NewReader(text))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for text, want := range map[string]string{
		`{"trust_code": true, "trustCode": true}`: `both "trust_code" and "trustCode" are given`,
		`{"TrustCode": true}`:                     `unknown field "TrustCode"`,
		`{"snippets": {}}`:                        `unknown field "snippets"`,
		`{"listen": {"x": 1}}`:                    "cannot unmarshal",
		`[]`:                                      "cannot unmarshal",
		`{`:                                       "unexpected EOF",
		`{"listen": {"80": 0}}`:                   "want ports 1 to 65535",
		`{"selector": {"header": "X-A", "cookie": "a"}}`: "want one of them",
		`{"selector": {"header": "X Y"}}`:                "want one of them",
		`{"selector": {"header": "Baggage"}}`:            "want one of them",
		`{"selector": {"cookie": "a;b"}}`:                "want one of them",
	} {
		_, err := transform.ReadRules(strings.NewReader(text))
		require.ErrorContains(t, err, want, text)
		require.ErrorIs(t, err, transform.ErrInvalid, text)
	}
}

// A selector is of no use without a driver that looks at it.
func TestSelectorNeedsDriver(t *testing.T) {
	t.Parallel()
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte("events { } http { }")}},
		"nginx.conf")
	require.NoError(t, err)
	_, err = transform.Transform(tree, transform.Rules{
		Selector: transform.Selector{Header: "X-Task"}})
	require.ErrorIs(t, err, transform.ErrInvalid)
	require.ErrorContains(t, err, "selector: want Snippets of a driver")
}
