package agenthttp

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// leastToken is the least length of a token, in bytes.
const leastToken = 16

var errToken = errors.New("unauthenticated")

// Remote returns a handler of the whole interface for clients on other machines that send the token
// as "Authorization: Bearer TOKEN". Serve it over TLS or on a network that only the platform is on.
// ErrInvalid: the token is shorter than 16 bytes or has spaces.
func (h *Handler) Remote(token string) (http.Handler, error) {
	if err := checkToken(token); err != nil {
		return nil, err
	}
	want := sha256.Sum256([]byte(token)) // so that the time says nothing of the length
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		sum := sha256.Sum256([]byte(got))
		if !ok || subtle.ConstantTimeCompare(sum[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			httpproblem.Write(w, rules.Problem(fmt.Errorf("want the agent's token: %w", errToken)))
			return
		}
		h.mux.ServeHTTP(w, r)
	}), nil
}

func checkToken(token string) error {
	if len(token) < leastToken || strings.ContainsAny(token, " \t\r\n") {
		return fmt.Errorf("token of %d bytes: want at least %d, without spaces: %w", len(token),
			leastToken, nginxsync.ErrInvalid)
	}
	return nil
}

// RemoteConfig configures a client of Handler.Remote. URL and Token are required.
type RemoteConfig struct {
	URL   string // http or https, with host and port and without a path
	Token string
	TLS   *tls.Config // the default trusts the roots of the system
	// Timeout bounds the time until a connection is there. The default is 2 seconds; a call is
	// bounded by its context.
	Timeout time.Duration
}

// NewRemoteClient makes a client of the agent of another host. It sends nothing yet. A
// configuration that is not valid is an error with all its problems and nginxsync.ErrInvalid in its
// chain.
func NewRemoteClient(cfg RemoteConfig) (*Client, error) {
	p := check.Problems{Package: "agenthttp", Sentinel: nginxsync.ErrInvalid}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" ||
		strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		p.Add("URL", "want http or https with a host and no path")
	}
	if err := checkToken(cfg.Token); err != nil {
		p.Join("Token", err)
	}
	p.Duration("Timeout", &cfg.Timeout, 2*time.Second)
	if err := p.Err(); err != nil {
		return nil, err
	}
	c := &Client{base: strings.TrimSuffix(cfg.URL, "/"), token: cfg.Token}
	c.http.Transport = &http.Transport{TLSClientConfig: cfg.TLS.Clone(),
		TLSHandshakeTimeout: cfg.Timeout, IdleConnTimeout: time.Minute,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			d := net.Dialer{Timeout: cfg.Timeout}
			return d.DialContext(ctx, network, addr)
		}}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error {
		return errors.New("the agent redirects, want an answer")
	}
	return c, nil
}

// Health asks for the health of the host; a host that is not healthy is no error.
func (c *Client) Health(ctx context.Context) (h Health, err error) {
	return h, c.Get(ctx, "/healthz", nil, &h)
}

// Serves asks which instances serve a cluster on a VIP, by the routes that Nginx itself has. nginx
// names the Nginx where the host has several.
func (c *Client) Serves(ctx context.Context, vip netip.Addr, cluster, nginx string) (e Explanation,
	err error) {
	query := url.Values{"vip": {vip.String()}, "cluster": {cluster}}
	if nginx != "" {
		query.Set("nginx", nginx)
	}
	return e, c.Get(ctx, "/v1/explain", query, &e)
}

// Probe has the host ask its own Nginx.
func (c *Client) Probe(ctx context.Context, p Probe) (out Probed, err error) {
	return out, c.Post(ctx, "/v1/probe", p, &out)
}

// Drain takes the host out of the load balancer, and Undrain puts it back. by is for the log.
func (c *Client) Drain(ctx context.Context, by string) (d Drain, err error) {
	return d, c.Post(ctx, "/v1/drain", map[string]string{"by": by}, &d)
}

// Undrain ends a Drain.
func (c *Client) Undrain(ctx context.Context, by string) (d Drain, err error) {
	return d, c.Post(ctx, "/v1/undrain", map[string]string{"by": by}, &d)
}

// InFlight asks how many requests are in flight.
func (c *Client) InFlight(ctx context.Context) (f Flight, err error) {
	return f, c.Get(ctx, "/v1/inflight", nil, &f)
}
