package agenthttp

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// An explanation says what Snapshot.Resolve decides, for a cluster and for a URL alike; a URL that
// Nginx answers itself gets 410 too, on an address that takes no requests.
func TestExplainFollowsScopes(t *testing.T) {
	t.Parallel()
	at := func(id string) []nginxsync.Instance {
		return []nginxsync.Instance{{ID: id, Addr: netip.MustParseAddrPort("10.9.0.1:80"),
			Weight: 1, Version: id}}
	}
	addr := netip.MustParseAddr
	routes := nginxsync.Routes{Snapshot: nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"web": at("base"), "api": at("base"), "idle": {}},
		Branches: map[string]map[string][]nginxsync.Instance{
			"one": {"web": at("one"), "api": {}}, "two": {"web": at("two"), "new": at("two")}},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
			addr("10.58.0.1"): {"web": at("own")}, addr("10.58.0.2"): {"web": {}},
			addr("10.58.0.6"): {"web": at("own")}},
		Scopes: map[netip.Addr]nginxsync.Scope{
			addr("10.58.0.1"): {Branches: []string{"one"}},
			addr("10.58.0.3"): {Branches: []string{"one", "two"}},
			addr("10.58.0.4"): {},
			addr("10.58.0.5"): {Ended: nginxsync.Ended{Task: "T-1", At: time.Unix(1e9, 0)}},
			addr("10.58.0.6"): {Ended: nginxsync.Ended{Task: "T-1", At: time.Unix(1e9, 0)}},
		},
		Pools: []nginxsync.Range{{First: addr("10.58.0.0"), Last: addr("10.58.0.99")}},
	}}
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(`
		events { }
		http {
			upstream web { server 10.9.9.1:80; }
			upstream api { server 10.9.9.1:80; }
			upstream new { server 10.9.9.1:80; }
			upstream idle { server 10.9.9.1:80; }
			server {
				listen 80;
				location /web/ { proxy_pass http://web; }
				location /api/ { proxy_pass http://api; }
				location /new/ { proxy_pass http://new; }
				location /idle/ { proxy_pass http://idle; }
				location / { return 301 /web/; }
			}
		}`)}}, "nginx.conf")
	require.NoError(t, err)
	h, err := New(Config{Targets: []Target{{Name: "a", Agent: opened(t),
		Driver: silent{routes: routes},
		Tree:   func(context.Context) (*conf.Tree, error) { return tree, nil }}}})
	require.NoError(t, err)
	explained := func(query url.Values) (e Explanation) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet,
			"http://127.0.0.1/v1/explain?"+query.Encode(), nil))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
		return e
	}
	statuses := map[int]int{}
	for _, vip := range []string{"10.58.0.1", "10.58.0.2", "10.58.0.3", "10.58.0.4", "10.58.0.5",
		"10.58.0.6", "10.58.0.7", "10.59.0.1"} {
		for _, cluster := range []string{"web", "api", "new", "idle"} {
			want := routes.Snapshot.Resolve(addr(vip), cluster)
			statuses[want.Status]++
			for name, value := range map[string]string{"cluster": cluster,
				"url": "http://a.example/" + cluster + "/"} {
				got := explained(url.Values{"vip": {vip}, name: {value}})
				why := strings.Join(got.Why, "\n")
				require.Len(t, got.Instances, len(want.Instances), why)
				for i, in := range want.Instances {
					require.Equal(t, Instance(in), got.Instances[i], why)
				}
				scope := want.From
				if strings.HasPrefix(scope, "vip ") {
					scope = "overlay"
				}
				require.Equal(t, scope, got.Scope, why)
				if want.Status == http.StatusOK {
					require.Zero(t, got.Status, why)
				} else {
					require.Equal(t, want.Status, got.Status, why)
				}
			}
		}
		own := explained(url.Values{"vip": {vip}, "url": {"http://a.example/"}})
		if routes.Snapshot.Resolve(addr(vip), "").Status == http.StatusGone {
			require.Equal(t, http.StatusGone, own.Status)
		} else {
			require.Equal(t, http.StatusMovedPermanently, own.Status)
		}
	}
	require.Len(t, statuses, 3, "200, 410 and 503")
}

// A change of a branch concerns the VIPs that name the branch.
func TestExplainOfABranchThatIsHeld(t *testing.T) {
	t.Parallel()
	vip := netip.MustParseAddr("10.58.0.1")
	status := nginxsync.Status{
		Held:     []nginxsync.Held{{Branch: "one", Cluster: "web"}},
		SetAside: []nginxsync.SetAside{{Branch: "one", Cluster: "web"}},
	}
	for branch, want := range map[string]int{"one": 2, "two": 0} {
		e := Explanation{VIP: vip, Cluster: "web"}
		e.serve(nginxsync.Routes{Snapshot: nginxsync.Snapshot{
			Scopes: map[netip.Addr]nginxsync.Scope{vip: {Branches: []string{branch}}},
		}}, status)
		text := strings.Join(e.Why, "\n")
		require.Equal(t, want, strings.Count(text, "held: ")+strings.Count(text, "set aside: "), text)
	}
}

// Requests in flight to the instances of a branch count, or a host would be taken for idle.
func TestAddresses(t *testing.T) {
	t.Parallel()
	at := func(addr string) map[string][]nginxsync.Instance {
		return map[string][]nginxsync.Instance{"web": {{Addr: netip.MustParseAddrPort(addr)}}}
	}
	require.ElementsMatch(t, []netip.AddrPort{netip.MustParseAddrPort("10.9.0.1:80"),
		netip.MustParseAddrPort("10.9.0.2:80"), netip.MustParseAddrPort("10.9.0.3:80")},
		addresses(nginxsync.Snapshot{Baseline: at("10.9.0.1:80"),
			Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
				netip.MustParseAddr("10.58.0.1"): at("10.9.0.2:80"),
				netip.MustParseAddr("10.58.0.2"): at("10.9.0.1:80")},
			Branches: map[string]map[string][]nginxsync.Instance{"one": at("10.9.0.3:80")}}))
}
