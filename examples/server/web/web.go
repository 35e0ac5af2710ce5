package web

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/internal/httpproblem"
)

// Config configures the handler. Platform and Listen are required.
type Config struct {
	// Platform is the platform of the API and the page.
	Platform *platform.Platform
	// Listen is the address that the server listens on, host:port; an empty host stands for all
	// addresses.
	Listen string
	// Token is asked for on every request. It may be empty only when Listen is a loopback address.
	Token string
	// Logger receives internal errors. The default discards.
	Logger *slog.Logger
	// TLSProxy says that a proxy which ends TLS is the only way to this server: cookies are Secure,
	// and the last address of X-Forwarded-For is the client's. It needs a Token.
	TLSProxy bool
	// Now is the clock of sessions and of the limit on wrong tokens. The default is time.Now.
	Now func() time.Time
	// Observe is called after each "load" of the front page's data, and each "render" of one of its
	// sections. The default is none.
	Observe func(op string, took time.Duration, err error)
}

// ErrInvalid is returned by New for a Config that cannot be right.
var ErrInvalid = errors.New("invalid")

// ErrTokenRequired is returned by New for an address that others can reach when there is no token.
var ErrTokenRequired = errors.New("a token is required on an address that others can reach: set " +
	"SLUICE_TOKEN")

// viewEvery is the least time between two looks of the pages that follow the server.
const viewEvery = 300 * time.Millisecond

type web struct {
	Config
	boards boards
	pace   pace

	guesses throttle
	probe   probe
}

func (w *web) now() time.Time {
	if w.Now == nil {
		return time.Now()
	}
	return w.Now()
}

// Validate returns all problems of cfg at once, or nil.
func (cfg Config) Validate() error {
	var errs []error
	if cfg.Platform == nil {
		errs = append(errs, fmt.Errorf("web: Config.Platform: want the platform to show: %w",
			ErrInvalid))
	}
	if err := CheckListen(cfg.Listen, cfg.Token); err != nil {
		errs = append(errs, fmt.Errorf("web: Config.Listen: %w", err))
	}
	if cfg.TLSProxy && cfg.Token == "" {
		errs = append(errs, fmt.Errorf("web: Config.TLSProxy: a proxy lets others reach the "+
			"server: %w", ErrTokenRequired))
	}
	return errors.Join(errs...)
}

// CheckListen returns why the web side cannot listen on an address with this token, or nil. The
// error matches ErrInvalid or ErrTokenRequired.
func CheckListen(listen, token string) error {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("address %q: want host:port: %w", listen, ErrInvalid)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("address %q: want a port up to 65535: %w", listen, ErrInvalid)
	}
	if !IsLoopback(listen) && token == "" {
		return fmt.Errorf("address %q: %w", listen, ErrTokenRequired)
	}
	return nil
}

// New returns the handler of the API and the page. It returns all problems of cfg at once.
func New(cfg Config) (http.Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	w := &web{Config: cfg, pace: pace{events: &cfg.Platform.Events, every: viewEvery}}
	w.guesses.now = w.now
	// html/template escapes a template when it is first used, 20 ms for the front page
	if err := templates.ExecuteTemplate(io.Discard, "index.html", indexPage{}); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	mux := http.NewServeMux()
	w.api(mux)
	w.pages(mux)
	protect := http.NewCrossOriginProtection()
	protect.SetDenyHandler(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		writeProblem(rw, httpproblem.Forbidden, "the request comes from a page of another site")
	}))
	site := protect.Handler(w.authenticate(http.MaxBytesHandler(mux, 512<<20)))
	// a proxy sends the name that the browser asked for
	if IsLoopback(cfg.Listen) && !cfg.TLSProxy {
		site = LoopbackOnly(atHome(site))
	}
	return site, nil
}

// IsLoopback reports whether host:port can be reached from this machine only.
func IsLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" || strings.HasSuffix(strings.ToLower(host), ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// LoopbackOnly refuses a Host that is no loopback name: a page from elsewhere whose name was made
// to resolve to 127.0.0.1 would otherwise be "same origin".
func LoopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host := r.Host
		if _, _, err := net.SplitHostPort(host); err != nil { // without a port
			host = net.JoinHostPort(strings.Trim(host, "[]"), "80")
		}
		if !IsLoopback(host) {
			writeProblem(rw, httpproblem.Misdirected, "this server answers to loopback names "+
				"only, not to "+r.Host)
			return
		}
		next.ServeHTTP(rw, r)
	})
}
