//go:build linux

package luadriver_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// echoing is an instance that answers with its name, the VIP and the baggage that it was given.
func echoing(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Encoding")
		fmt.Fprintf(w, "%s %s %s", name, r.Header.Get("X-Env-VIP"),
			strings.Join(r.Header.Values("Baggage"), "|"))
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

const oneCluster = `
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        location / { proxy_pass http://a; }
        location /own { proxy_set_header X-Own 1; proxy_pass http://a; }
        location /kept { proxy_cache p; proxy_cache_valid any 1h; proxy_ignore_headers Vary; proxy_pass http://a; }
        location = /fixed { return 200 fixed; }
    }
}
`

var vip6 = netip.MustParseAddr("2001:db8::5")

// chosenBed is an Nginx whose baseline, VIPs and pool the tests below have in common.
func chosenBed(t *testing.T, rules transform.Rules) *bed {
	t.Helper()
	b := startTree(t, oneCluster, rules)
	other := netip.MustParseAddr("127.58.0.4")
	b.apply(t, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("s", "1", echoing(t, "stable"))},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
			vipA: {"a": one("t", "2", echoing(t, "tested"))},
			vip6: {"a": one("u", "3", echoing(t, "six"))}},
		Scopes: map[netip.Addr]nginxsync.Scope{other: {},
			vipB: {Ended: nginxsync.Ended{Task: "T-1", At: time.Unix(1764417600, 0)}}},
		Pools: []nginxsync.Range{{First: vipA, Last: netip.MustParseAddr("127.58.0.9")}},
		Tasks: map[string]netip.Addr{"T-2": vipA, "T-6": vip6},
	})
	return b
}

// A trusted peer names a VIP by X-Env-VIP or by its baggage; a value that is no VIP is refused.
func TestPeersNameTheVIP(t *testing.T) {
	t.Parallel()
	b := chosenBed(t, transform.Rules{
		TrustVIPHeader: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	const own = "sluice-vip="
	many := strings.Repeat("k=v,", 80)
	for name, tc := range map[string]struct {
		header []string
		status int
		want   string // the body, or the reason
	}{
		"none": {nil, 200, "stable 127.0.0.1 sluice-vip=127.0.0.1"},
		"header": {[]string{"X-Env-VIP", "127.58.0.2"}, 200,
			"tested 127.58.0.2 sluice-vip=127.58.0.2"},
		"header twice": {[]string{"X-Env-VIP", "127.58.0.2", "X-Env-VIP", "127.58.0.2"}, 200,
			"tested 127.58.0.2 sluice-vip=127.58.0.2"},
		"empty header": {[]string{"X-Env-VIP", ""}, 200,
			"stable 127.0.0.1 sluice-vip=127.0.0.1"},
		"mapped": {[]string{"X-Env-VIP", "::ffff:127.58.0.2"}, 200,
			"tested 127.58.0.2 sluice-vip=127.58.0.2"},
		"IPv6": {[]string{"X-Env-VIP", "2001:DB8:0::05"}, 200,
			"six 2001:db8::5 sluice-vip=2001:db8::5"},
		"baggage": {[]string{"baggage", own + "127.58.0.2"}, 200,
			"tested 127.58.0.2 sluice-vip=127.58.0.2"},
		"percent-encoded": {[]string{"baggage", own + "127%2e58.0.%32"}, 200,
			"tested 127.58.0.2 sluice-vip=127.58.0.2"},
		"spaces and properties": {[]string{"baggage",
			"a=1 , sluice-vip =\t127.58.0.2 ;p;q=1, b=2;x"}, 200,
			"tested 127.58.0.2 sluice-vip=127.58.0.2,a=1,b=2;x"},
		"several headers": {[]string{"baggage", "a=1", "Baggage", "b=2," + own + "127.58.0.2"}, 200,
			"tested 127.58.0.2 sluice-vip=127.58.0.2,a=1,b=2"},
		"both": {[]string{"baggage", own + "127.58.0.2", "X-Env-VIP", "127.58.0.2"}, 200,
			"tested 127.58.0.2 sluice-vip=127.58.0.2"},
		"other names": {[]string{"baggage", "Sluice-Vip=x,sluice-vip2=y,,=,x"}, 200,
			"stable 127.0.0.1 sluice-vip=127.0.0.1,Sluice-Vip=x,sluice-vip2=y,=,x"},
		"many members": {[]string{"baggage", many + own + "127.58.0.2"}, 200,
			"tested 127.58.0.2 sluice-vip=127.58.0.2" + strings.Repeat(",k=v", 63)},
		"nonsense": {[]string{"X-Env-VIP", "nonsense"}, 400, "bad-vip; from=X-Env-VIP"},
		"nonsense by gRPC": {[]string{"X-Env-VIP", "nonsense", "Content-Type", "application/grpc"},
			400, "bad-vip; from=X-Env-VIP"},
		"zone": {[]string{"X-Env-VIP", "fe80::1%eth0"}, 400, "bad-vip; from=X-Env-VIP"},
		"port": {[]string{"X-Env-VIP", "127.58.0.2:80"}, 400, "bad-vip; from=X-Env-VIP"},
		"two headers": {[]string{"X-Env-VIP", "127.58.0.2", "X-Env-VIP", "127.58.0.4"}, 400,
			"bad-vip; from=X-Env-VIP"},
		"contradiction": {[]string{"X-Env-VIP", "127.58.0.2", "baggage", own + "127.58.0.4"}, 400,
			"bad-vip; from=baggage sluice-vip"},
		"two members": {[]string{"baggage", own + "127.58.0.2," + own + "127.58.0.4"}, 400,
			"bad-vip; from=baggage sluice-vip"},
		"no value": {[]string{"baggage", "a=1,sluice-vip"}, 400, "bad-vip; from=baggage " +
			"sluice-vip"},
		"empty value": {[]string{"baggage", own}, 400, "bad-vip; from=baggage sluice-vip"},
		"bad escape": {[]string{"baggage", own + "127.58.0.2%2"}, 400, "bad-vip; from=baggage " +
			"sluice-vip"},
		"not an octet": {[]string{"baggage", own + `"127.58.0.2"`}, 400, "bad-vip; from=baggage " +
			"sluice-vip"},
		"encoded zero": {[]string{"baggage", own + "127.58.0.2%00"}, 400,
			"bad-vip; from=baggage sluice-vip"},
		"ended": {[]string{"baggage", own + "127.58.0.3"}, 410,
			"ended; at=2025-11-29T12:00:00Z; task=T-1"},
		"in the pool": {[]string{"X-Env-VIP", "127.58.0.9"}, 410, "no-lease"},
		"no VIP": {[]string{"X-Env-VIP", "10.0.0.1"}, 200,
			"stable 10.0.0.1 sluice-vip=10.0.0.1"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{"/", "/own"} {
				got := b.answer(t, plain, path, tc.header...)
				require.Equal(t, tc.status, got.status, got.body)
				require.Empty(t, got.header.Values("Vary")[min(1, len(got.header.Values("Vary"))):])
				if tc.status == 200 {
					require.Equal(t, tc.want, got.body)
					continue
				}
				require.Equal(t, tc.want, got.header.Get("X-Sluice-Reason"))
				require.Equal(t, "text/plain", got.header.Get("Content-Type"))
				require.Equal(t, "no-store", got.header.Get("Cache-Control"))
				require.NotEmpty(t, got.body)
			}
		})
	}
}

// A client that is no trusted peer cannot choose the VIP by a header, and instances do not get the
// header.
func TestOthersDoNotNameTheVIP(t *testing.T) {
	t.Parallel()
	b := chosenBed(t, transform.Rules{
		TrustVIPHeader: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	for _, value := range []string{"127.58.0.2", "nonsense"} {
		got := b.answer(t, plain, "/", "X-Env-VIP", value, "baggage", "a=1,sluice-vip="+value)
		require.Equal(t, 200, got.status)
		require.Equal(t, "stable 127.0.0.1 sluice-vip=127.0.0.1,a=1", got.body)
	}
	silent := chosenBed(t, transform.Rules{})
	got := silent.answer(t, plain, "/", "X-Env-VIP", "127.58.0.2", "baggage",
		"sluice-vip=127.58.0.2")
	require.Equal(t, "stable 127.0.0.1 sluice-vip=127.58.0.2", got.body,
		"without the rule baggage is not Sluice's")
}

// A header or a cookie names a VIP, or its task, on an address that is no VIP itself.
func TestSelector(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"header", "cookie"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			rules := transform.Rules{Selector: transform.Selector{Header: "X-Task"}}
			send := func(value string) []string { return []string{"X-Task", value} }
			vary, from := "X-Task", "X-Task"
			if by == "cookie" {
				rules.Selector = transform.Selector{Cookie: "sluice-task"}
				send = func(value string) []string {
					return []string{"Cookie", "other=1; sluice-task=" + value}
				}
				vary, from = "Cookie", "cookie sluice-task"
			}
			b := chosenBed(t, rules)
			for _, tc := range []struct {
				to     netip.Addr
				value  string
				status int
				want   string // the name of the instance, or the reason
			}{
				{plain, "", 200, "stable"},
				{plain, "T-2", 200, "tested"},
				{plain, "T-6", 200, "six"},
				{plain, "127.58.0.2", 200, "tested"},
				{plain, "2001:db8:0:0::5", 200, "six"},
				{plain, "127.58.0.4", 200, "stable"},
				{plain, "127.58.0.3", 410, "ended; at=2025-11-29T12:00:00Z; task=T-1"},
				{plain, "127.58.0.9", 410, "no-lease"},
				{plain, "T-9", 410, "no-lease; task=T-9"},
				{plain, "127.0.0.1", 400, "bad-vip; from=" + from},
				{plain, "10.0.0.1", 400, "bad-vip; from=" + from},
				{plain, "-", 400, "bad-vip; from=" + from},
				{plain, "*", 400, "bad-vip; from=" + from},
				{plain, "@T-2", 400, "bad-vip; from=" + from},
				{plain, strings.Repeat("x", 64), 400, "bad-vip; from=" + from},
				{vipA, "T-6", 200, "tested"}, // the address is a VIP
				{vipB, "T-2", 410, "ended; at=2025-11-29T12:00:00Z; task=T-1"},
			} {
				var header []string
				if tc.value != "" {
					header = send(tc.value)
				}
				for _, path := range []string{"/", "/kept", "/kept", "/fixed"} {
					got := b.answer(t, tc.to, path, header...)
					require.Equal(t, tc.status, got.status, "%s %s: %s", tc.value, path, got.body)
					if tc.to == plain {
						require.Contains(t, got.header.Values("Vary"), vary, "%s %s", tc.value,
							path)
					} else {
						require.NotContains(t, got.header.Values("Vary"), vary)
					}
					switch {
					case tc.status != 200:
						require.Equal(t, tc.want, got.header.Get("X-Sluice-Reason"))
					case path != "/fixed":
						name, _, _ := strings.Cut(got.body, " ")
						require.Equal(t, tc.want, name, "%s %s", tc.value, path)
					}
				}
			}
			if by == "header" {
				got := b.answer(t, plain, "/", "X-Task", "T-2", "X-Task", "T-6")
				require.Equal(t, 400, got.status)
			}
		})
	}
}

// A task that ends, or gets another VIP, is followed at once.
func TestSelectorFollowsTasks(t *testing.T) {
	t.Parallel()
	b := startTree(t, oneCluster, transform.Rules{Selector: transform.Selector{Header: "X-Task"}})
	s := nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("s", "1", echoing(t, "stable"))},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
			vipA: {"a": one("t", "2", echoing(t, "first"))},
			vipB: {"a": one("t", "2", echoing(t, "second"))}},
	}
	for _, tc := range []struct {
		vip  netip.Addr
		want string
	}{{vipA, "first"}, {vipB, "second"}, {netip.Addr{}, ""}, {vipA, "first"}} {
		s.Tasks = map[string]netip.Addr{"T": tc.vip}
		if !tc.vip.IsValid() {
			s.Tasks = nil
		}
		b.apply(t, s)
		got := b.answer(t, plain, "/", "X-Task", "T")
		if tc.want == "" {
			require.Equal(t, 410, got.status)
			continue
		}
		require.True(t, strings.HasPrefix(got.body, tc.want+" "), got.body)
	}
}

// A client of gRPC that names no VIP learns from the status that it is of no use to try again.
func TestGRPCNamesNoVIP(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    upstream a { server 10.9.9.1:80; }
    server { listen 80; location / { grpc_pass grpc://a; } }
}
`, transform.Rules{Selector: transform.Selector{Header: "X-Task"}})
	b.apply(t, nginxsync.Snapshot{})
	for value, status := range map[string]string{"!": "3", "T-1": "9"} {
		got := b.answer(t, plain, "/s/m", "X-Task", value, "Content-Type", "application/grpc")
		require.Equal(t, 200, got.status)
		require.Equal(t, status, got.header.Get("Grpc-Status"))
		require.NotEmpty(t, got.header.Get("Grpc-Message"))
	}
}

// A tree that sets baggage or X-Env-VIP itself sends each once: the VIP, then the tree's own
// members.
func TestBaggageOfTheTree(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    upstream a { server 10.9.9.1:80; }
    proxy_set_header BAGGAGE of=http;
    server {
        listen 80;
        location /http { proxy_pass http://a; }
        location /literal { proxy_set_header Baggage "k=v;p"; proxy_pass http://a; }
        location /passed { proxy_set_header baggage $http_baggage; proxy_pass http://a; }
        location /cleared { proxy_set_header baggage ""; proxy_pass http://a; }
        location /variable { proxy_set_header baggage $arg_t; proxy_pass http://a; }
        location /vip { proxy_set_header x-env-vip 10.9.9.9; proxy_pass http://a; }
    }
}
`, transform.Rules{TrustVIPHeader: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	b.apply(t, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
		"a": one("s", "1", echoing(t, "stable"))}})
	for path, want := range map[string]string{
		"/http":         ",of=http",
		"/literal":      ",k=v;p",
		"/passed":       ",x=y",
		"/cleared":      ",x=y", // of the peer, as where the tree sets none
		"/variable":     ",x=y",
		"/variable?t=1": ",x=y,1",
		"/vip":          ",x=y",
	} {
		if path == "/http" || path == "/literal" {
			want = ",x=y" + want
		}
		got := b.answer(t, plain, path, "baggage", "x=y")
		require.Equal(t, "stable 127.0.0.1 sluice-vip=127.0.0.1"+want, got.body, path)
	}
}
