package web

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// Config is what New needs.
type Config struct {
	Platform *platform.Platform
	// Listen is the address that the server listens on.
	Listen string
	// Token is asked for on every request. It may be empty only when Listen is a loopback address.
	Token string
	// Logger receives internal errors. The default discards.
	Logger *slog.Logger
}

// ErrTokenRequired is returned by New.
var ErrTokenRequired = errors.New("a token is required on an address that others can reach: set SLUICE_TOKEN")

type web struct {
	Config
}

// New returns the handler of the API and the page.
func New(config Config) (http.Handler, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	w := &web{Config: config}
	if !IsLoopback(config.Listen) && config.Token == "" {
		return nil, ErrTokenRequired
	}
	mux := http.NewServeMux()
	w.api(mux)
	w.pages(mux)
	protect := http.NewCrossOriginProtection()
	protect.SetDenyHandler(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		writeProblem(rw, http.StatusForbidden, "the request comes from a page of another site")
	}))
	site := protect.Handler(w.authenticate(http.MaxBytesHandler(mux, 512<<20)))
	if IsLoopback(config.Listen) {
		site = LoopbackOnly(site)
	}
	return site, nil
}

// IsLoopback tells whether host:port can be reached from this machine only.
func IsLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// LoopbackOnly refuses a Host that is no loopback name: a page from elsewhere whose name was made to resolve to 127.0.0.1
// would otherwise be "same origin".
func LoopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host := r.Host
		if _, _, err := net.SplitHostPort(host); err != nil { // without a port
			host = net.JoinHostPort(strings.Trim(host, "[]"), "80")
		}
		if !IsLoopback(host) {
			writeProblem(rw, http.StatusMisdirectedRequest, "this server answers to loopback names only, not to "+r.Host)
			return
		}
		next.ServeHTTP(rw, r)
	})
}
