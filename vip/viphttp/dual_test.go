package viphttp_test

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

func TestDualStack(t *testing.T) {
	t.Parallel()
	var pools []vip.Pool
	for _, ranges := range []string{"10.0.0.1-10.0.0.3", "fd00::1"} {
		p, err := vip.ParsePool(ranges, ranges)
		require.NoError(t, err)
		pools = append(pools, p)
	}
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: pools})
	require.NoError(t, err)
	handler, err := viphttp.New(viphttp.Config{Leases: a})
	require.NoError(t, err)
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	status, got := call(t, "POST", s.URL+"/leases", `{"owner":{"task":"T1"},"dualStack":true}`)
	require.Equal(t, 201, status, got)
	leases := got["leases"].([]any)
	require.Len(t, leases, 2)
	v4, v6 := leases[0].(map[string]any), leases[1].(map[string]any)
	require.Equal(t, []any{"10.0.0.1", "fd00::1"}, []any{v4["addr"], v6["addr"]})
	require.Equal(t, []any{v6["id"], v4["id"]}, []any{v4["peer"], v6["peer"]})
	status, got = call(t, "POST", s.URL+"/leases", `{"owner":{"task":"T2"},"dualStack":true}`)
	require.Equal(t, 503, status, got)
	status, got = call(t, "POST", s.URL+"/leases",
		`{"owner":{"task":"T2"},"dualStack":true,"count":2}`)
	require.Equal(t, 400, status, got)
	status, got = call(t, "DELETE", s.URL+"/leases/"+v6["id"].(string), "")
	require.Equal(t, 200, status, got)
	status, got = call(t, "GET", s.URL+"/leases/"+v4["id"].(string), "")
	require.Equal(t, 200, status, got)
	require.Equal(t, "cooling", got["state"])
}
