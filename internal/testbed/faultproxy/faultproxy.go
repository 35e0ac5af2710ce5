//go:build linux

// Package faultproxy is an HTTP proxy before a registry, an API server or another server of a test.
// It forwards requests, counts them with their bytes, and breaks the requests of a rule: it
// answers them by itself, changes the server's answer, or calls the test before or after the server
// has carried the request out, for example to kill the client there.
package faultproxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Rule changes the course of the requests that it matches. Of several rules that match a request,
// the first one whose turn it is holds.
type Rule struct {
	Method string         // any with an empty one; several with commas
	Path   *regexp.Regexp // any without one; it is matched against path?query

	Skip  int // the first requests that match are forwarded untouched
	Times int // requests that the rule breaks after them; 0 breaks all

	// Status answers the request in place of the server, with Header and Body; 0 forwards it.
	Status int
	Header http.Header
	Body   string

	// is called before the server gets the request
	Before func()
	// may replace the server's answer; an error answers 502
	Change func(*http.Response) error
	// is called once the server has answered and before the client hears it
	After func()
}

// Request is a request that was answered.
type Request struct {
	Method, Path   string // the path with its query
	Status         int
	Sent, Received int64 // bytes of the bodies, as the client sees it
}

// Proxy is a running proxy. Its methods are safe for concurrent use.
type Proxy struct {
	Addr string // host:port

	mu    sync.Mutex
	rules []*turn
	done  []*answer
}

// turn is a rule with the number of requests that it has matched.
type turn struct {
	Rule
	matched int
}

// Start runs a proxy on a free port of an address of this machine before a server, which it asks by
// transport, http.DefaultTransport with nil. It ends with the test.
func Start(t testing.TB, ip string, server *url.URL, transport http.RoundTripper) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: listener.Addr().String()}
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(server); r.Out.Host = r.In.Host },
		Transport: transport, FlushInterval: -1, // a watch is heard at once
		ModifyResponse: func(r *http.Response) error {
			rule, _ := r.Request.Context().Value(ruleKey{}).(Rule)
			if rule.Change != nil {
				if err := rule.Change(r); err != nil {
					return err
				}
			}
			if rule.After != nil {
				rule.After()
			}
			return nil
		},
	}
	s := &http.Server{Handler: p.handler(forward)}
	ended := make(chan struct{})
	go func() { _ = s.Serve(listener); close(ended) }()
	t.Cleanup(func() { _ = s.Close(); <-ended })
	return p
}

// Break replaces the rules.
func (p *Proxy) Break(rules ...Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = nil
	for _, r := range rules {
		p.rules = append(p.rules, &turn{Rule: r})
	}
}

// Requests are the requests whose answers have begun, in that order. A client that has heard an
// answer finds its request here, with all bytes that it has sent and heard.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]Request, 0, len(p.done))
	for _, a := range p.done {
		r := a.Request
		r.Sent, r.Received = a.sent.n.Load(), a.received.Load()
		list = append(list, r)
	}
	return list
}

type ruleKey struct{}

func (p *Proxy) handler(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &countedBody{ReadCloser: r.Body}
		r.Body = body
		seen := &answer{ResponseWriter: w, proxy: p, sent: body,
			Request: Request{Method: r.Method, Path: r.URL.RequestURI()}}
		defer seen.begin(http.StatusOK) // the status of a handler that sets none
		rule := p.rule(r)
		if rule.Before != nil {
			rule.Before()
		}
		if rule.Status != 0 {
			for name, values := range rule.Header {
				seen.Header()[name] = values
			}
			seen.WriteHeader(rule.Status)
			_, _ = io.WriteString(seen, rule.Body)
			return
		}
		forward.ServeHTTP(seen, r.WithContext(context.WithValue(r.Context(), ruleKey{}, rule)))
	})
}

// rule is the one that holds for the request, empty without any.
func (p *Proxy) rule(r *http.Request) Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.rules {
		if t.Method != "" && !slices.Contains(strings.Split(t.Method, ","), r.Method) ||
			t.Path != nil && !t.Path.MatchString(r.URL.RequestURI()) {
			continue
		}
		t.matched++
		if t.matched > t.Skip && (t.Times == 0 || t.matched <= t.Skip+t.Times) {
			return t.Rule
		}
	}
	return Rule{}
}

// answer is the answer to a request. It notes the status and the bytes before the client hears
// them, so that the client may ask for them at once.
type answer struct {
	http.ResponseWriter
	Request // without bytes
	proxy   *Proxy
	begun   bool

	sent     *countedBody
	received atomic.Int64
}

// begin adds the request to those of the proxy, once.
func (a *answer) begin(status int) {
	if a.begun {
		return
	}
	a.begun, a.Status = true, status
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	a.proxy.done = append(a.proxy.done, a)
}

// WriteHeader passes over 1xx, which announces another status.
func (a *answer) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		a.begin(status)
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	a.begin(http.StatusOK)
	a.received.Add(int64(len(b)))
	n, err := a.ResponseWriter.Write(b)
	a.received.Add(int64(n - len(b)))
	return n, err
}

// Unwrap lets the reverse proxy flush and take the connection over.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// countedBody counts the bytes of a request. The transport may read on after the answer.
type countedBody struct {
	io.ReadCloser
	n atomic.Int64
}

func (c *countedBody) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n.Add(int64(n))
	return n, err
}
