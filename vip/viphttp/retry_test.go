package viphttp_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

// A client that comes back after Retry-After finds an address that was due.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		ttl     time.Duration
		passed  time.Duration
		release bool
		status  int
		want    string
	}{
		"a lease that ends in a day": {24 * time.Hour, 0, false, 503, "300"},
		"a lease without end":        {vip.Forever, 0, false, 503, "300"},
		"cooling for 130 s":          {time.Hour, 0, true, 503, "130"},
		"cooling for 30.5 s more": {time.Hour, 99500 * time.Millisecond, true, 503,
			"31"},
		"cooling for a millisecond more": {time.Hour, 129999 * time.Millisecond, true, 503,
			"1"},
		"a lease that ends in half a minute": {30 * time.Second, 0, false, 503, "160"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := now
			p, err := vip.ParsePool("p", "10.0.0.1")
			require.NoError(t, err)
			a, err := vip.Open(t.Context(), vip.Config{
				Store: vip.NewMemStore(), Pools: []vip.Pool{p}, Now: func() time.Time {
					return clock
				},
			})
			require.NoError(t, err)
			l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T1"},
				TTL: test.ttl})
			require.NoError(t, err)
			if test.release {
				_, err = a.Release(t.Context(), l.ID, "")
				require.NoError(t, err)
			}
			clock = clock.Add(test.passed)
			handler, err := viphttp.New(viphttp.Config{Leases: a, Now: func() time.Time {
				return clock
			}})
			require.NoError(t, err)
			resp := post(handler, `{"owner":{"task":"T2"}}`)
			require.Equal(t, test.status, resp.Code, resp.Body)
			require.Equal(t, test.want, resp.Header().Get("Retry-After"))
		})
	}
}

func post(handler http.Handler, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", "/leases", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, req)
	return w
}

// A request that can never be met has another code than one that cannot be met now.
func TestExhaustedForEver(t *testing.T) {
	t.Parallel()
	full, err := vip.ParsePool("full", "10.0.0.1")
	require.NoError(t, err)
	full.Labels = map[string]string{"net": "a"}
	reserved, err := vip.ParsePool("reserved", "10.0.1.0/30")
	require.NoError(t, err)
	reserved.Labels = map[string]string{"net": "b"}
	for _, r := range []string{"10.0.1.1", "10.0.1.2"} {
		reserved.Reserved[mustAddr(r)] = "gateway"
	}
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(),
		Pools: []vip.Pool{full, reserved}})
	require.NoError(t, err)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T1"}, Pool: "full"})
	require.NoError(t, err)
	handler, err := viphttp.New(viphttp.Config{Leases: a})
	require.NoError(t, err)
	for body, code := range map[string]string{
		`{"owner":{"task":"T2"}}`:                        "exhausted",
		`{"owner":{"task":"T2"},"selector":{"net":"a"}}`: "exhausted",
		// nothing but reserved addresses
		`{"owner":{"task":"T2"},"selector":{"net":"b"}}`: "unsatisfiable",
		// no pool has the label
		`{"owner":{"task":"T2"},"selector":{"net":"c"}}`:                 "unsatisfiable",
		`{"owner":{"task":"T2"},"selector":{"net":"c"},"fallback":true}`: "exhausted",
		`{"owner":{"task":"T2"},"pool":"full","count":2}`:                "unsatisfiable",
		`{"owner":{"task":"T2"},"pool":"reserved"}`:                      "unsatisfiable",
	} {
		resp := post(handler, body)
		var problem viphttp.Problem
		require.NoError(t, json.Unmarshal(resp.Body.Bytes(), &problem))
		require.Equal(t, code, string(problem.Code), body)
		require.Equal(t, code == "exhausted", resp.Header().Get("Retry-After") != "", body)
		require.Equal(t, map[string]int{"exhausted": 503, "unsatisfiable": 409}[code], resp.Code,
			body)
	}
}

// A lease as it is answered can be sent back, and read by the type it is of.
func TestDurationsAreTheSameTextInAndOut(t *testing.T) {
	t.Parallel()
	s, a := serve(t, viphttp.Config{})
	for _, ttl := range []string{"1h0m0s", "90s", "forever"} {
		code, body := call(t, "POST", s.URL+"/leases", `{"owner":{"task":"T1"},"ttl":"`+ttl+`"}`)
		require.Equal(t, 201, code)
		lease := first(body)
		want := map[string]string{"90s": "1m30s"}[ttl]
		if want == "" {
			want = ttl
		}
		require.Equal(t, want, lease["ttl"])
		code, _ = call(t, "POST", s.URL+"/leases/"+lease["id"].(string)+"/renew",
			fmt.Sprintf(`{"ttl":%q}`, lease["ttl"]))
		require.Equal(t, 200, code)
		text, err := json.Marshal(lease)
		require.NoError(t, err)
		var read vip.Lease
		require.NoError(t, json.Unmarshal(text, &read))
		now, err := a.Get(t.Context(), read.ID)
		require.NoError(t, err)
		require.Equal(t, now.TTL, read.TTL)
		_, err = a.Release(t.Context(), read.ID, "")
		require.NoError(t, err)
	}
}

// Only its owner may end a lease: an error for another client shows neither the lease's id nor the
// task, in whichever state the address is.
func TestErrorsDoNotNameAnothersLease(t *testing.T) {
	t.Parallel()
	p, err := vip.ParsePool("p", "10.0.0.1")
	require.NoError(t, err)
	p.CoolDown = -1
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	mine, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T1"}})
	require.NoError(t, err)
	_, err = a.Release(t.Context(), mine.ID, "")
	require.NoError(t, err)
	other, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "hidden"}})
	require.NoError(t, err)
	handler, err := viphttp.New(viphttp.Config{Leases: a})
	require.NoError(t, err)
	guess := strings.Replace(mine.ID, "-1-", "-2-", 1) // of the right address and generation
	for _, ask := range [][3]string{
		{"POST", "/leases", `{"owner":{"task":"T1"}}`},
		{"POST", "/leases", `{"owner":{"task":"T1"},"addr":"10.0.0.1"}`},
		{"GET", "/leases/" + mine.ID, ""},
		{"GET", "/leases/" + guess, ""},
		{"POST", "/leases/" + mine.ID + "/renew", `{}`},
		{"POST", "/leases/" + guess + "/renew", `{}`},
		{"PUT", "/leases/" + mine.ID + "/binding", `{"instances":[]}`},
		{"DELETE", "/leases/" + mine.ID, ""},
		{"DELETE", "/leases/" + guess, ""},
	} {
		req := httptest.NewRequest(ask[0], ask[1], strings.NewReader(ask[2]))
		if ask[2] != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		require.GreaterOrEqual(t, w.Code, 400, ask)
		require.NotContains(t, w.Body.String(), other.ID, ask)
		require.NotContains(t, w.Body.String(), "hidden", ask)
	}
	now, err := a.Get(t.Context(), other.ID)
	require.NoError(t, err)
	require.Equal(t, vip.Leased, now.State)
}
