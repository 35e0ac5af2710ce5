package viphttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

// misled is a View with addresses that are not leased.
type misled struct {
	addrs    int
	repaired int
}

func (*misled) Name() string { return "nginx" }

func (m *misled) Observe(context.Context) (all []audit.Observation, err error) {
	ip := netip.MustParseAddr("10.0.0.2")
	for range m.addrs {
		all = append(all, audit.Observation{Addr: ip, Task: "ghost"})
		ip = ip.Next()
	}
	return all, nil
}

func (m *misled) Repair(context.Context, audit.Finding) error { m.repaired++; return nil }

func serveAudit(t *testing.T, view *misled) string {
	t.Helper()
	p, err := vip.ParsePool("p", "10.0.0.0/24")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T1"}})
	require.NoError(t, err)
	auditor, err := audit.New(audit.Config{Leases: a, Views: []audit.View{view}})
	require.NoError(t, err)
	handler, err := viphttp.New(viphttp.Config{Leases: a, Audit: auditor})
	require.NoError(t, err)
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL + "/audit"
}

func TestAuditRepairsOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	nginx := &misled{addrs: 2}
	url := serveAudit(t, nginx)
	for _, ask := range [][2]string{{"GET", ""}, {"POST", "{}"},
		{"POST", `{"apply":false,"allow":{"nginx":9}}`}} {
		code, body := call(t, ask[0], url, ask[1])
		require.Equal(t, 200, code)
		require.Len(t, body["findings"], 3, "two ghosts, and a lease that is not served")
		require.Zero(t, nginx.repaired, ask)
	}
	for _, ask := range []struct {
		method, url, body string
		status            int
	}{
		{"GET", url + "?apply=1", "", 400}, {"POST", url + "?apply=1", "{}", 400},
		{"POST", url, `{"aply":true}`, 400},
		{"POST", url, "", 415},
	} {
		code, _ := call(t, ask.method, ask.url, ask.body)
		require.Equal(t, ask.status, code, ask)
		require.Zero(t, nginx.repaired, ask)
	}
	code, body := call(t, "POST", url, `{"apply":true}`)
	require.Equal(t, 200, code)
	require.Equal(t, 3.0, body["repaired"])
	require.Equal(t, 3, nginx.repaired)
}

func TestAuditHeld(t *testing.T) {
	t.Parallel()
	nginx := &misled{addrs: 100}
	url := serveAudit(t, nginx)
	for _, body := range []string{`{"apply":true}`, `{"apply":true,"allow":{"nginx":100}}`} {
		code, body := call(t, "POST", url, body)
		require.Equal(t, 422, code)
		require.Equal(t, "refused", body["code"])
		require.Equal(t, 0.0, body["repaired"])
		held := body["held"].([]any)[0].(map[string]any)
		require.Equal(t, "nginx", held["view"])
		require.Equal(t, 101.0, held["changes"])
		require.Contains(t, body["detail"], "100 of its 100 addresses would be taken away or "+
			"changed, at most 10 at once")
		require.Zero(t, nginx.repaired)
	}
	code, body := call(t, "POST", url, `{"apply":true,"allow":{"nginx":101}}`)
	require.Equal(t, http.StatusOK, code, fmt.Sprint(body))
	require.Equal(t, 101, nginx.repaired)
}
