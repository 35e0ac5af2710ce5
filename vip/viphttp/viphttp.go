// Package viphttp serves a vip.Allocator over HTTP with JSON bodies.
//
//	GET    /leases?vip=&task=&team=&cluster=&version=&instance=&addr=&pool=&label=&state=   leases that match all; label is KEY=VALUE of the pool
//	POST   /leases                       allocate: body AllocateRequest; 201 with {"leases": […]}
//	GET    /leases/{id}                  one lease
//	POST   /leases/{id}/renew            body {"generation": 3, "ttl": "1h"}; no ttl keeps the lease's own
//	PUT    /leases/{id}/binding          body {"generation": 3, "instances": […]}
//	DELETE /leases/{id}?generation=3&reason=   release
//	GET    /locate?…                     like /leases, live ones only
//	GET    /history/{vip}[?at=2026-03-01T14:32:00Z]   who had it
//	GET    /pools                        counts by state, the queue, and the suspects of Config.Leaks
//	GET    /watch                        server-sent events; Last-Event-ID or ?after= resumes
//	POST   /audit                        compare with Config.Views; ?repair=1 also repairs
//	POST   /addresses/{vip}/quarantine   body {"reason": "…", "rest": "1h"}
//	POST   /addresses/{vip}/restore      body {"reason": "…"}
//
// Errors are application/problem+json (RFC 9457) with a member "code": exhausted, conflict, fenced,
// not-found, taken, quota, quarantine-full, invalid, contended, uncertain, compacted, too-large,
// method-not-allowed, timeout, internal. An exhausted pool answers 503 with Retry-After, or 409
// with the code unsatisfiable when no pool matches the request.
//
// The embedder mounts the handler behind its own authentication: who reaches it may take and end
// any lease. The handler does not limit rates, and answers on no other path.
package viphttp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

const maxBody = 1 << 20

// Config configures a handler. Leases is required.
type Config struct {
	// Leases is the allocator that is served.
	Leases *vip.Allocator
	// Views that POST /audit compares the leases with, each with another name. The default is none.
	Views []audit.View
	// Leaks, when set, is the checker whose suspects GET /pools lists. The embedder runs it. The
	// default is none.
	Leaks *audit.LeakChecker
	// KeepAlive is the time between two comments on an event stream. The default is 15 s.
	KeepAlive time.Duration
	// Observe, when set, is called after every request with its route pattern, how long it took, and
	// its error, which is nil when the request was answered as asked. An event stream is observed when
	// it ends. The default is none.
	Observe func(op string, took time.Duration, err error)
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

const defaultKeepAlive = 15 * time.Second

type handler struct {
	a   *vip.Allocator
	cfg Config
}

// New returns a handler, which is safe for concurrent use. The error is vip.ErrInvalid and names
// every bad field.
func New(cfg Config) (http.Handler, error) {
	var errs []error
	if cfg.Leases == nil {
		errs = append(errs, fmt.Errorf("viphttp: Config.Leases: required: %w", vip.ErrInvalid))
	}
	if cfg.KeepAlive < 0 {
		errs = append(errs, fmt.Errorf("viphttp: Config.KeepAlive: %s: want 0 (default %s) or more: %w",
			cfg.KeepAlive, defaultKeepAlive, vip.ErrInvalid))
	}
	if err := audit.CheckNames(cfg.Views...); err != nil {
		errs = append(errs, fmt.Errorf("viphttp: Config.Views: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, defaultKeepAlive)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &handler{cfg.Leases, cfg}
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(r *http.Request) (int, any, error){
		"GET /leases":                      h.list,
		"POST /leases":                     h.allocate,
		"GET /leases/{id}":                 h.get,
		"POST /leases/{id}/renew":          h.renew,
		"PUT /leases/{id}/binding":         h.bind,
		"DELETE /leases/{id}":              h.release,
		"GET /locate":                      h.locate,
		"GET /history/{vip}":               h.history,
		"GET /pools":                       h.pools,
		"POST /audit":                      h.audit,
		"POST /addresses/{vip}/quarantine": h.quarantine,
		"POST /addresses/{vip}/restore":    h.restore,
	} {
		mux.Handle(pattern, h.observed(pattern, func(w http.ResponseWriter, r *http.Request) error {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			status, body, err := serve(r)
			if err != nil {
				problem(w, err)
				return err
			}
			reply(w, status, body)
			return nil
		}))
	}
	mux.Handle("GET /watch", h.observed("GET /watch", h.watch))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if serve, pattern := mux.Handler(r); pattern == "" { // no such path, or not with this method
			serve.ServeHTTP(&unserved{ResponseWriter: w, path: r.Method + " " + r.URL.Path}, r)
			return
		}
		mux.ServeHTTP(w, r)
	}), nil
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
		p = httpproblem.New(httpproblem.MethodNotAllowed, u.path+": allowed are "+u.Header().Get("Allow"))
	}
	httpproblem.Write(u.ResponseWriter, p)
}

func (u *unserved) Write(text []byte) (int, error) { return len(text), nil }

func (h *handler) observed(pattern string, serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := h.cfg.Now()
		err := serve(w, r)
		if h.cfg.Observe != nil {
			h.cfg.Observe(pattern, h.cfg.Now().Sub(start), err)
		}
	})
}

// Duration is a time.Duration as text, such as "90s" or "1h30m"; "forever" is vip.Forever.
type Duration time.Duration

// UnmarshalText reads a duration above 0, or "forever".
func (d *Duration) UnmarshalText(text []byte) error {
	if string(text) == "forever" {
		*d = Duration(vip.Forever)
		return nil
	}
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fmt.Errorf("duration %q: want one such as 90s or 1h30m above 0, or forever", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) {
	if time.Duration(d) == vip.Forever {
		return []byte("forever"), nil
	}
	return []byte(time.Duration(d).String()), nil
}

// AllocateRequest is the body of POST /leases: see vip.Request.
type AllocateRequest struct {
	Owner     vip.Owner         `json:"owner"`
	Pool      string            `json:"pool,omitempty"`
	Selector  map[string]string `json:"selector,omitempty"`
	Fallback  bool              `json:"fallback,omitempty"`
	RequestID string            `json:"requestID,omitempty"`
	TTL       Duration          `json:"ttl,omitzero"`
	Addr      netip.Addr        `json:"addr,omitzero"`
	Count     int               `json:"count,omitempty"` // of addresses, all or none; the default is 1
	Wait      Duration          `json:"wait,omitzero"`   // in the queue; the default is not to wait
	Priority  int               `json:"priority,omitempty"`
}

func (h *handler) allocate(r *http.Request) (int, any, error) {
	var in AllocateRequest
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	ctx := r.Context()
	if in.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(in.Wait))
		defer cancel()
	}
	request := vip.Request{
		Owner: in.Owner, Pool: in.Pool, Selector: in.Selector, Fallback: in.Fallback, RequestID: in.RequestID,
		TTL: time.Duration(in.TTL), Addr: in.Addr, Wait: in.Wait != 0, Priority: in.Priority,
	}
	leases, err := h.a.AllocateN(ctx, request, cmp.Or(in.Count, 1))
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, vip.ErrExhausted) && r.Context().Err() == nil {
		request.Wait = false // the wait was over before the pools were looked at
		leases, err = h.a.AllocateN(r.Context(), request, cmp.Or(in.Count, 1))
	}
	return http.StatusCreated, leaseList{leases}, err
}

type leaseList struct {
	Leases []vip.Lease `json:"leases"`
}

func (h *handler) list(r *http.Request) (int, any, error) {
	q, err := query(r)
	return http.StatusOK, leaseList{notNil(h.a.List(q))}, err
}

func (h *handler) locate(r *http.Request) (int, any, error) {
	q, err := query(r)
	if q.States == nil {
		q.States = []vip.State{vip.Leased, vip.Draining}
	}
	return http.StatusOK, leaseList{notNil(h.a.List(q))}, err
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// query reads the selectors of a URL; one that is not known is an error, so that a slip of the pen
// does not list all.
func query(r *http.Request) (vip.Query, error) {
	var q vip.Query
	for name, values := range r.URL.Query() {
		value, err := values[0], error(nil)
		switch name {
		case "vip":
			q.VIP, err = netip.ParseAddr(value)
		case "addr":
			q.Addr, err = netip.ParseAddrPort(value)
		case "label":
			q.Selector, err = labels(values)
		case "state":
			for _, v := range values {
				var s vip.State
				err = errors.Join(err, s.UnmarshalText([]byte(v)))
				q.States = append(q.States, s)
			}
		default:
			field := map[string]*string{
				"pool": &q.Pool, "task": &q.Task, "team": &q.Team, "cluster": &q.Cluster, "version": &q.Version, "instance": &q.Instance,
			}[name]
			if field == nil {
				return q, fmt.Errorf("selector %.64q is not known: %w", name, vip.ErrInvalid)
			}
			*field = value
		}
		if err != nil {
			return q, fmt.Errorf("selector %s: %w: %w", name, err, vip.ErrInvalid)
		}
	}
	return q, nil
}

// labels of a pool, each KEY=VALUE.
func labels(values []string) (map[string]string, error) {
	all := map[string]string{}
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if _, twice := all[key]; !ok || twice {
			return nil, fmt.Errorf("%q: want KEY=VALUE, each key once", v)
		}
		all[key] = value
	}
	return all, nil
}

func (h *handler) get(r *http.Request) (int, any, error) {
	l, err := h.a.Get(r.Context(), r.PathValue("id"))
	return http.StatusOK, l, err
}

func (h *handler) renew(r *http.Request) (int, any, error) {
	var in struct {
		Generation uint64   `json:"generation"`
		TTL        Duration `json:"ttl"`
	}
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	l, err := h.a.Renew(r.Context(), r.PathValue("id"), in.Generation, time.Duration(in.TTL))
	return http.StatusOK, l, err
}

func (h *handler) bind(r *http.Request) (int, any, error) {
	var in struct {
		Generation uint64         `json:"generation"`
		Instances  []vip.Instance `json:"instances"`
	}
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	l, err := h.a.Bind(r.Context(), r.PathValue("id"), in.Generation, in.Instances)
	return http.StatusOK, l, err
}

func (h *handler) release(r *http.Request) (int, any, error) {
	text := r.URL.Query().Get("generation")
	generation, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, nil, fmt.Errorf("generation %.64q: want the number that the lease has: %w", text, vip.ErrInvalid)
	}
	l, err := h.a.Release(r.Context(), r.PathValue("id"), generation, r.URL.Query().Get("reason"))
	return http.StatusOK, l, err
}

func address(r *http.Request) (netip.Addr, error) {
	addr, err := netip.ParseAddr(r.PathValue("vip"))
	if err != nil {
		return addr, fmt.Errorf("%w: %w", err, vip.ErrInvalid)
	}
	return addr, nil
}

func (h *handler) history(r *http.Request) (int, any, error) {
	addr, err := address(r)
	if err != nil {
		return 0, nil, err
	}
	if !r.URL.Query().Has("at") {
		past, err := h.a.History(r.Context(), addr)
		return http.StatusOK, leaseList{notNil(past)}, err
	}
	at, err := time.Parse(time.RFC3339, r.URL.Query().Get("at"))
	if err != nil {
		return 0, nil, fmt.Errorf("at: want a time such as 2026-03-01T14:32:00Z: %w: %w", err, vip.ErrInvalid)
	}
	l, err := h.a.At(r.Context(), addr, at)
	return http.StatusOK, l, err
}

func (h *handler) pools(*http.Request) (int, any, error) {
	suspects := []audit.Leak{}
	if h.cfg.Leaks != nil {
		suspects = h.cfg.Leaks.Suspects()
	}
	return http.StatusOK, map[string]any{
		"pools": h.a.Stats(), "waiting": notNil(h.a.Waiting()), "suspects": suspects,
	}, nil
}

func (h *handler) audit(r *http.Request) (int, any, error) {
	query := r.URL.Query()
	repair, err := strconv.ParseBool(cmp.Or(query.Get("repair"), "0"))
	if err != nil {
		return 0, nil, fmt.Errorf("repair %.64q: want 1 or 0: %w", query.Get("repair"), vip.ErrInvalid)
	}
	report, err := audit.Check(r.Context(), h.a, h.cfg.Views...)
	if err != nil || !repair {
		return http.StatusOK, report, err
	}
	repaired, err := audit.Repair(r.Context(), h.a, report, h.cfg.Views...)
	return http.StatusOK, struct {
		audit.Report
		Repaired int `json:"repaired"`
	}{report, repaired}, err
}

func (h *handler) quarantine(r *http.Request) (int, any, error) {
	var in struct {
		Reason string   `json:"reason"`
		Rest   Duration `json:"rest"`
	}
	addr, err := address(r)
	if err == nil {
		err = read(r, &in)
	}
	if err != nil {
		return 0, nil, err
	}
	l, err := h.a.Quarantine(r.Context(), addr, in.Reason, max(time.Duration(in.Rest), 0))
	return http.StatusOK, l, err
}

func (h *handler) restore(r *http.Request) (int, any, error) {
	var in struct {
		Reason string `json:"reason"`
	}
	addr, err := address(r)
	if err == nil {
		err = read(r, &in)
	}
	if err != nil {
		return 0, nil, err
	}
	l, err := h.a.Restore(r.Context(), addr, in.Reason)
	return http.StatusOK, l, err
}

// read decodes a body of one JSON object; a field that is not known is an error.
func read(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	var large *http.MaxBytesError
	if err := d.Decode(into); errors.As(err, &large) {
		return fmt.Errorf("body: more than %d bytes: %w", large.Limit, errTooLarge)
	} else if err != nil {
		return fmt.Errorf("body: %w: %w", err, vip.ErrInvalid)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("body: more than one JSON value: %w", vip.ErrInvalid)
	}
	return nil
}

func reply(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n'))
}
