package agenthttp

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

func TestUnfit(t *testing.T) {
	t.Parallel()
	const lag = 10 * time.Second
	started := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	now := started.Add(time.Hour)
	older, newer := nginxsync.Generation{Number: 1, Digest: "a"},
		nginxsync.Generation{Number: 2, Digest: "b"}
	serves := func(g nginxsync.Generation, workers ...nginxsync.Generation) nginxsync.DriverState {
		s := nginxsync.DriverState{Applied: g}
		for i, w := range workers {
			s.Workers = append(s.Workers, nginxsync.Worker{Slot: i, Applied: w})
		}
		return s
	}
	for name, tc := range map[string]struct {
		look
		now  time.Time
		want string // a part of the reason; empty when the Nginx is fit
	}{
		"verified": {look{status: nginxsync.Status{Desired: newer},
			live: serves(newer, newer, newer)}, now, ""},
		"the source fails": {look{status: nginxsync.Status{Desired: newer, SourceError: "away"},
			live: serves(newer, newer)}, now, ""},
		"changes are held": {look{status: nginxsync.Status{Desired: newer,
			Held: []nginxsync.Held{{Cluster: "a"}}}, live: serves(newer, newer)}, now, ""},
		"a change in flight": {look{status: nginxsync.Status{Desired: newer,
			ChangedAt: now.Add(-lag)}, live: serves(older, older)}, now, ""},
		"late": {look{status: nginxsync.Status{Desired: newer,
			ChangedAt: now.Add(-lag - 1)}, live: serves(older, older)}, now, "10s are allowed"},
		"a worker that hangs": {look{status: nginxsync.Status{Desired: newer,
			VerifiedAt: now.Add(-lag - 1)}, live: serves(newer, newer, older)}, now,
			"not every worker"},
		"a new worker": {look{status: nginxsync.Status{Desired: newer, VerifiedAt: now.Add(-lag)},
			live: serves(newer, newer, nginxsync.Generation{})}, now, ""},
		"no answer": {look{status: nginxsync.Status{Desired: newer},
			err: errors.New("connection refused")}, now, "connection refused"},
		"nothing desired": {look{live: serves(newer, newer)}, now, "no routes yet"},
		"Nginx began empty": {look{status: nginxsync.Status{Desired: newer, VerifiedAt: now},
			live: serves(nginxsync.Generation{}, nginxsync.Generation{})}, now,
			"Nginx has no routes"},
		"fenced": {look{status: nginxsync.Status{Desired: newer, Fenced: "taken over"},
			live: serves(newer, newer)}, now, "taken over"},
		"resumed just now": {look{status: nginxsync.Status{Desired: newer, Resumed: true},
			live: serves(newer, newer)}, started.Add(lag - 1), "have not spoken"},
		"resumed, and the sources stay silent": {look{status: nginxsync.Status{Desired: newer,
			Resumed: true}, live: serves(newer, newer)}, started.Add(lag), ""},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			why := tc.unfit(tc.now, started, lag)
			require.Equal(t, tc.want == "", why == "", why)
			require.Contains(t, why, tc.want)
		})
	}
}

func TestIntent(t *testing.T) {
	t.Parallel()
	vip := netip.MustParseAddr("10.58.0.2")
	for id, want := range map[string]nginxsync.Intent{
		"baseline/a":  {Cluster: "a"},
		"10.58.0.2/a": {VIP: vip, Cluster: "a"},
		"10.58.0.2":   {VIP: vip},
		"@next/a":     {Branch: "next", Cluster: "a"},
		"@next":       {Branch: "next"},
	} {
		got, err := intent(id)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, id := range []string{"", "baseline", "baseline/", "10.58.0.2/", "@/a", "@", "x/a", "/a",
		"a"} {
		_, err := intent(id)
		require.ErrorIs(t, err, nginxsync.ErrInvalid, id)
	}
}

// Requests that a page of another site can have a browser send are refused, and change nothing.
func TestForeignRequestsAreRefused(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Targets: []Target{{Name: "a", Agent: opened(t), Driver: silent{}}}})
	require.NoError(t, err)
	server := httptest.NewServer(h)
	defer server.Close()
	for name, tc := range map[string]struct {
		host, header, value string
		want                int
	}{
		"a client":            {"", "", "", 200},
		"localhost":           {"localhost:9180", "", "", 200},
		"another site":        {"", "Sec-Fetch-Site", "cross-site", 403},
		"another origin":      {"", "Origin", "https://evil.example", 403},
		"another host's name": {"evil.example", "", "", 403},
	} {
		req, err := http.NewRequest(http.MethodPost, server.URL+"/v1/drain",
			strings.NewReader("{}"))
		require.NoError(t, err)
		req.Host = tc.host
		if tc.header != "" {
			req.Header.Set(tc.header, tc.value)
		}
		before := h.draining()
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, tc.want, resp.StatusCode, name)
		if tc.want != 200 {
			require.Equal(t, before, h.draining(), name)
		}
	}
}

// The page and the JSON show the same, and text of a source is no markup.
func TestPage(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Targets: []Target{{Name: "<b>", Agent: opened(t),
		Driver: silent{err: errors.New("nginx <i>is away</i>")}}},
		Sources: []Source{{Name: "consul", Kind: "consul", Status: func() any {
			return map[string]int{"services": 3}
		}}}})
	require.NoError(t, err)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1"+path, nil))
		return w.Code, w.Body.String()
	}
	code, text := get("/")
	require.Equal(t, 200, code)
	require.Contains(t, text, "Must not get requests")
	require.Contains(t, text, "nginx &lt;i&gt;is away&lt;/i&gt;")
	require.NotContains(t, text, "<b>")
	code, text = get("/v1/status")
	require.Equal(t, 200, code)
	require.Contains(t, text, `"services": 3`)
	require.Contains(t, text, `"ok": false`)
	code, text = get("/v1/held")
	require.Equal(t, 200, code)
	require.JSONEq(t, `{"held":[]}`, text)
	code, _ = get("/v1/explain?vip=x")
	require.Equal(t, 400, code)
	code, _ = get("/metrics")
	require.Equal(t, 404, code)
	public := httptest.NewRecorder()
	h.Public().ServeHTTP(public, httptest.NewRequest(http.MethodGet, "http://a/v1/status", nil))
	require.Equal(t, 404, public.Code)
}

// hangs is a driver of an Nginx that takes every question and answers none, but for its routes
// where those are let through.
type hangs struct {
	silent
	routed bool
}

func (h hangs) Routes(ctx context.Context) (nginxsync.Routes, error) {
	if h.routed {
		return h.routes, nil
	}
	<-ctx.Done()
	return nginxsync.Routes{}, context.Cause(ctx)
}

func (hangs) InFlight(ctx context.Context, _ []netip.AddrPort) (nginxsync.InFlight, error) {
	<-ctx.Done()
	return nginxsync.InFlight{}, context.Cause(ctx)
}

// A question to an Nginx that hangs ends by itself, and a count of requests says which one hangs.
func TestQuestionsAreBounded(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Timeout: 10 * time.Millisecond, Targets: []Target{
		{Name: "a", Agent: opened(t), Driver: hangs{}},
		{Name: "b", Agent: opened(t), Driver: hangs{routed: true}}}})
	require.NoError(t, err)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1"+path, nil))
		return w.Code, w.Body.String()
	}
	code, text := get("/v1/explain?nginx=a&vip=10.58.0.2&cluster=web")
	require.Equal(t, 503, code)
	require.Contains(t, text, "no answer within 10ms")
	code, text = get("/v1/inflight")
	require.Equal(t, 200, code)
	require.JSONEq(t, `{"requests": 0, "unknown": ["a: no answer within 10ms",
		"b: no answer within 2.01s"]}`, text)
}
