package door

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// quiet discards the messages of net/http about clients that go away.
var quiet = log.New(io.Discard, "", 0)

// destination is the host and the port of a request.
type destination struct {
	host string // in lower case, without a dot at the end
	port int
}

// ServeHTTP implements http.Handler: it forwards the requests of a proxy's clients. A request that
// is none of a proxy is answered with the page of the task.
func (d *Door) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	name, own := "", false
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		name, own = d.taskOf(addr)
	}
	if !own {
		if name = proxyUser(r.Header); name == "" {
			rw.Header().Set("Proxy-Authenticate", `Basic realm="the user is the name of a task"`)
			answer(rw, r, http.StatusProxyAuthRequired, "unnamed",
				"Name the task as the proxy user, such as http://TASK@"+d.Shared()+"; the "+
					"password does not count.")
			return
		}
	}
	if r.Method != http.MethodConnect && (!r.URL.IsAbs() ||
		strings.EqualFold(r.URL.Hostname(), MagicHost)) {
		d.page(rw, r, name)
		return
	}
	to, err := target(r)
	if err != nil {
		answer(rw, r, http.StatusBadRequest, "bad", "Bad request: "+err.Error()+".")
		return
	}
	port, mapped := d.cfg.Targets[to.port]
	if !mapped || !d.cfg.Serves(to.host, to.port) {
		answer(rw, r, http.StatusForbidden, "outside", fmt.Sprintf("The test Nginx serves no host "+
			"%s on port %d, and this door leads nowhere else. For the rest of the network use a "+
			"PAC file, or another browser profile.", to.host, to.port))
		return
	}
	task, ok := d.find(rw, r, name)
	if !ok {
		return
	}
	at := netip.AddrPortFrom(task.VIP, uint16(port))
	ctx, done, ok := d.begin(r.Context(), task)
	defer done()
	if !ok {
		answer(rw, r, http.StatusServiceUnavailable, "closing", "The door is being closed.")
		return
	}
	began, op := d.cfg.Now(), "request"
	err = http.ErrAbortHandler // ReverseProxy panics with it where an answer breaks off
	defer func() { d.cfg.Observe(op, d.cfg.Now().Sub(began), err) }()
	if r.Method == http.MethodConnect {
		op, err = "tunnel", d.tunnel(ctx, rw, r, at)
	} else {
		err = d.forward(ctx, rw, r, at)
	}
}

// find returns the live task, or answers why there is none.
func (d *Door) find(rw http.ResponseWriter, r *http.Request, name string) (task Task, live bool) {
	task, err := d.cfg.Task(r.Context(), name)
	if errors.Is(err, ErrNotFound) {
		if last, ok := d.last(name); ok {
			answer(rw, r, http.StatusGone, "ended; task="+name, last)
			return task, false
		}
	}
	switch {
	case errors.Is(err, ErrNotFound):
		answer(rw, r, http.StatusNotFound, "unknown", fmt.Sprintf("There is no task %.64q.", name))
	case err != nil:
		answer(rw, r, http.StatusServiceUnavailable, "uncertain", "It cannot be said whether the "+
			"task lives: try again.")
	case !task.Ended.IsZero():
		answer(rw, r, http.StatusGone, "ended; task="+name, ended(task))
	default:
		return task, true
	}
	return task, false
}

// proxyUser is the user of Proxy-Authorization, or "".
func proxyUser(h http.Header) string {
	scheme, value, _ := strings.Cut(h.Get("Proxy-Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return ""
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
	if err != nil {
		return ""
	}
	user, _, _ := strings.Cut(string(text), ":")
	return user
}

// target is where a request in absolute form (RFC 9112, section 3.2.2) or a CONNECT wants to go.
// The Host field of a request in absolute form does not count: net/http ignores it, as the RFC asks
// for.
func target(r *http.Request) (to destination, err error) {
	text, byDefault := r.Host, "80"
	if r.Method == http.MethodConnect {
		byDefault = ""
		if r.ContentLength > 0 || len(r.TransferEncoding) > 0 {
			return to, errors.New("a CONNECT has no body")
		}
	} else if r.URL.Scheme != "http" {
		return to, fmt.Errorf("the scheme %.16q is not forwarded: use CONNECT for https",
			r.URL.Scheme)
	} else if r.URL.User != nil {
		return to, errors.New("a URL with a user in it is not forwarded: RFC 9110, section 4.2.4")
	}
	host, port, splitErr := net.SplitHostPort(text)
	if splitErr != nil {
		host, port = strings.TrimSuffix(text, ":"), byDefault
	} else if port == "" {
		port = byDefault
	}
	to.host = strings.TrimSuffix(strings.ToLower(host), ".")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || !plain(to.host) {
		return to, fmt.Errorf("%.64q is no host with a port", text)
	}
	to.port = int(n)
	return to, nil
}

// plain reports whether a host has the characters of names and IPv4 addresses only. The name "_" of
// a server block means none.
func plain(host string) bool {
	return host != "" && host != "_" && len(host) <= 253 && strings.Trim(host,
		"abcdefghijklmnopqrstuvwxyz0123456789-._") == ""
}
