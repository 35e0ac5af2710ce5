package vipsource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
	"github.com/sluice-deploy/sluice/vip"
)

// RemoteConfig configures a Remote. URL is required.
type RemoteConfig struct {
	// URL is where a handler of package viphttp answers, such as "https://deploy.example/vip".
	URL string
	// Token returns the token of each request, "Authorization: Bearer TOKEN". Nil means none.
	Token func() (string, error)
	// Client sends the requests. It must have no timeout: the events are one long answer. The
	// default is http.DefaultClient.
	Client *http.Client
	// Silence is how long the events may be silent before the connection counts as lost. The
	// handler says something every 15 seconds unless it is configured otherwise. The default is 45
	// seconds.
	Silence time.Duration
	// Branches, KeepEnded, KeepBaseline and Tasks are those of Config.
	Branches     func(vip.Lease) []string
	KeepEnded    int
	KeepBaseline bool
	Tasks        bool
	// Logger logs when the leases cannot be read, and when they can again. The default discards.
	Logger *slog.Logger
	// Now is the clock. The default is time.Now.
	Now func() time.Time
	// Observe is called after each list and each stream of events ("list", "events"), with how long
	// it took and its error. Nil means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// Remote is an nginxsync.Source of the leases of an allocator in another process, by the HTTP
// interface of package viphttp: a list, then a stream of events. While it cannot be reached the
// last snapshot stays in force. A record that cannot be read harms only itself. Run must be
// running. It is safe for concurrent use.
type Remote struct {
	cfg  RemoteConfig
	base string

	leases Source // of which Remote uses the state alone
	reset  bool   // the events since leases.seen are not kept; of Run alone

	mu       sync.Mutex
	changed  chan struct{} // closed with each revision and each failure
	failures int
	status   RemoteStatus
}

// RemoteStatus says how a Remote fares.
type RemoteStatus struct {
	URL       string    `json:"url"`
	Connected bool      `json:"connected"` // events come
	Since     time.Time `json:"since,omitzero"`
	Error     string    `json:"error,omitempty"` // of the last try, empty while Connected
	Leases    int       `json:"leases"`          // that have an overlay
	// records that could not be read, since the start: the routes of their addresses stay
	SetAside int `json:"setAside"`
}

var _ nginxsync.Source = (*Remote)(nil)

// NewRemote makes a source; it sends nothing yet. A configuration that is not valid is an error
// with all its problems and nginxsync.ErrInvalid in its chain.
func NewRemote(cfg RemoteConfig) (*Remote, error) {
	p := check.Problems{Package: "vipsource", Sentinel: nginxsync.ErrInvalid}
	at, err := url.Parse(cfg.URL)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" ||
		at.User != nil || at.RawQuery != "" || at.Fragment != "" {
		p.Add("URL", "want http or https, a host and a path, such as https://deploy.example/vip")
	}
	p.Duration("Silence", &cfg.Silence, 45*time.Second)
	check.Number(&p, "KeepEnded", &cfg.KeepEnded, 1000)
	if cfg.Client != nil && cfg.Client.Timeout != 0 {
		p.Add("Client", "has a timeout of %s: want none", cfg.Client.Timeout)
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	r := &Remote{cfg: cfg, base: strings.TrimSuffix(cfg.URL, "/"), changed: make(chan struct{})}
	r.leases.cfg = Config{Overlay: Overlay, Branches: cfg.Branches, KeepEnded: cfg.KeepEnded,
		KeepBaseline: cfg.KeepBaseline, Tasks: cfg.Tasks}
	r.status.URL = r.base
	return r, nil
}

// Watch implements nginxsync.Source. A try that fails while it waits is its error.
func (r *Remote) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	failures := -1
	for {
		if ctx.Err() != nil {
			return nginxsync.Snapshot{}, 0, context.Cause(ctx)
		}
		r.mu.Lock()
		changed, failed, why := r.changed, r.failures, r.status.Error
		r.mu.Unlock()
		r.leases.mu.Lock()
		known, snapshot, revision := r.leases.known, r.leases.snapshot, r.leases.revision
		r.leases.mu.Unlock()
		switch {
		case known && revision != after:
			return snapshot, revision, nil
		case why != "" && (failures >= 0 && failed != failures || failures < 0 && !known):
			return nginxsync.Snapshot{}, 0, fmt.Errorf("leases: %s", why)
		}
		failures = failed
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Status is safe to call at any time.
func (r *Remote) Status() RemoteStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leases.mu.Lock()
	defer r.leases.mu.Unlock()
	status := r.status
	status.Leases = len(r.leases.overlays)
	return status
}

// Run follows the leases until ctx ends, and returns its cause.
func (r *Remote) Run(ctx context.Context) error {
	tries := retry.Backoff{}
	for {
		came, err := r.follow(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if came {
			tries = retry.Backoff{}
		}
		r.failed(err)
		if err := retry.Sleep(ctx, tries.Next(100*time.Millisecond, 5*time.Second)); err != nil {
			return err
		}
	}
}

func (r *Remote) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.Error != err.Error() {
		r.cfg.Logger.Warn("leases cannot be followed", "url", r.base, "err", err)
	}
	if r.status.Connected || r.status.Since.IsZero() {
		r.status.Since = r.cfg.Now()
	}
	r.status.Connected, r.status.Error = false, err.Error()
	r.failures++
	r.tell()
}

func (r *Remote) connected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.status.Connected {
		r.cfg.Logger.Info("leases are followed", "url", r.base)
		r.status.Since = r.cfg.Now()
	}
	r.status.Connected, r.status.Error = true, ""
	r.tell()
}

// tell wakes the watchers. The caller holds mu.
func (r *Remote) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

var errReset = errors.New("the events since the last one are not kept")

// follow resumes the events, or begins with a list, and takes events until something fails. came
// reports whether it came as far as events.
func (r *Remote) follow(ctx context.Context) (came bool, err error) {
	r.leases.mu.Lock()
	after, resume := r.leases.seen, r.leases.known && !r.reset
	r.leases.mu.Unlock()
	events, err := r.stream(ctx, after, resume)
	if err != nil {
		return false, err
	}
	defer events.close(nil)
	if resume {
		if err := r.readPools(ctx); err != nil { // they may have changed meanwhile
			return false, err
		}
	} else if err := r.list(ctx, events); err != nil {
		return false, err
	}
	r.reset = false
	r.connected()
	return true, r.take(ctx, events)
}

// take applies events until the stream ends.
func (r *Remote) take(ctx context.Context, events *stream) error {
	began := r.cfg.Now()
	for {
		e, err := events.next()
		switch {
		case err != nil:
		case e.kind == "pools":
			err = r.readPools(ctx)
		case e.kind == "reset":
			r.reset = true // the next stream begins with a list
			err = errReset
		default:
			r.apply(e)
		}
		if err != nil {
			r.cfg.Observe("events", r.cfg.Now().Sub(began), err)
			return err
		}
	}
}

// apply takes one event of a lease.
func (r *Remote) apply(e event) {
	lease, err := e.lease()
	if err != nil {
		r.setAside(err)
	}
	r.leases.mu.Lock()
	changed := err == nil && e.id > r.leases.seen && r.leases.set(lease)
	r.leases.seen = max(r.leases.seen, e.id)
	if changed {
		r.leases.publish()
	}
	r.leases.mu.Unlock()
	if changed {
		r.mu.Lock()
		r.tell()
		r.mu.Unlock()
	}
}

func (r *Remote) setAside(err error) {
	r.cfg.Logger.Warn("a lease cannot be read", "url", r.base, "err", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.SetAside++
}
