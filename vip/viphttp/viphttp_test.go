package viphttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

func serve(t testing.TB, cfg viphttp.Config) (*httptest.Server, *vip.Allocator) {
	t.Helper()
	p, err := vip.ParsePool("p", "10.0.0.1-10.0.0.3")
	require.NoError(t, err)
	p.Labels = map[string]string{"region": "bj", "net": "a"}
	a, err := vip.Open(context.Background(), vip.Config{Store: vip.NewMemStore(),
		Pools: []vip.Pool{p}})
	require.NoError(t, err)
	cfg.Leases = a
	handler, err := viphttp.New(cfg)
	require.NoError(t, err)
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s, a
}

func call(t testing.TB, method, url, body string) (int, map[string]any) {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, content)
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var out map[string]any
	require.NoError(t, json.Unmarshal(data, &out), "%s %s: %d %s", method, url, resp.StatusCode,
		data)
	if resp.StatusCode >= 400 {
		require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
	}
	return resp.StatusCode, out
}

func first(body map[string]any) map[string]any { return body["leases"].([]any)[0].(map[string]any) }

func TestALeaseFromBeginningToEnd(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 100)
	s, _ := serve(t, viphttp.Config{Observe: func(op string, _ time.Duration, err error) {
		seen <- fmt.Sprint(op, " ", err)
	}})
	code, body := call(t, "POST", s.URL+"/leases",
		`{"owner":{"task":"T1","overrides":{"web":"v2"}},"ttl":"1h"}`)
	require.Equal(t, 201, code)
	require.Equal(t, "POST /leases <nil>", <-seen)
	lease := first(body)
	require.Equal(t, "10.0.0.1", lease["addr"])
	require.Equal(t, "leased", lease["state"])
	url := s.URL + "/leases/" + lease["id"].(string)

	code, body = call(t, "PUT", url+"/binding",
		`{"instances":[{"id":"c1","addr":"192.0.2.1:80","cluster":"web","version":"v2"}]}`)
	require.Equal(t, 200, code)
	require.Len(t, body["binding"].(map[string]any)["instances"], 1)
	code, _ = call(t, "POST", url+"/renew", `{"ttl":"forever"}`)
	require.Equal(t, 200, code)
	for _, q := range []string{"addr=10.0.0.1", "task=T1", "cluster=web&version=v2",
		"instanceAddr=192.0.2.1:80", "instance=c1", "state=leased", "label=region=bj&label=net=a"} {
		code, body = call(t, "GET", s.URL+"/leases?state=leased&state=draining&"+q, "")
		require.Equal(t, 200, code, q)
		require.Len(t, body["leases"], 1, q)
	}
	code, body = call(t, "GET", s.URL+"/leases?label=region=sh", "")
	require.Equal(t, 200, code)
	require.Empty(t, body["leases"])
	code, body = call(t, "GET", s.URL+"/pools", "")
	require.Equal(t, 200, code)
	require.Equal(t, 1.0, body["pools"].([]any)[0].(map[string]any)["leased"])
	code, body = call(t, "DELETE", url+"?reason=finished", "")
	require.Equal(t, 200, code)
	require.Equal(t, "cooling", body["state"])
	code, body = call(t, "GET", s.URL+"/history/10.0.0.1", "")
	require.Equal(t, 200, code)
	require.Equal(t, "finished", first(body)["reason"])
	code, _ = call(t, "GET", url, "")
	require.Equal(t, 200, code)
	code, body = call(t, "POST", s.URL+"/addresses/10.0.0.2/quarantine",
		`{"reason":"flaps","rest":"1h"}`)
	require.Equal(t, 200, code)
	require.Equal(t, "quarantined", body["state"])
	code, _ = call(t, "POST", s.URL+"/addresses/10.0.0.2/restore", `{}`)
	require.Equal(t, 200, code)
	code, _ = call(t, "GET", s.URL+"/audit", "")
	require.Equal(t, 404, code, "there is no auditor")
}

// flipped is id with another end: of the right address and generation, but never given.
func flipped(id string) string {
	end := byte('a')
	if id[len(id)-1] == end {
		end = 'b'
	}
	return id[:len(id)-1] + string(end)
}

func TestProblems(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, viphttp.Config{})
	_, body := call(t, "POST", s.URL+"/leases", `{"owner":{"task":"T1","overrides":{"web":"v1"}}}`)
	id := first(body)["id"].(string)
	for _, c := range []struct {
		method, path, body string
		status             int
		code, detail       string
	}{
		{"POST", "/leases", `{"owner":{"task":"T1","overrides":{"web":"v2"}}}`, 409, "conflict",
			`overrides.web is "v1", asked for "v2"`},
		{"POST", "/leases", `{"owner":{"task":"T2"},"count":3}`, 503, "exhausted", "2 free"},
		{"POST", "/leases", `{"owner":{"task":"T2"},"count":4}`, 409, "unsatisfiable",
			"fewer addresses"},
		{"POST", "/leases", `{"owner":{"task":"T2"},"count":4,"wait":"1m"}`, 409, "unsatisfiable",
			"fewer addresses"},
		{"POST", "/leases", `{"owner":{"task":"T2"},"count":3,"wait":"1ms"}`, 503, "exhausted",
			"exhausted"},
		{"POST", "/leases", `{"owner":{"task":"T2"},"count":3,"wait":"1ns"}`, 503, "exhausted",
			"exhausted"},
		{"POST", "/leases", `{"owner":{"task":"T2"},"addr":"10.0.0.1"}`, 409, "taken",
			"leased, until"},
		{"POST", "/leases", `{"owner":{"task":"T2"},"pool":"none"}`, 404, "not-found",
			`pool "none"`},
		{"POST", "/leases", `{"owner":{}}`, 400, "invalid", "Request.Owner.Task"},
		{"POST", "/leases", `{"oner":{}}`, 400, "invalid", `unknown field "oner"`},
		{"POST", "/leases", `{"owner":{},"owner":{}}`, 400, "invalid", `"owner" comes twice`},
		{"POST", "/leases", `{"Owner":{}}`, 400, "invalid", `want "owner"`},
		{"POST", "/leases", `{"owner":{"task":"T2"},"ttl":"-1s"}`, 400, "invalid",
			`duration "-1s"`},
		{"POST", "/leases", `{}{}`, 400, "invalid", "want one JSON value"},
		{"POST", "/leases/" + id + "/renew", `{"generation":1}`, 400, "invalid",
			`unknown field "generation"`},
		{"POST", "/leases/" + id + "x/renew", `{}`, 404, "not-found", "want an ID as Allocate"},
		{"POST", "/leases/" + flipped(id) + "/renew", `{}`, 409, "fenced", "it is over"},
		{"PUT", "/leases/" + id + "/binding", `{}`, 400, "invalid", "instances: want a list"},
		{"PUT", "/leases/" + id + "/binding", `{"instances":null}`, 400, "invalid",
			"instances: want a list"},
		{"GET", "/leases/10.0.0.1-9", "", 404, "not-found", "10.0.0.1-9"},
		{"GET", "/leases?tsk=T1", "", 400, "invalid",
			`parameter "tsk": want one of limit, after, addr, task`},
		{"GET", "/leases?vip=10.0.0.1", "", 400, "invalid", `parameter "vip": want one of`},
		{"GET", "/leases?addr=192.0.2.1:80", "", 400, "invalid", "parameter addr"},
		{"GET", "/leases?instanceAddr=10.0.0.1", "", 400, "invalid", "parameter instanceAddr"},
		{"GET", "/locate", "", 404, "not-found", "not served here"},
		{"GET", "/leases?limit=0", "", 400, "invalid", `parameter limit: "0": want 1 to 100000`},
		{"GET", "/leases?limit=ten", "", 400, "invalid", "parameter limit"},
		{"GET", "/leases?after=here", "", 400, "invalid", "parameter after"},
		{"GET", "/leases?limit=1&limit=2", "", 400, "invalid", "given more than once"},
		{"GET", "/leases?label=region", "", 400, "invalid", "want KEY=VALUE"},
		{"GET", "/leases?label=a=1&label=a=2", "", 400, "invalid", "each key once"},
		{"GET", "/leases?state=gone", "", 400, "invalid", `state "gone"`},
		{"GET", "/history/10.0.0.1?at=noon", "", 400, "invalid", "want a time such as"},
		{"GET", "/history/10.0.0.1?at=2001-01-01T00:00:00Z", "", 404, "not-found",
			"holder of 10.0.0.1"},
		{"POST", "/addresses/10.0.9.9/quarantine", `{}`, 404, "not-found", "10.0.9.9"},
		{"GET", "/watch?after=x", "", 400, "invalid", `revision "x"`},
		{"POST", "/leases", `{"owner":{"task":"T2"},"count":-5}`, 400, "invalid", "-5 addresses"},
		{"GET", "/leases?task=a&task=b", "", 400, "invalid",
			`parameter "task": given more than once`},
		{"GET", "/leases?task=", "", 400, "invalid", `parameter "task": has no value`},
		{"GET", "/leases?task=a;team=b", "", 400, "invalid", "query: "},
		{"GET", "/pools?pool=p", "", 400, "invalid", `parameter "pool": want none`},
		{"GET", "/watch?from=7", "", 400, "invalid", `parameter "from": want one of after`},
		{"DELETE", "/leases/" + id + "?reason=a&reason=b", "", 400, "invalid",
			"given more than once"},
		{"DELETE", "/leases/" + id + "?reson=x", "", 400, "invalid",
			"want one of reason"},
		{"DELETE", "/leases/" + id, "{}", 400, "invalid", "a DELETE has none"},
		{"POST", "/leases/" + id + "/renew?ttl=1h", `{}`, 400, "invalid",
			`parameter "ttl": want none`},
		{"POST", "/leases", `{"owner":{"task":"T2"}}` + strings.Repeat(" ", 1<<20), 413,
			"too-large", "more than 1048576"},
		{"POST", "/leases", `{"owner":`, 400, "invalid", "unexpected EOF"},
		{"POST", "/leases", ` `, 400, "invalid", "want a JSON object"},
		{"POST", "/leases", `{"owner":{"task":"T2"},"pool":"p","selector":{"region":"sh"}}`, 409,
			"unsatisfiable", "no enabled pool"},
		{"POST", "/leases", `{"owner":{"task":"T 2"}}`, 400, "invalid", `task "T 2"`},
		{"POST", "/leases", `{"owner":{"task":"` + strings.Repeat("x", 1<<20) + `"}}`, 413,
			"too-large", "more than 1048576 bytes"},
		{"GET", "/nothing", "", 404, "not-found", "GET /nothing"},
		{"PATCH", "/leases", `{}`, 405, "method-not-allowed", "GET, HEAD, POST"},
	} {
		status, body := call(t, c.method, s.URL+c.path, c.body)
		what := c.method + " " + c.path + " " + c.body
		require.Equal(t, c.status, status, what)
		require.Equal(t, c.code, body["code"], what)
		require.Contains(t, body["detail"], c.detail, what)
		require.Equal(t, []any{nil, http.StatusText(c.status), float64(c.status)},
			[]any{body["type"], body["title"], body["status"]}, what)
	}
}

func TestWatchResumes(t *testing.T) {
	t.Parallel()
	s, a := serve(t, viphttp.Config{KeepAlive: 5 * time.Millisecond})
	open := func(query string, header ...string) (next func() (kind, id string), end func()) {
		req, err := http.NewRequest("GET", s.URL+"/watch"+query, nil)
		require.NoError(t, err)
		for _, last := range header {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		lines := bufio.NewScanner(resp.Body)
		return func() (kind, id string) {
			for lines.Scan() {
				switch line := lines.Text(); {
				case strings.HasPrefix(line, "event: "):
					kind = line[7:]
				case strings.HasPrefix(line, "id: "):
					id = line[4:]
				case line == "" && kind != "":
					return kind, id
				}
			}
			return "", ""
		}, func() { _ = resp.Body.Close() }
	}
	next, end := open("")
	kind, start := next()
	require.Equal(t, "hello", kind)
	l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T1"}})
	require.NoError(t, err)
	kind, allocated := next()
	require.Equal(t, "allocated", kind)
	_, err = a.Release(t.Context(), l.ID, "")
	require.NoError(t, err)
	kind, _ = next()
	require.Equal(t, "ended", kind)
	end()

	next, end = open("?after=" + start)
	for _, want := range []string{"hello", "allocated", "ended"} {
		kind, _ = next()
		require.Equal(t, want, kind)
	}
	end()
	// as a browser that comes back: where it began, and the last revision that it has seen
	next, end = open("?after="+start, allocated)
	for _, want := range []string{"hello", "ended"} {
		kind, _ = next()
		require.Equal(t, want, kind)
	}
	end()
	next, end = open("?after=1")
	defer end()
	for _, want := range []string{"hello", "reset"} {
		kind, _ = next()
		require.Equal(t, want, kind)
	}
}

func ExampleNew() {
	pool, _ := vip.ParsePool("test", "127.58.0.0/24")
	a, _ := vip.Open(context.Background(), vip.Config{Store: vip.NewMemStore(),
		Pools: []vip.Pool{pool}})
	handler, _ := viphttp.New(viphttp.Config{Leases: a})
	server := httptest.NewServer(http.StripPrefix("/api/v1", handler))
	defer server.Close()

	resp, _ := http.Post(server.URL+"/api/v1/leases", "application/json",
		strings.NewReader(`{"owner":{"task":"T-1"},"ttl":"8h"}`))
	var body struct{ Leases []vip.Lease }
	_ = json.NewDecoder(resp.Body).Decode(&body)
	fmt.Println(resp.StatusCode, body.Leases[0].Addr, body.Leases[0].State)
	// Output: 201 127.58.0.1 leased
}
