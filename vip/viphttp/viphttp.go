// Package viphttp serves a vip.Allocator over HTTP with JSON bodies.
//
//	GET    /leases                       leases by address; parameters select some
//	POST   /leases                       allocate: body AllocateRequest; 201 with {"leases": […]}
//	GET    /leases/{id}                  one lease
//	POST   /leases/{id}/renew            body {"ttl": "1h"}; {} keeps the lease's own
//	PUT    /leases/{id}/binding          body {"instances": […]}; [] when nothing answers
//	DELETE /leases/{id}[?reason=]        release
//	GET    /history/{addr}[?at=2026-03-01T14:32:00Z]   its holders
//	GET    /pools                        counts by state, the addresses, the queue, and the suspects of
//	                                     Config.Leaks
//	GET    /watch                        server-sent events; Last-Event-ID or ?after= resumes; "pools"
//	                                     when SetPools has changed the pools
//	GET    /audit                        compare with the views of Config.Audit; changes nothing
//	POST   /audit                        the same; body {"apply": true, "allow": {"nginx": 40}} also repairs
//	POST   /addresses/{addr}/quarantine  body {"reason": "…", "rest": "1h"}
//	POST   /addresses/{addr}/restore     body {"reason": "…"}
//
// A list has the leases that match all of these parameters: addr, task, team, cluster, version,
// instance (an id), instanceAddr (host:port), pool, label (KEY=VALUE of the pool), state. It has up
// to ?limit= leases, 1,000 by default and 100,000 at most, and a member "next" when more may
// follow: ?after= with that address asks for them. It is written while it is read.
//
// A request with a body says Content-Type: application/json, else the answer is 415. A parameter
// that is not known, has no value, or is given twice (but for label and state) is refused.
// Durations are text, the same in and out: "1h0m0s", "forever".
//
// Errors are application/problem+json (RFC 9457) with a member "code": exhausted, unsatisfiable,
// conflict, fenced, not-found, taken, quota, quarantine-full, invalid, contended, uncertain,
// compacted, refused, too-large, unsupported-format, method-not-allowed, forbidden,
// unauthenticated, timeout, internal. A request for which nothing is free now answers 503 with
// Retry-After: the time to the soonest free address, 1 s to 5 min. One that no pool can ever fulfil
// answers 409 with the code unsatisfiable. An audit that is held (see audit.Hold) answers 422.
//
// The handler refuses requests that change something and come from a page of another site
// (Sec-Fetch-Site, Origin), and asks for Config.Token if there is one. Beyond that the embedder
// mounts it behind its own authentication: a client that reaches it may see any lease, and with the
// token take and end any. The handler does not limit rates, and answers on no other path.
package viphttp

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/internal/strictjson"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

const (
	maxBody             = 1 << 20
	defaultKeepAlive    = 15 * time.Second
	defaultWriteTimeout = 30 * time.Second
	shortestToken       = 16 // bytes
	writeSize           = 64 << 10
)

// Config configures a handler. Leases is required.
type Config struct {
	// Leases is the allocator that is served.
	Leases *vip.Allocator
	// Token, when set, is the token that a request that changes something must carry as
	// "Authorization: Bearer TOKEN"; at least 16 bytes. The default is none.
	Token string
	// Origins are the origins of pages, such as "https://deploy.example.com", whose requests are
	// accepted though they are of another site. The default is none.
	Origins []string
	// Audit, when set, compares the leases with outside systems. The default is none: /audit is not
	// served.
	Audit *audit.Auditor
	// Leaks, when set, is the checker whose suspects GET /pools lists. The embedder runs it. The
	// default is none.
	Leaks *audit.LeakChecker
	// KeepAlive is the time between two comments on an event stream. The default is 15 s.
	KeepAlive time.Duration
	// WriteTimeout is how long a client may take to read one event, or 64 KiB of another answer,
	// before it is cut off. It resumes with Last-Event-ID. The default is 30 s.
	WriteTimeout time.Duration
	// Observe, when set, is called after every request with its route pattern, how long it took,
	// and its error, which is nil when the request was answered as asked. An event stream is
	// observed when it ends. The default is none.
	Observe func(op string, took time.Duration, err error)
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

type handler struct {
	a     *vip.Allocator
	cfg   Config
	guard *guard
}

// New returns a handler, which is safe for concurrent use. The error is vip.ErrInvalid and names
// every bad field.
func New(cfg Config) (http.Handler, error) {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("viphttp: Config.%s: %s: %w", field,
			fmt.Sprintf(format, args...), vip.ErrInvalid))
	}
	if cfg.Leases == nil {
		bad("Leases", "required")
	}
	if cfg.Token != "" && len(cfg.Token) < shortestToken {
		bad("Token", "%d bytes: want none or at least %d", len(cfg.Token), shortestToken)
	}
	if cfg.KeepAlive < 0 {
		bad("KeepAlive", "%s: want 0 (default %s) or more", cfg.KeepAlive, defaultKeepAlive)
	}
	if cfg.WriteTimeout < 0 {
		bad("WriteTimeout", "%s: want 0 (default %s) or more", cfg.WriteTimeout,
			defaultWriteTimeout)
	}
	guard, err := newGuard(cfg.Token, cfg.Origins)
	if err != nil {
		bad("Origins", "%v", err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, defaultKeepAlive)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, defaultWriteTimeout)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &handler{cfg.Leases, cfg, guard}
	return h.routes(), nil
}

// answer makes the status and the JSON body of a request with these parameters.
type answer func(r *http.Request, params params) (status int, body any, err error)

func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, serve answer, names ...string) {
		mux.Handle(pattern, h.observed(pattern, h.json(serve, names)))
	}
	handle("POST /leases", h.allocate)
	handle("GET /leases/{id}", h.get)
	handle("POST /leases/{id}/renew", h.renew)
	handle("PUT /leases/{id}/binding", h.bind)
	handle("DELETE /leases/{id}", h.release, "reason")
	handle("GET /history/{addr}", h.history, "at")
	handle("GET /pools", h.pools)
	handle("POST /addresses/{addr}/quarantine", h.quarantine)
	handle("POST /addresses/{addr}/restore", h.restore)
	if h.cfg.Audit != nil {
		handle("GET /audit", h.report)
		handle("POST /audit", h.audit)
	}
	mux.Handle("GET /leases", h.observed("GET /leases", h.list))
	mux.Handle("GET /watch", h.observed("GET /watch", h.watch))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// no such path, or not with this method
		if serve, pattern := mux.Handler(r); pattern == "" {
			serve.ServeHTTP(&unserved{ResponseWriter: w, path: r.Method + " " + r.URL.Path}, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// json answers with JSON, or with a problem.
func (h *handler) json(serve answer, names []string) func(http.ResponseWriter,
	*http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		params, err := h.admit(r, names)
		var status int
		var body any
		if err == nil {
			status, body, err = serve(r, params)
		}
		if err != nil {
			h.problem(w, err)
			return err
		}
		return h.reply(w, status, body)
	}
}

// admit checks a request before anything else looks at it, and returns its parameters.
func (h *handler) admit(r *http.Request, names []string) (params, error) {
	if err := h.guard.check(r); err != nil {
		return nil, err
	}
	return parameters(r, names)
}

// unserved answers with a problem in place of the text that a ServeMux has for a request without a
// handler.
type unserved struct {
	http.ResponseWriter
	path string
}

func (u *unserved) WriteHeader(code int) {
	p := httpproblem.New(httpproblem.NotFound, u.path+": not served here")
	if code == http.StatusMethodNotAllowed {
		p = httpproblem.New(httpproblem.MethodNotAllowed, u.path+": allowed are "+
			u.Header().Get("Allow"))
	}
	httpproblem.Write(u.ResponseWriter, p)
}

func (u *unserved) Write(text []byte) (int, error) { return len(text), nil }

func (h *handler) observed(pattern string, serve func(http.ResponseWriter,
	*http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := h.cfg.Now()
		err := serve(w, r)
		if h.cfg.Observe != nil {
			h.cfg.Observe(pattern, h.cfg.Now().Sub(start), err)
		}
	})
}

// read decodes a body of one JSON object, whose fields are spelt as in the type of into and come
// once.
func read(r *http.Request, into any) error {
	data, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return fmt.Errorf("body: more than %d bytes: %w", large.Limit, errTooLarge)
	}
	if err == nil {
		if err = strictjson.Decode(data, into); err == nil {
			return nil
		}
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("body: want a JSON object: %w", vip.ErrInvalid)
	}
	return fmt.Errorf("body: %w: %w", err, vip.ErrInvalid)
}

// reply writes in parts, so that a client that reads slowly has WriteTimeout for each.
func (h *handler) reply(w http.ResponseWriter, code int, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		httpproblem.Write(w, httpproblem.New(httpproblem.Internal, err.Error()))
		return err
	}
	data = append(data, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	out := stream{w, http.NewResponseController(w), h.cfg.WriteTimeout}
	for part := range slices.Chunk(data, writeSize) {
		if _, err := out.Write(part); err != nil {
			return err
		}
	}
	return nil
}
