package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

type toKey struct{}

// to is the destination of a request, and its result.
type to struct {
	at  netip.AddrPort
	err error // of the exchange
}

// forwarder returns the handler of requests in absolute form, which has its to in the context.
func (d *Door) forwarder() (h http.Handler, idle func()) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			client, _ := ctx.Value(clientKey{}).(net.Addr)
			at, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			return d.dial(ctx, at, client)
		},
		// a kept connection would carry the requests of several clients under the address of one
		DisableKeepAlives:   d.cfg.Client == ProxyProtocol,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     30 * time.Second, // Nginx closes after 75 s, or as the tree says
		DisableCompression:  true,
	}
	return &httputil.ReverseProxy{
		Rewrite:       d.rewrite,
		Transport:     transport,
		FlushInterval: -1, // at once: streams
		ErrorLog:      quiet,
		ErrorHandler: func(rw http.ResponseWriter, r *http.Request, err error) {
			about := r.Context().Value(toKey{}).(*to)
			about.err = err
			switch cause := context.Cause(r.Context()); {
			case errors.Is(cause, errEnded):
				answer(rw, r, http.StatusGone, "ended", "The task has ended.")
			default:
				answer(rw, r, http.StatusBadGateway, "unreachable", "Nginx does not answer at "+
					about.at.String()+".")
			}
		},
	}, transport.CloseIdleConnections
}

// rewrite makes the request that Nginx gets: the same path to the byte, production's Host, and
// none of the fields that are between the client and the door.
func (d *Door) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host = "http", p.In.Context().Value(toKey{}).(*to).at.String()
	p.Out.Host = p.In.Host
	raw := rawTarget(p.In)
	if strings.HasPrefix(raw, "//") { // as a URL it would begin with a host
		raw = "//" + p.In.Host + raw
	}
	p.Out.URL.Opaque, p.Out.URL.RawQuery, p.Out.URL.ForceQuery = raw, "", false
	// the tester's own fields about proxies in front are a part of the test
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host",
		"X-Forwarded-Proto"} {
		if values := p.In.Header.Values(name); len(values) > 0 {
			p.Out.Header[name] = values
		}
	}
	if host, _, err := net.SplitHostPort(p.In.RemoteAddr); err == nil &&
		d.cfg.Client == ForwardedFor {
		p.Out.Header.Set("X-Forwarded-For", strings.Join(append(
			p.In.Header.Values("X-Forwarded-For"), host), ", "))
	}
}

// rawTarget is the path and the query as the client sent them.
func rawTarget(r *http.Request) string {
	_, rest, _ := strings.Cut(r.RequestURI, "://")
	if at := strings.IndexAny(rest, "/?"); at < 0 {
		return "/"
	} else if rest = rest[at:]; rest[0] == '?' {
		return "/" + rest
	}
	return rest
}

// forward passes a request in absolute form on. The error is of the connection to Nginx.
func (d *Door) forward(ctx context.Context, rw http.ResponseWriter, r *http.Request,
	at netip.AddrPort) error {
	if more, done := maxForwards(rw, r); done {
		return nil
	} else if more >= 0 {
		r.Header.Set("Max-Forwards", strconv.Itoa(more))
	}
	about := &to{at: at}
	ctx = context.WithValue(context.WithValue(ctx, toKey{}, about), clientKey{}, clientOf(r))
	connection := http.NewResponseController(rw)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &slowBody{r.Body, connection, d.cfg.Idle}
	}
	d.proxy.ServeHTTP(&slowWriter{rw, connection, d.cfg.Idle, unclear(r)}, r.WithContext(ctx))
	_ = connection.SetWriteDeadline(in(d.cfg.Idle)) // of the last chunk, after a pause
	return about.err
}

// maxForwards treats Max-Forwards of TRACE and OPTIONS as RFC 9110, section 7.6.2, says: at 0 the
// door answers itself. more is the value to send on; -1 for a request without one.
func maxForwards(rw http.ResponseWriter, r *http.Request) (more int, done bool) {
	if r.Method != http.MethodTrace && r.Method != http.MethodOptions {
		return -1, false
	}
	n, err := strconv.ParseUint(r.Header.Get("Max-Forwards"), 10, 31)
	switch {
	case err != nil:
		return -1, false
	case n > 0:
		return int(n) - 1, false
	case r.Method == http.MethodOptions:
		rw.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT")
		rw.WriteHeader(http.StatusNoContent)
	default:
		answer(rw, r, http.StatusMethodNotAllowed, "trace",
			"The door does not answer TRACE itself.")
	}
	return 0, true
}

// unclear reports whether a request may have been framed in two ways: by a Transfer-Encoding beside
// a Content-Length, or in HTTP/1.0. The connection ends after the answer: RFC 9112, section 6.1.
// net/http removes the one field and ignores the other, so that it counts what they may stand in.
func unclear(r *http.Request) bool {
	return len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1)
}

// slowBody gives the client a time for each part of the body, and none once it is read.
type slowBody struct {
	io.ReadCloser
	connection *http.ResponseController
	idle       time.Duration
}

func (b *slowBody) Read(p []byte) (int, error) {
	_ = b.connection.SetReadDeadline(in(b.idle)) // one without deadlines has none
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.connection.SetReadDeadline(time.Time{})
	}
	return n, err
}

// slowWriter gives the client a time to read each part of the answer. It announces the end of the
// connection where last is true.
type slowWriter struct {
	http.ResponseWriter
	connection *http.ResponseController
	idle       time.Duration
	last       bool
}

func (w *slowWriter) WriteHeader(status int) {
	if w.last && status >= 200 {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *slowWriter) Write(p []byte) (int, error) {
	_ = w.connection.SetWriteDeadline(in(w.idle)) // as above
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *slowWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type clientKey struct{}

func clientOf(r *http.Request) net.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	return net.TCPAddrFromAddrPort(at)
}

// dial connects to a VIP, and passes the client's address on when that is configured.
func (d *Door) dial(ctx context.Context, at netip.AddrPort, client net.Addr) (net.Conn, error) {
	dialer := net.Dialer{Timeout: d.cfg.Dial}
	conn, err := dialer.DialContext(ctx, "tcp", at.String())
	if err != nil || d.cfg.Client != ProxyProtocol {
		return conn, err
	}
	_ = conn.SetWriteDeadline(in(d.cfg.Dial))
	if _, err = io.WriteString(conn, proxyLine(client, at)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, conn.SetWriteDeadline(time.Time{})
}

// proxyLine is version 1 of the PROXY protocol. Two families become one, IPv6.
func proxyLine(client net.Addr, at netip.AddrPort) string {
	tcp, ok := client.(*net.TCPAddr)
	if !ok {
		return "PROXY UNKNOWN\r\n"
	}
	from, to := tcp.AddrPort().Addr().Unmap().WithZone(""), at.Addr().Unmap().WithZone("")
	if from.Is4() && to.Is4() {
		return fmt.Sprintf("PROXY TCP4 %s %s %d %d\r\n", from, to, tcp.Port, at.Port())
	}
	return fmt.Sprintf("PROXY TCP6 %s %s %d %d\r\n", six(from), six(to), tcp.Port, at.Port())
}

func six(a netip.Addr) string {
	if a.Is4() {
		return "::ffff:" + a.String()
	}
	return a.String()
}
