package web

import (
	"net"
	"net/http"
	"strings"
)

// pageHost is the host name of the page on a machine of its own. Cookies ignore ports: a session of
// 127.0.0.1 would go to every instance on that address, and to each other program there. Browsers
// know names below localhost as loopback (RFC 6761, section 6.3).
const pageHost = "sluice.localhost"

// atHome sends a browser that comes to another loopback name to pageHost. The API, the probes and
// the files that other programs ask for stay where they are.
func atHome(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host, port, err := net.SplitHostPort(r.Host)
		if err != nil {
			host, port = r.Host, ""
		}
		if strings.EqualFold(host, pageHost) || r.Header.Get("Sec-Fetch-Mode") != "navigate" ||
			r.Method != http.MethodGet && r.Method != http.MethodHead ||
			strings.HasPrefix(r.URL.Path, "/api/") {
			next.ServeHTTP(rw, r)
			return
		}
		home := pageHost
		if port != "" {
			home = net.JoinHostPort(pageHost, port)
		}
		http.Redirect(rw, r, "http://"+home+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	})
}
