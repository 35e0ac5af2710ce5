// Package agenthttp is the HTTP interface of a process that runs agents, for the operators of an
// Nginx host and for the load balancer in front of it.
//
//	GET  /               the status as a page
//	GET  /v1/status      the status as JSON: see Status
//	GET  /v1/held        the changes that the guards hold, as JSON: {"held": […]}
//	POST /v1/release     {"id": "baseline/hello_web", "by": "ops"} lets a held change take effect
//	GET  /v1/explain     ?vip=10.58.0.2&url=http://a.example/x or &cluster=hello_web: see Explanation
//	GET  /v1/inflight    requests in flight to the instances in the routes
//	POST /v1/probe       asks Nginx for a page on a VIP, from this host: see Probe
//	POST /v1/drain       {"by": "ops"} takes the host out of the load balancer
//	POST /v1/undrain     {"by": "ops"} puts it back
//	GET  /healthz        200 while the host may get requests, else 503, as JSON: see Health
//	GET  /metrics        Config.Metrics
//
// Steps for the embedder:
//
//   - give New the agents of the process with the drivers that they use;
//   - serve the handler on a unix socket that only operators may open, or on a loopback address: a
//     client that reaches it may release changes and drain the host;
//   - serve Handler.Remote where the platform reaches it, with a token: package hosts asks there;
//   - serve Handler.Public, which has /healthz and /metrics only, where load balancers and
//     Prometheus reach it.
//
// A request that changes something and comes from a page of another site is refused, and so is one
// on a loopback address for another host name. Errors are application/problem+json (RFC 9457).
//
// The package does not take the host out of anything itself: the load balancer does, by /healthz.
package agenthttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/internal/strictjson"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/healthcheck"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Config configures a Handler. Targets is required.
type Config struct {
	// Targets are the Nginx of this host, at least one.
	Targets []Target
	// Sources are shown in the status. The default is none.
	Sources []Source
	// Checks is shown in the status: which instances fail their checks, and why. The default is
	// none.
	Checks func() healthcheck.Status
	// Lag is how long an Nginx may answer with other routes than it should have before /healthz
	// says 503. The default is 10 seconds.
	Lag time.Duration
	// Timeout bounds each question to an Nginx. The default is 2 seconds: a load balancer waits for
	// /healthz. The question for requests in flight has 2 seconds more, in which Nginx waits for a
	// worker that does not answer.
	Timeout time.Duration
	// DrainFile is where a drain is kept, so that it outlives the process. Empty means that it does
	// not.
	DrainFile string
	// Metrics answers GET /metrics. The default is none.
	Metrics http.Handler
	// Logger logs drains and releases. The default discards.
	Logger *slog.Logger
	// Now is the clock. The default is time.Now.
	Now func() time.Time
	// Observe is called after each request with its pattern, such as "GET /healthz", how long it
	// took, and its error, which is nil when it was answered as asked. It must return soon. Nil
	// means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// Target is one Nginx. Name, Agent and Driver are required.
type Target struct {
	Name   string // in the status and in queries; each has another one
	Agent  *nginxsync.Agent
	Driver nginxsync.Driver // of the agent
	// Tree returns the configuration that Nginx runs on, for explanations of URLs. Nil means that
	// only clusters are explained.
	Tree func(ctx context.Context) (*conf.Tree, error)
	// Cutoff is shown in the status: the ends of connections to instances that are gone. The
	// default is none.
	Cutoff func() Cutoff
}

// Source is a source of the agents. Name and Kind are required.
type Source struct {
	Name   string
	Kind   string     // such as "consul"
	Status func() any // marshalled into the status; nil for none
}

// Handler is an http.Handler. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	started time.Time
	mux     *http.ServeMux
	public  *http.ServeMux
	cross   *http.CrossOriginProtection

	mu    sync.Mutex
	drain Drain
}

// New makes a handler, and reads Config.DrainFile. A configuration that is not valid is an error
// with all its problems and nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Handler, error) {
	p := check.Problems{Package: "agenthttp", Sentinel: nginxsync.ErrInvalid}
	p.Require("Targets", len(cfg.Targets) > 0)
	seen := map[string]bool{}
	for i, t := range cfg.Targets {
		if t.Name == "" || t.Agent == nil || t.Driver == nil {
			p.Add("Targets", "%d: want Name, Agent and Driver", i)
		}
		if seen[t.Name] {
			p.Add("Targets", "%d: another one has the name %q", i, t.Name)
		}
		seen[t.Name] = true
	}
	for i, s := range cfg.Sources {
		if s.Name == "" || s.Kind == "" {
			p.Add("Sources", "%d: want Name and Kind", i)
		}
	}
	p.Duration("Lag", &cfg.Lag, 10*time.Second)
	p.Duration("Timeout", &cfg.Timeout, 2*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	h := &Handler{cfg: cfg, started: cfg.Now(), mux: http.NewServeMux(),
		public: http.NewServeMux(), cross: http.NewCrossOriginProtection()}
	var err error
	if h.drain, err = readDrain(cfg.DrainFile); err != nil {
		p.Join("DrainFile", err)
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	h.routes()
	return h, nil
}

// routes registers the pages and calls of the interface.
func (h *Handler) routes() {
	h.handle(h.mux, "GET /{$}", h.page)
	h.handle(h.mux, "GET /v1/status", h.status)
	h.handle(h.mux, "GET /v1/held", h.held)
	h.handle(h.mux, "POST /v1/release", h.release)
	h.handle(h.mux, "GET /v1/explain", h.explain)
	h.handle(h.mux, "GET /v1/inflight", h.inFlight)
	h.handle(h.mux, "POST /v1/probe", h.probe)
	h.handle(h.mux, "POST /v1/drain", h.drained(true))
	h.handle(h.mux, "POST /v1/undrain", h.drained(false))
	for _, mux := range []*http.ServeMux{h.mux, h.public} {
		h.handle(mux, "GET /healthz", h.healthz)
		if h.cfg.Metrics != nil {
			mux.Handle("GET /metrics", h.cfg.Metrics)
		}
	}
}

var rules = httpproblem.Rules{
	{Err: nginxsync.ErrInvalid, Kind: httpproblem.Invalid},
	{Err: nginxsync.ErrNotFound, Kind: httpproblem.NotFound},
	{Err: nginxsync.ErrTooLarge, Kind: httpproblem.TooLarge},
	{Err: errForbidden, Kind: httpproblem.Forbidden},
	{Err: errToken, Kind: httpproblem.Unauthenticated},
	{Err: errUnavailable, Kind: httpproblem.Unavailable},
}

var (
	errForbidden   = errors.New("forbidden")
	errUnavailable = errors.New("unavailable")
)

// handle registers a function that answers, or returns an error and has not written.
func (h *Handler) handle(mux *http.ServeMux, pattern string,
	f func(http.ResponseWriter, *http.Request) error) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		start := h.cfg.Now()
		err := f(w, r)
		if err != nil {
			httpproblem.Write(w, rules.Problem(err))
		}
		h.cfg.Observe(pattern, h.cfg.Now().Sub(start), err)
	})
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.admit(r); err != nil {
		httpproblem.Write(w, rules.Problem(err))
		return
	}
	h.mux.ServeHTTP(w, r)
}

// Public returns a handler of GET /healthz and GET /metrics alone.
func (h *Handler) Public() http.Handler { return h.public }

// admit refuses requests that pages of other sites have a browser send.
func (h *Handler) admit(r *http.Request) error {
	if err := h.cross.Check(r); err != nil {
		return fmt.Errorf("%w: %w", err, errForbidden)
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if ok && local.Network() == "unix" {
		return nil
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
		return fmt.Errorf("host %.64q: want an address or localhost: %w", host, errForbidden)
	}
	return nil
}

// mostBytes is the limit of the body of a request.
const mostBytes = 64 << 10

// read decodes the body of a request.
func read(r *http.Request, into any) error {
	text, err := io.ReadAll(io.LimitReader(r.Body, mostBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("body: %w: %w", err, nginxsync.ErrInvalid)
	case len(text) > mostBytes:
		return fmt.Errorf("body: more than %d bytes: %w", mostBytes, nginxsync.ErrTooLarge)
	}
	if err := strictjson.Decode(text, into); err != nil {
		return fmt.Errorf("body: %w: %w", err, nginxsync.ErrInvalid)
	}
	return nil
}

// target returns the Nginx of that name; an empty name is the only one.
func (h *Handler) target(name string) (Target, error) {
	if name == "" && len(h.cfg.Targets) == 1 {
		return h.cfg.Targets[0], nil
	}
	var known string
	for _, t := range h.cfg.Targets {
		if t.Name == name {
			return t, nil
		}
		known += " " + t.Name
	}
	return Target{}, fmt.Errorf("nginx %.64q: want one of%s: %w", cmp.Or(name, "(none)"), known,
		nginxsync.ErrInvalid)
}
