//go:build linux

// Package nginxtest has small HTTP backends and generated configurations for tests of Nginx, on
// loopback addresses only.
package nginxtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
)

// Nginx is a running Nginx.
type Nginx = nginx.Server

// The parts of the testbed that the tests here use.
var (
	Start = nginx.Start
	Dir   = testbed.Dir
	Port  = testbed.Port
	Poll  = testbed.Poll
)

// Backend is an HTTP server on 127.0.0.1 that answers with its name and the request as it saw it,
// when "hold" is in the query once the request is cancelled.
func Backend(t testing.TB, name string) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection may cut the answer off
		if r.URL.Query().Has("hold") {
			<-r.Context().Done()
		}
		fmt.Fprintf(w, "%s %s host=%s vip=%s", name, r.RequestURI, r.Host,
			r.Header.Get("X-Env-VIP"))
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// Get asks an address for a path under a host name, on a connection of its own.
func Get(ctx context.Context, addr netip.AddrPort, host, path string) (status int,
	header http.Header, body string, err error) {
	return GetKind(ctx, addr, Request{Host: host, Path: path})
}

// GetKind is Get for a request of a sample.
func GetKind(ctx context.Context, addr netip.AddrPort, r Request) (status int, header http.Header,
	body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr.String()+r.Path, nil)
	if err != nil {
		return 0, nil, "", err
	}
	req.Host, req.Close = r.Host, true
	if r.Kind != "" {
		req.Header.Set("X-Kind", r.Kind)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(text), err
}
