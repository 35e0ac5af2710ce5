package healthcheck_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/healthcheck"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

func TestHTTPConfig(t *testing.T) {
	t.Parallel()
	checktest.Run(t, nginxsync.ErrInvalid, healthcheck.HTTPConfig{},
		func(cfg healthcheck.HTTPConfig) error { _, err := healthcheck.HTTP(cfg); return err },
		map[string][]func(*healthcheck.HTTPConfig){
			"Path": {
				func(cfg *healthcheck.HTTPConfig) { cfg.Path = "healthz" },
				func(cfg *healthcheck.HTTPConfig) { cfg.Path = "http://a/b" },
				func(cfg *healthcheck.HTTPConfig) { cfg.Path = "/a\n" },
			},
			"Host":  {func(cfg *healthcheck.HTTPConfig) { cfg.Host = "a b" }},
			"Least": {func(cfg *healthcheck.HTTPConfig) { cfg.Least = -1 }},
			"Most": {
				func(cfg *healthcheck.HTTPConfig) { cfg.Most = 199 },
				func(cfg *healthcheck.HTTPConfig) { cfg.Most = -1 },
			},
		}, "TLS")
}

func addr(s *httptest.Server) netip.AddrPort {
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/bad", http.StatusFound)
		case "/bad":
			http.Error(w, "bad", http.StatusInternalServerError)
		case "/hangs":
			<-r.Context().Done()
		case "/query":
			if r.URL.RawQuery != "a=b" {
				http.Error(w, r.URL.RawQuery, http.StatusBadRequest)
			}
		}
	}))
	defer s.Close()
	for name, tc := range map[string]struct {
		cfg  healthcheck.HTTPConfig
		want string
	}{
		"good":                    {healthcheck.HTTPConfig{}, ""},
		"a query":                 {healthcheck.HTTPConfig{Path: "/query?a=b"}, ""},
		"a redirect is an answer": {healthcheck.HTTPConfig{Path: "/moved"}, ""},
		"a redirect is refused":   {healthcheck.HTTPConfig{Path: "/moved", Most: 299}, "302, want 200 to"},
		"a server error":          {healthcheck.HTTPConfig{Path: "/bad"}, "GET /bad: status 500"},
		"an error is wanted":      {healthcheck.HTTPConfig{Path: "/bad", Least: 500, Most: 500}, ""},
		"TLS to plain HTTP":       {healthcheck.HTTPConfig{TLS: &tls.Config{}}, "server gave HTTP"},
		"no answer":               {healthcheck.HTTPConfig{Path: "/hangs"}, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			probe, err := healthcheck.HTTP(tc.cfg)
			require.NoError(t, err)
			timeout := 30 * time.Second
			if tc.cfg.Path == "/hangs" {
				timeout = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			err = probe(ctx, addr(s))
			if tc.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.want)
			}
		})
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.ServerName)
	}))
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	for host, want := range map[string]string{"example.com": "", "example.com:443": "", "": "",
		"other.test": "not other.test"} {
		probe, err := healthcheck.HTTP(healthcheck.HTTPConfig{Host: host,
			TLS: &tls.Config{RootCAs: pool}})
		require.NoError(t, err)
		err = probe(t.Context(), addr(s))
		if want == "" {
			require.NoError(t, err, host)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	at := netip.MustParseAddrPort(l.Addr().String())
	require.NoError(t, healthcheck.TCP()(t.Context(), at))
	require.NoError(t, l.Close())
	require.ErrorContains(t, healthcheck.TCP()(t.Context(), at), "refused")
}
