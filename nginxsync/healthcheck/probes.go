package healthcheck

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// TCP returns a probe that opens a connection and closes it.
func TCP() Probe {
	return func(ctx context.Context, addr netip.AddrPort) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr.String())
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// HTTPConfig configures a probe by HTTP. The zero value asks GET / and takes the statuses 200 to
// 399, none of which is followed.
type HTTPConfig struct {
	// Path is the path with the query. The default is "/".
	Path string
	// Host is the header of that name, and the server name with TLS. The default is the address.
	Host string
	// Least and Most are the statuses that are good, both included. The defaults are 200 and 399.
	Least, Most int
	// TLS, when set, has the probe ask by HTTPS.
	TLS *tls.Config
}

// HTTP returns a probe that asks for a page, on a new connection. A configuration that is not valid
// is an error with all its problems and nginxsync.ErrInvalid in its chain.
func HTTP(cfg HTTPConfig) (Probe, error) {
	p := check.Problems{Package: "healthcheck", Sentinel: nginxsync.ErrInvalid}
	if cfg.Path == "" {
		cfg.Path = "/"
	}
	target, err := url.ParseRequestURI(cfg.Path)
	if err != nil || !strings.HasPrefix(cfg.Path, "/") {
		p.Add("Path", "%.64q: want a path that begins with /", cfg.Path)
	}
	if strings.ContainsAny(cfg.Host, " /\r\n\t") {
		p.Add("Host", "%.64q: want a host name", cfg.Host)
	}
	check.Number(&p, "Least", &cfg.Least, 200)
	check.Number(&p, "Most", &cfg.Most, 399)
	if cfg.Most >= 0 && cfg.Least > cfg.Most {
		p.Add("Most", "%d: want %d (Least) or more", cfg.Most, cfg.Least)
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	scheme := "http"
	if cfg.TLS != nil {
		scheme = "https"
		cfg.TLS = cfg.TLS.Clone()
		if name, _, err := net.SplitHostPort(cfg.Host); err == nil && cfg.TLS.ServerName == "" {
			cfg.TLS.ServerName = name
		} else if cfg.TLS.ServerName == "" {
			cfg.TLS.ServerName = cfg.Host
		}
	}
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: cfg.TLS,
			TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	return func(ctx context.Context, addr netip.AddrPort) error {
		u := *target
		u.Scheme, u.Host = scheme, addr.String()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return err
		}
		req.Host = cfg.Host
		req.Header.Set("User-Agent", "sluice-healthcheck")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		// The end of a short answer, so that the server sees no broken connection.
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
		if resp.StatusCode < cfg.Least || resp.StatusCode > cfg.Most {
			return fmt.Errorf("GET %s: status %d, want %d to %d", cfg.Path, resp.StatusCode,
				cfg.Least, cfg.Most)
		}
		return nil
	}, nil
}
