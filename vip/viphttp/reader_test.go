package viphttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

// slowly serves a over connections that are full after some kilobytes. It returns the address of
// the server, and the errors of the requests that have ended.
func slowly(t *testing.T, a *vip.Allocator, patience time.Duration) (string, <-chan error) {
	t.Helper()
	ended := make(chan error, 10)
	handler, err := viphttp.New(viphttp.Config{
		Leases: a, WriteTimeout: patience,
		Observe: func(_ string, _ time.Duration, err error) { ended <- err },
	})
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(handler)
	s.Listener = smallBuffers{s.Listener}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, ended
}

// begin sends a request of a client that reads the answer only when the test does.
func begin(t *testing.T, ctx context.Context, method, url, body string) *http.Response {
	t.Helper()
	client := slowClient()
	t.Cleanup(client.CloseIdleConnections)
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func end(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute):
		require.Fail(t, "the request has not ended")
		return nil
	}
}

// A client that reads the events late, but in time, misses none, and no change waits for it.
func TestWatchSlowReader(t *testing.T) {
	t.Parallel()
	a, _ := many(t, 1)
	l := a.List(vip.Query{})[0]
	url, _ := slowly(t, a, time.Hour)
	after := a.Revision()
	resp := begin(t, t.Context(), "GET", url+"/watch", "")
	instances := make([]vip.Instance, 50)
	for i := range instances {
		instances[i] = vip.Instance{ID: fmt.Sprint("c", i),
			Addr: netip.AddrPortFrom(mustAddr("192.0.2.1"), uint16(i+1))}
	}
	for range 30 { // many times what the buffers hold
		_, err := a.Bind(t.Context(), l.ID, instances)
		require.NoError(t, err)
	}
	lines := bufio.NewReader(resp.Body)
	kind, _ := event(t, lines)
	require.Equal(t, "hello", kind)
	for range 30 {
		kind, id := event(t, lines)
		after++
		require.Equal(t, []string{"bound", strconv.FormatUint(after, 10)}, []string{kind, id})
	}
}

// A client that dies ends its stream, also while nothing happens.
func TestWatchDeadReader(t *testing.T) {
	t.Parallel()
	a, _ := many(t, 1)
	url, ended := slowly(t, a, time.Hour)
	ctx, die := context.WithCancel(t.Context())
	resp := begin(t, ctx, "GET", url+"/watch", "")
	kind, _ := event(t, bufio.NewReader(resp.Body))
	require.Equal(t, "hello", kind)
	die()
	require.NoError(t, end(t, ended))
}

// A client that reads a list slowly gets all of it, and other calls go on meanwhile.
func TestListSlowReader(t *testing.T) {
	t.Parallel()
	a, want := many(t, 1_000)
	url, ended := slowly(t, a, time.Hour)
	resp := begin(t, t.Context(), "GET", url+"/leases?limit=100000", "")
	for _, l := range a.List(vip.Query{Limit: 100}) {
		_, err := a.Renew(t.Context(), l.ID, 0)
		require.NoError(t, err)
	}
	require.Empty(t, ended)
	var page struct{ Leases []vip.Lease }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&page))
	require.Len(t, page.Leases, len(want))
	for i, l := range page.Leases {
		require.Equal(t, want[i], l.Addr.String())
	}
	require.NoError(t, end(t, ended))
}

// A client that dies during a list ends it.
func TestListDeadReader(t *testing.T) {
	t.Parallel()
	a, _ := many(t, 1_000)
	url, ended := slowly(t, a, time.Hour)
	ctx, die := context.WithCancel(t.Context())
	resp := begin(t, ctx, "GET", url+"/leases?limit=100000", "")
	_, err := io.ReadFull(resp.Body, make([]byte, 100))
	require.NoError(t, err)
	die()
	require.Error(t, end(t, ended))
}

// A client that does not read an answer of one piece is cut off as one of a list is.
func TestPoolsDeadReader(t *testing.T) {
	t.Parallel()
	p, err := vip.ParsePool("p", "10.0.0.0/16")
	require.NoError(t, err)
	p.Reserved = map[netip.Addr]string{}
	for at, i := mustAddr("10.0.0.2"), 0; i < 32_000; at, i = at.Next().Next(), i+1 {
		p.Reserved[at] = "odd"
	}
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	url, ended := slowly(t, a, 500*time.Millisecond)
	resp := begin(t, t.Context(), "GET", url+"/pools", "")
	require.ErrorIs(t, end(t, ended), os.ErrDeadlineExceeded)
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
}

// A client that dies in the queue leaves it; one that does not read its answer has its address all
// the same, and holds up nobody.
func TestWaitSlowAndDeadReader(t *testing.T) {
	t.Parallel()
	p, err := vip.ParsePool("p", "10.0.0.1-10.0.0.2")
	require.NoError(t, err)
	p.CoolDown = -1
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	held, err := a.AllocateN(t.Context(), vip.Request{Owner: vip.Owner{Task: "held"}}, 2)
	require.NoError(t, err)
	url, ended := slowly(t, a, time.Hour)
	queue := func(tasks ...string) {
		t.Helper()
		require.Eventually(t, func() bool {
			waiting := a.Waiting()
			if len(waiting) != len(tasks) {
				return false
			}
			for i, task := range tasks {
				if waiting[i].Owner.Task != task {
					return false
				}
			}
			return true
		}, time.Minute, time.Millisecond)
	}
	responses := map[string]chan *http.Response{}
	ask := func(ctx context.Context, task string) {
		responses[task] = make(chan *http.Response, 1)
		client := slowClient()
		t.Cleanup(client.CloseIdleConnections)
		req, err := http.NewRequestWithContext(ctx, "POST", url+"/leases",
			strings.NewReader(fmt.Sprintf(`{"owner":{"task":%q},"wait":"1h"}`, task)))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		go func() {
			resp, _ := client.Do(req)
			responses[task] <- resp
		}()
	}
	ctx, die := context.WithCancel(t.Context())
	ask(ctx, "dead")
	queue("dead")
	ask(t.Context(), "slow")
	queue("dead", "slow")
	ask(t.Context(), "next")
	queue("dead", "slow", "next")
	die()
	require.Error(t, end(t, ended))
	require.Nil(t, <-responses["dead"])
	queue("slow", "next")
	for _, l := range held {
		_, err := a.Release(t.Context(), l.ID, "")
		require.NoError(t, err)
	}
	queue()
	for range 2 {
		require.NoError(t, end(t, ended))
	}
	for _, task := range []string{"next", "slow"} { // in another order than they were served
		resp := <-responses[task]
		require.NotNil(t, resp)
		var out struct{ Leases []vip.Lease }
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&out))
		require.NoError(t, resp.Body.Close())
		require.Equal(t, task, out.Leases[0].Owner.Task)
	}
	require.Len(t, a.List(vip.Query{States: []vip.State{vip.Leased}}), 2)
}
