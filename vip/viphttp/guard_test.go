package viphttp_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	const token = "correct horse battery"
	s, a := serve(t, viphttp.Config{Token: token, Origins: []string{"https://deploy.example.com"}})
	good := http.Header{
		"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"},
		"Sec-Fetch-Site": {"same-origin"},
	}
	for name, test := range map[string]struct {
		change http.Header // of good; no value deletes
		status int
		code   string
	}{
		"as it should be":      {nil, 201, ""},
		"not from a browser":   {http.Header{"Sec-Fetch-Site": nil}, 201, ""},
		"typed into a browser": {http.Header{"Sec-Fetch-Site": {"none"}}, 201, ""},
		"trusted origin": {http.Header{"Sec-Fetch-Site": {"cross-site"},
			"Origin": {"https://deploy.example.com"}}, 201, ""},
		"another site": {http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403,
			"forbidden"},
		"another host of the site": {http.Header{"Sec-Fetch-Site": {"same-site"}}, 403,
			"forbidden"},
		"an old browser": {http.Header{"Sec-Fetch-Site": nil,
			"Origin": {"https://evil.example"}}, 403, "forbidden"},
		"a sandboxed page": {http.Header{"Sec-Fetch-Site": nil, "Origin": {"null"}}, 403,
			"forbidden"},
		"no token": {http.Header{"Authorization": nil}, 401, "unauthenticated"},
		"another token": {http.Header{"Authorization": {"Bearer " + token + "x"}}, 401,
			"unauthenticated"},
		"a prefix of the token": {http.Header{"Authorization": {"Bearer correct"}}, 401,
			"unauthenticated"},
		"another scheme": {http.Header{"Authorization": {"Basic " + token}}, 401,
			"unauthenticated"},
		"a form": {http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415,
			"unsupported-format"},
		"text": {http.Header{"Content-Type": {"text/plain"}}, 415,
			"unsupported-format"},
		"no type": {http.Header{"Content-Type": nil}, 415, "unsupported-format"},
		"two types": {http.Header{"Content-Type": {"text/plain, application/json"}},
			415, "unsupported-format"},
		"JSON with a character set": {http.Header{"Content-Type": {"Application/JSON; charset=utf-8"}}, 201, ""},
	} {
		t.Run(name, func(t *testing.T) {
			header := good.Clone()
			for k, v := range test.change {
				if header[k] = v; v == nil {
					delete(header, k)
				}
			}
			before := a.Revision()
			req, err := http.NewRequest("POST", s.URL+"/leases",
				strings.NewReader(`{"owner":{"task":"T1"}}`))
			require.NoError(t, err)
			req.Header = header
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, test.status, resp.StatusCode)
			if test.code != "" {
				var problem viphttp.Problem
				require.NoError(t, json.NewDecoder(resp.Body).Decode(&problem))
				require.Equal(t, test.code, string(problem.Code))
				require.NotContains(t, problem.Detail, token)
			}
			require.Equal(t, test.status == 401, resp.Header.Get("WWW-Authenticate") == "Bearer")
			if test.status != 201 {
				require.Equal(t, before, a.Revision(), "nothing was changed")
			}
		})
	}
}

// Every route that changes something is guarded, and every other route is open.
func TestGuardCoversEveryRoute(t *testing.T) {
	t.Parallel()
	s, a := serve(t, viphttp.Config{Token: "correct horse battery"})
	l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T1"}})
	require.NoError(t, err)
	for _, route := range [][2]string{
		{"POST", "/leases"}, {"POST", "/leases/" + l.ID + "/renew"},
		{"PUT", "/leases/" + l.ID + "/binding"},
		{"DELETE", "/leases/" + l.ID}, {"POST", "/addresses/10.0.0.1/quarantine"},
		{"POST", "/addresses/10.0.0.1/restore"},
	} {
		code, body := call(t, route[0], s.URL+route[1], "")
		require.Equal(t, 401, code, route)
		require.Equal(t, "unauthenticated", body["code"])
	}
	for _, path := range []string{"/leases", "/leases/" + l.ID, "/pools",
		"/history/10.0.0.1"} {
		code, _ := call(t, "GET", s.URL+path, "")
		require.Equal(t, 200, code, path)
	}
	now, err := a.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, now)
}

func TestNewRejectsBadConfig(t *testing.T) {
	t.Parallel()
	_, err := viphttp.New(viphttp.Config{
		Token: "short", Origins: []string{"deploy.example.com", "https://a/b"}, KeepAlive: -1,
		WriteTimeout: -1,
	})
	require.ErrorIs(t, err, vip.ErrInvalid)
	for _, field := range []string{"Leases", "Token", "Origins", "KeepAlive", "WriteTimeout"} {
		require.ErrorContains(t, err, "viphttp: Config."+field+": ")
	}
	require.NotContains(t, err.Error(), "short", "a secret is in no error")
}
