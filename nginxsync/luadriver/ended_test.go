//go:build linux

package luadriver_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// answered is an answer with its header.
type answered struct {
	status int
	header http.Header
	body   string
}

func (b *bed) answer(t *testing.T, to netip.Addr, path string, header ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		fmt.Sprintf("http://%s%s", netip.AddrPortFrom(to, uint16(b.port)), path), nil)
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	req.Close = true
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answered{resp.StatusCode, resp.Header, string(body)}
}

// apply puts a snapshot into Nginx as a change of the one before.
func (b *bed) apply(t *testing.T, s nginxsync.Snapshot) {
	t.Helper()
	before, err := b.driver.Routes(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Validate())
	next := nginxsync.NewRoutes(before.Generation.Number+1, s)
	delta := nginxsync.NewDelta(before, next)
	delta.Full = before.Generation == nginxsync.Generation{}
	require.NoError(t, b.driver.Apply(t.Context(), delta))
	read, err := b.driver.Routes(t.Context())
	require.NoError(t, err)
	require.Equal(t, next, read)
}

// filteringTree has directives that answer, change or keep an answer before Nginx asks an upstream.
const filteringTree = `
events { }
http {
    proxy_cache_path /var/cache/nginx/p keys_zone=p:1m;
    proxy_cache_valid any 1h;
    proxy_cache p;
    add_header X-Cache $upstream_cache_status always;
    error_page 404 410 /other;
    expires 1h;
    add_after_body /other;
    addition_types *;
    upstream a { server 10.9.9.1:80; }
    server {
        listen 80;
        if ($arg_away) { return 301 http://elsewhere.example/; }
        location / { auth_basic closed; auth_basic_user_file /dev/null; proxy_pass http://a; }
        location /open { proxy_pass http://a; }
        location = /other { return 200 other; }
        location /fixed { return 200 fixed; }
        location ~ ^(.*)\.css$ { return 200 style; }
    }
    server {
        listen 80;
        server_name ~^(named)\.;
        if ($arg_away) { return 301 http://elsewhere.example/; }
        location / { return 200 $1; }
    }
}
`

// An address that no lease has answers 410 and says so, whatever the path; the addresses around it
// go on as before.
func TestAddressWithoutLease(t *testing.T) {
	t.Parallel()
	b := startTree(t, filteringTree,
		transform.Rules{Paths: map[string]string{"/dev/null": "/dev/null"}})
	stable, tested := nginxtest.Backend(t, "stable"), nginxtest.Backend(t, "tested")
	ended := nginxsync.Scope{Ended: nginxsync.Ended{Task: "T-1", At: time.Unix(1764417600, 5),
		Versions: map[string]string{"a": "2", "b": "7"}}}
	s := nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("s", "1", stable)},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
			vipA: {"a": one("t", "2", tested)}},
		Scopes: map[netip.Addr]nginxsync.Scope{vipB: ended},
		Pools: []nginxsync.Range{{First: netip.MustParseAddr("127.58.0.2"),
			Last: netip.MustParseAddr("127.58.0.9")}},
	}
	b.apply(t, s)
	never, beyond := netip.MustParseAddr("127.58.0.9"), netip.MustParseAddr("127.58.0.10")
	serves := func(to netip.Addr, version string) {
		t.Helper()
		got := b.answer(t, to, "/open")
		require.Equal(t, http.StatusOK, got.status)
		require.Equal(t, version, got.header.Get("X-Sluice-Version"))
		require.Empty(t, got.header.Get("X-Sluice-Reason"))
		require.Equal(t, "fixedother", b.answer(t, to, "/fixed").body)
	}
	gone := func(to netip.Addr, reason, text string) {
		t.Helper()
		for _, path := range []string{"/open", "/", "/fixed", "/a.css", "/?away=1",
			"/.sluice/gone"} {
			got := b.answer(t, to, path)
			require.Equal(t, http.StatusGone, got.status, path)
			require.Equal(t, text, got.body)
			require.Equal(t, reason, got.header.Get("X-Sluice-Reason"))
			require.Equal(t, "none", got.header.Get("X-Sluice-Version"))
			require.Equal(t, to.String(), got.header.Get("X-Sluice-Vip"))
			require.Equal(t, []string{"no-store"}, got.header["Cache-Control"])
			require.Equal(t, "text/plain", got.header.Get("Content-Type"))
		}
	}
	endedReason := "ended; at=2025-11-29T12:00:00Z; task=T-1; version=a:2; version=b:7"
	endedText := "No task has the address 127.58.0.3 now. Task T-1 (a 2, b 7) had it until " +
		"2025-11-29T12:00:00Z.\n"
	neverText := "No task has the address 127.58.0.9.\n"
	serves(plain, "1")
	serves(vipA, "2")
	serves(beyond, "1")
	gone(vipB, endedReason, endedText)
	gone(never, "no-lease", neverText)
	require.Equal(t, http.StatusGone, b.answer(t, never, "/?away=1", "Host", "named.x").status)

	// An overlay of the address counts: the guard may hold it beyond the end of the lease.
	s.Overlays = map[netip.Addr]map[string][]nginxsync.Instance{vipB: {"a": one("t", "2", tested)}}
	b.apply(t, s)
	serves(vipB, "2")
	gone(vipA, "no-lease", "No task has the address 127.58.0.2.\n")

	// A lease without an overlay.
	s.Overlays, s.Scopes = nil, map[netip.Addr]nginxsync.Scope{vipA: {}}
	b.apply(t, s)
	serves(vipA, "1")
	gone(vipB, "no-lease", "No task has the address 127.58.0.3.\n")

	// Without pools an address is answered by the baseline.
	s.Scopes, s.Pools = map[netip.Addr]nginxsync.Scope{vipB: ended}, nil
	b.apply(t, s)
	serves(never, "1")
	gone(vipB, endedReason, endedText)
	s.Scopes[vipB] = nginxsync.Scope{Ended: nginxsync.Ended{At: ended.Ended.At}}
	b.apply(t, s)
	gone(vipB, "ended; at=2025-11-29T12:00:00Z", "No task has the address 127.58.0.3 now. "+
		"Another task had it until 2025-11-29T12:00:00Z.\n")
	s.Scopes = nil
	b.apply(t, s)
	serves(vipB, "1")
}

// A client of gRPC learns from the status that it is of no use to try again.
func TestGRPCOnAddressWithoutLease(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    upstream a { server 10.9.9.1:80; }
    server { listen 80; location / { grpc_pass grpc://a; } }
}
`, transform.Rules{})
	b.apply(t, nginxsync.Snapshot{Pools: []nginxsync.Range{{First: vipA, Last: vipA}}})
	got := b.answer(t, vipA, "/pkg.Service/Method", "Content-Type", "application/grpc+proto")
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "9", got.header.Get("Grpc-Status"))
	require.Equal(t, "no-lease", got.header.Get("Grpc-Message"))
	require.Equal(t, "application/grpc", got.header.Get("Content-Type"))
	require.Empty(t, got.body)
	require.Equal(t, http.StatusGone, b.answer(t, vipA, "/pkg.Service/Method").status)
}

// Nginx and Resolve decide alike, after any changes.
func TestNginxResolves(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    upstream a { server 10.9.9.1:80; }
    upstream b { server 10.9.9.2:80; }
    upstream c { server 10.9.9.3:80; }
    server {
        listen 80;
        location /a { proxy_pass http://a; }
        location /b { proxy_pass http://b; }
        location /c { proxy_pass http://c; }
    }
}
`, transform.Rules{})
	r := rand.New(rand.NewPCG(7, 7))
	backend := nginxtest.Backend(t, "all")
	names, branches := []string{"a", "b", "c"}, []string{"x", "Y", "z-1"}
	clusters := func(what string) map[string][]nginxsync.Instance {
		m := map[string][]nginxsync.Instance{}
		for _, name := range names {
			switch r.IntN(4) {
			case 0:
				m[name] = []nginxsync.Instance{}
			case 1, 2:
				m[name] = one(name, what, backend)
			}
		}
		return m
	}
	var s nginxsync.Snapshot
	for range 60 {
		next := nginxsync.Snapshot{Baseline: clusters("baseline"),
			Overlays: map[netip.Addr]map[string][]nginxsync.Instance{},
			Branches: map[string]map[string][]nginxsync.Instance{},
			Scopes:   map[netip.Addr]nginxsync.Scope{}}
		for _, branch := range branches {
			if next.Branches[branch] = clusters(branch); r.IntN(2) == 0 && s.Branches != nil {
				next.Branches[branch] = s.Branches[branch]
			}
		}
		for _, vip := range []netip.Addr{vipA, vipB} {
			if r.IntN(2) == 0 {
				next.Overlays[vip] = clusters("vip")
			}
			switch scope := (nginxsync.Scope{}); r.IntN(4) {
			case 0:
				scope.Ended = nginxsync.Ended{Task: "t", At: time.Unix(int64(r.IntN(1e9)+1), 0)}
				next.Scopes[vip] = scope
			case 1, 2:
				for range r.IntN(3) {
					scope.Branches = append(scope.Branches, branches[r.IntN(3)])
				}
				next.Scopes[vip] = scope
			}
		}
		if r.IntN(2) == 0 {
			next.Pools = []nginxsync.Range{{First: vipA, Last: vipA}, {First: vipB, Last: vipB}}
		}
		s = next
		b.apply(t, s)
		for _, vip := range []netip.Addr{plain, vipA, vipB} {
			for _, cluster := range names {
				want := s.Resolve(vip, cluster)
				version := "none"
				if want.Status == http.StatusOK {
					version = want.Instances[0].Version
				}
				got := b.answer(t, vip, "/"+cluster)
				require.Equal(t, want.Status, got.status, "%s %s %+v", vip, cluster, s)
				require.Equal(t, version, got.header.Get("X-Sluice-Version"), "%s %s: %s: %+v",
					vip, cluster, slices.Sorted(slices.Values(want.Why)), s)
			}
		}
	}
}

// A trusted peer that names an address is answered as the address is; the word of another counts
// for nothing.
func TestNamedAddressWithoutLease(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		trusted string
		status  int
	}{{"127.0.0.0/8", http.StatusGone}, {"192.0.2.0/24", http.StatusOK}} {
		t.Run(tc.trusted, func(t *testing.T) {
			t.Parallel()
			b := startTree(t, `
events { }
http {
    upstream a { server 10.9.9.1:80; }
    server { listen 80; location / { proxy_pass http://a; } }
}
`, transform.Rules{TrustVIPHeader: []netip.Prefix{netip.MustParsePrefix(tc.trusted)}})
			b.apply(t, nginxsync.Snapshot{
				Baseline: map[string][]nginxsync.Instance{
					"a": one("s", "1", nginxtest.Backend(t, "stable"))},
				Pools: []nginxsync.Range{{First: vipA, Last: vipB}}})
			for _, name := range []string{vipA.String(), "::ffff:" + vipA.String()} {
				got := b.answer(t, plain, "/", "X-Env-VIP", name)
				require.Equal(t, tc.status, got.status, name)
			}
			require.Equal(t, http.StatusOK, b.answer(t, plain, "/").status)
		})
	}
}
