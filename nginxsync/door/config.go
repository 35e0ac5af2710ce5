package door

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

var (
	// ErrInvalid is in the chain of errors about a Config that cannot be right.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound is returned by Config.Task for a task that is not known.
	ErrNotFound = errors.New("not found")
	// ErrExhausted is returned by Port when every port of the range has a task, or had one less
	// than Config.Rest ago.
	ErrExhausted = errors.New("exhausted")
)

// Task is a test task as the door sees it.
type Task struct {
	Name string
	// Lease identifies the tenure of VIP. A tunnel that was opened under another one is closed.
	Lease string
	// VIP is where the requests go while Ended is zero.
	VIP netip.Addr
	// Versions are the versions under test by cluster, for people to read.
	Versions map[string]string
	// Expires is when the lease ends unless it is renewed; zero for no end.
	Expires time.Time
	// Ended is when the task ended; zero while it lives.
	Ended time.Time
}

// Client says how Nginx learns the address of a client.
type Client string

// Values of Config.Client.
const (
	// Hidden keeps the address from Nginx.
	Hidden Client = ""
	// ForwardedFor adds the address to X-Forwarded-For. A tunnel stays as it is.
	ForwardedFor Client = "x-forwarded-for"
	// ProxyProtocol begins each connection to Nginx with the address, in version 1 of the PROXY
	// protocol. The listens of Nginx have to expect that: transform.Rules.KeepProxyProtocol.
	ProxyProtocol Client = "proxy-protocol"
)

// Config configures a Door. Task, Serves and Targets are required, and First, Last and State or
// Shared.
type Config struct {
	// Task returns the task of a name, also one that has ended; ErrNotFound for a name that no task
	// had. It is called for each request and has to be quick.
	Task func(ctx context.Context, name string) (Task, error)
	// Serves reports whether a server block of the mirrored tree names the host on this port of
	// production. The host is in lower case, without a dot at the end.
	Serves func(host string, port int) bool
	// Targets maps the ports of production that the door forwards to the ports of the VIP, each 1
	// to 65535: {80: 8880, 443: 8843}.
	Targets map[int]int
	// First and Last are the ports that tasks get, both included, 1 to 65535. Zero for none.
	First, Last int
	// State is the path of the file that remembers which task has which port.
	State string
	// Host is the address that the ports of tasks listen on. The default is 127.0.0.1.
	Host string
	// Shared is host:port of the port that all tasks share, where the proxy user names the task.
	// The default is none.
	Shared string
	// Rest is how long a port stays with a task that has ended before another gets it. A port is
	// reused only when no port of the range is unused, and the port that rested longest comes
	// first. The default is 168 h, which is the least.
	Rest time.Duration
	// CA is the certificate that signs the server's certificates, as PEM: it is offered at
	// http://sluice.test/ca.pem. The default is none.
	CA []byte
	// Client says how Nginx learns the address of a client. The default is Hidden.
	Client Client
	// Dial is how long a connection to a VIP may take. The default is 10 s.
	Dial time.Duration
	// Header is how long a client may take for the header of a request. The default is 10 s.
	Header time.Duration
	// Idle is how long a client may be silent between two requests, in the body of a request, or in
	// reading an answer. The default is 2 min.
	Idle time.Duration
	// Tunnel is how long a tunnel may be silent in both directions. The default is 1 h.
	Tunnel time.Duration
	// HalfClosed is how long one direction of a tunnel may be silent after the other has ended. The
	// default is 1 min.
	HalfClosed time.Duration
	// Grace is how long Run lets requests end when it is asked to. The default is 5 s.
	Grace time.Duration
	// Recheck is how often Run looks whether the tasks of open tunnels live. The default is 1 s.
	Recheck time.Duration
	// Logger logs the failures of Run. The default discards.
	Logger *slog.Logger
	// Now is the clock. The default is time.Now.
	Now func() time.Time
	// Observe is called after each request ("request") and tunnel ("tunnel") that was forwarded,
	// with how long it took and its error. Nil means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// minRest is the least time before a port is another task's: testers keep it in their settings.
const minRest = 7 * 24 * time.Hour

// validate sets the defaults, and returns all problems at once.
func (cfg *Config) validate() error {
	p := check.Problems{Package: "door", Sentinel: ErrInvalid}
	p.Require("Task", cfg.Task != nil)
	p.Require("Serves", cfg.Serves != nil)
	p.Require("Targets", len(cfg.Targets) > 0)
	for _, from := range slices.Sorted(maps.Keys(cfg.Targets)) {
		if to := cfg.Targets[from]; min(from, to) < 1 || max(from, to) > 65535 {
			p.Add("Targets", "%d becomes %d: want ports from 1 to 65535", from, to)
		}
	}
	switch {
	case cfg.First == 0 && cfg.Last == 0:
		if cfg.Shared == "" {
			p.Add("Shared", "want host:port, or a range of ports in First and Last")
		}
	case cfg.First < 1 || cfg.Last < cfg.First || cfg.Last > 65535:
		p.Add("First", "%d to %d: want a range of ports from 1 to 65535", cfg.First, cfg.Last)
	case cfg.State == "":
		p.Add("State", "want the path of the file that remembers the ports")
	}
	cfg.Host = cmp.Or(cfg.Host, "127.0.0.1")
	if _, err := netip.ParseAddr(cfg.Host); err != nil {
		p.Add("Host", "%q: want an IP address", cfg.Host)
	}
	if cfg.Shared != "" {
		if _, _, err := net.SplitHostPort(cfg.Shared); err != nil {
			p.Add("Shared", "%v: want host:port", err)
		}
	}
	if p.Duration("Rest", &cfg.Rest, minRest); cfg.Rest > 0 && cfg.Rest < minRest {
		p.Add("Rest", "%s: want 0 (default %s) or more than that", cfg.Rest, minRest)
	}
	if cfg.Client != Hidden && cfg.Client != ForwardedFor && cfg.Client != ProxyProtocol {
		p.Add("Client", "%q: want %q, %q or nothing", cfg.Client, ForwardedFor, ProxyProtocol)
	}
	p.Duration("Dial", &cfg.Dial, 10*time.Second)
	p.Duration("Header", &cfg.Header, 10*time.Second)
	p.Duration("Idle", &cfg.Idle, 2*time.Minute)
	p.Duration("Tunnel", &cfg.Tunnel, time.Hour)
	p.Duration("HalfClosed", &cfg.HalfClosed, time.Minute)
	p.Duration("Grace", &cfg.Grace, 5*time.Second)
	p.Duration("Recheck", &cfg.Recheck, time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	return p.Err()
}

// ParseRange reads a range of ports such as "21000-21999".
func ParseRange(text string) (first, last int, err error) {
	var rest string
	n, _ := fmt.Sscanf(text+" ", "%d-%d%s", &first, &last, &rest)
	if n != 2 || text != fmt.Sprintf("%d-%d", first, last) || first < 1 || last < first ||
		last > 65535 {
		return 0, 0, fmt.Errorf("range of ports %q: want first-last, such as 21000-21999: %w", text,
			ErrInvalid)
	}
	return first, last, nil
}
