package viphttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

// many is an allocator with n leases, on every second address.
func many(t *testing.T, n int) (*vip.Allocator, []string) {
	t.Helper()
	p, err := vip.ParsePool("p", "10.0.0.0/16")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	var want []string
	next := mustAddr("10.0.0.1")
	for i := range n {
		_, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: fmt.Sprint("T", i)},
			Addr: next})
		require.NoError(t, err)
		want = append(want, next.String())
		next = next.Next().Next()
	}
	return a, want
}

func TestListInPages(t *testing.T) {
	t.Parallel()
	a, want := many(t, 2500)
	handler, err := viphttp.New(viphttp.Config{Leases: a})
	require.NoError(t, err)
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	for _, limit := range []string{"", "1", "499", "500", "501", "1250", "2500", "2501", "100000"} {
		if limit == "1" { // one a page is slow: of the last few only
			require.Equal(t, want[2490:], pages(t, s.URL, url.Values{"limit": {"1"},
				"after": {want[2489]}}), limit)
			continue
		}
		q := url.Values{}
		if limit != "" {
			q.Set("limit", limit)
		}
		require.Equal(t, want, pages(t, s.URL, q), limit)
	}
	require.Equal(t, []string{want[7]}, pages(t, s.URL, url.Values{"task": {"T7"}}))
	require.Empty(t, pages(t, s.URL, url.Values{"task": {"none"}}))
	resp, err := http.Head(s.URL + "/leases")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
}

// pages follows the pages of a list, and returns the addresses.
func pages(t *testing.T, server string, q url.Values) (addrs []string) {
	t.Helper()
	for {
		resp, err := http.Get(server + "/leases?" + q.Encode())
		require.NoError(t, err)
		var body struct {
			Leases []vip.Lease
			Next   string
		}
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&body))
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
		require.NotNil(t, body.Leases)
		for _, l := range body.Leases {
			addrs = append(addrs, l.Addr.String())
		}
		if body.Next == "" {
			return addrs
		}
		require.Equal(t, addrs[len(addrs)-1], body.Next)
		q.Set("after", body.Next)
	}
}

// A client that stops reading a list is cut off, and its part of the answer is not a complete one.
func TestListCutsOffSlowReader(t *testing.T) {
	t.Parallel()
	a, _ := many(t, 20_000)
	ended := make(chan error, 1)
	handler, err := viphttp.New(viphttp.Config{
		Leases: a, WriteTimeout: 500 * time.Millisecond,
		Observe: func(_ string, _ time.Duration, err error) { ended <- err },
	})
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(handler)
	s.Listener = smallBuffers{s.Listener}
	s.Start()
	t.Cleanup(s.Close)
	slow := slowClient()
	defer slow.CloseIdleConnections()
	resp, err := slow.Get(s.URL + "/leases?limit=100000")
	require.NoError(t, err)
	defer resp.Body.Close()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	case <-time.After(time.Minute):
		require.Fail(t, "the client was not cut off")
	}
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
}

// slowClient has a small receive buffer, and reads a body only when asked to.
func slowClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network,
		to string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, to)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(4096)
		}
		return conn, err
	}}}
}
