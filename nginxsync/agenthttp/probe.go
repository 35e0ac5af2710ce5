package agenthttp

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// Probe asks the Nginx of a host for a page on a VIP, as a tester would.
type Probe struct {
	VIP netip.Addr `json:"vip"`
	// URL is http or https; its host is the header, and its port that of the VIP.
	URL string `json:"url"`
	// Identity is the response header in which an instance says which one it is. The default is
	// X-Instance-Id.
	Identity string `json:"identity,omitempty"`
}

// Probed is the answer to a Probe.
type Probed struct {
	Status   int    `json:"status"`
	Version  string `json:"version"`  // X-Sluice-Version: what the routes say of the instance
	Reason   string `json:"reason"`   // X-Sluice-Reason: why no instance has answered
	Instance string `json:"instance"` // what the instance says of itself; often empty
}

// DefaultIdentity is the header of Probe.Identity.
const DefaultIdentity = "X-Instance-Id"

// probe answers POST /v1/probe. Only VIPs of the routes that are addresses of this host are asked:
// the answer would else be that of another host, and a client could have the agent ask anything.
func (h *Handler) probe(w http.ResponseWriter, r *http.Request) error {
	var in Probe
	if err := read(r, &in); err != nil {
		return err
	}
	in.VIP = in.VIP.Unmap()
	target, err := url.Parse(in.URL)
	if err != nil || target.Scheme != "http" && target.Scheme != "https" || target.Host == "" {
		return fmt.Errorf("url %.128q: want http or https with a host: %w", in.URL,
			nginxsync.ErrInvalid)
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), h.cfg.Timeout,
		fmt.Errorf("no answer within %s", h.cfg.Timeout))
	defer cancel()
	if err := h.leased(ctx, in.VIP); err != nil {
		return err
	}
	local, err := net.ListenPacket("udp", netip.AddrPortFrom(in.VIP, 0).String())
	if err != nil {
		return fmt.Errorf("VIP %s is no address of this host: %w: %w", in.VIP, err,
			nginxsync.ErrInvalid)
	}
	_ = local.Close()
	out, err := ask(ctx, in, target)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s on %s: %w: %w", in.URL, in.VIP, err, errUnavailable)
	}
	reply(w, http.StatusOK, out)
	return nil
}

// leased returns an error unless the routes that an Nginx serves know the VIP.
func (h *Handler) leased(ctx context.Context, vip netip.Addr) error {
	if !vip.IsValid() {
		return fmt.Errorf("want a VIP: %w", nginxsync.ErrInvalid)
	}
	for _, t := range h.cfg.Targets {
		routes, err := t.Driver.Routes(ctx)
		if err != nil {
			return fmt.Errorf("%w: %w", err, errUnavailable)
		}
		s := routes.Snapshot
		_, scope := s.Scopes[vip]
		if len(s.Overlays[vip]) > 0 || scope || slices.ContainsFunc(s.Pools,
			func(p nginxsync.Range) bool { return p.Contains(vip) }) {
			return nil
		}
	}
	return fmt.Errorf("the routes have no VIP %s: %w", vip, nginxsync.ErrNotFound)
}

// ask sends the request of a probe on a connection of its own.
func ask(ctx context.Context, in Probe, target *url.URL) (out Probed, err error) {
	port := target.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[target.Scheme]
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return out, err
	}
	transport := &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{ServerName: target.Hostname(), MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", net.JoinHostPort(in.VIP.String(), port))
		}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	identity := in.Identity
	if identity == "" {
		identity = DefaultIdentity
	}
	return Probed{Status: resp.StatusCode, Version: resp.Header.Get("X-Sluice-Version"),
		Reason: resp.Header.Get("X-Sluice-Reason"), Instance: resp.Header.Get(identity)}, nil
}
