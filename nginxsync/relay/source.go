package relay

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
)

// Config configures a Source. URLs and Token are required.
type Config struct {
	// URLs are where handlers answer, such as "https://relay-a.example:9183". They are tried in
	// turn until one answers.
	URLs []string
	// Token returns the token of the handlers.
	Token func() (string, error)
	// Client sends the requests. It must have no timeout: the answer is a stream. The default is
	// http.DefaultClient.
	Client *http.Client
	// Silence is how long a relay may be silent before its connection counts as lost. A handler
	// says something every 15 seconds unless it is configured otherwise. The default is 45 seconds.
	Silence time.Duration
	// Fallback makes the source that is followed while no relay is heard. It is run from
	// FallbackAfter on until a relay is heard. The default is none: the last snapshot stays.
	Fallback func() (Fallback, error)
	// FallbackAfter is how long no relay may be heard, or none may hear its own source, before the
	// fallback is made. The default is 1 minute.
	FallbackAfter time.Duration
	// Logger logs when relays cannot be followed, and when they can again. The default discards.
	Logger *slog.Logger
	// Now is the clock of the times in Status. The default is time.Now.
	Now func() time.Time
	// Observe is called with "follow" after each connection to a relay, how long it lasted and its
	// error. It must return soon and be safe for concurrent use. Nil means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// Fallback is a source that has to run, such as a consulsource.Source.
type Fallback interface {
	nginxsync.Source
	Run(ctx context.Context) error
}

// Source is an nginxsync.Source of the snapshots of a Handler in another process. Run must be
// running. It is safe for concurrent use.
type Source struct {
	cfg    Config
	stream string // of the last end; with revision, where a stream goes on. Of Run alone
	at     uint64
	view   *view // of at, perhaps with a part of the next change. Of Run alone

	mu       sync.Mutex
	relayed  *nginxsync.Snapshot // the last of a relay; nil before the first
	stood    *nginxsync.Snapshot // the last of the fallback; nil while it does not count
	revision uint64              // of the one that counts
	failures int
	told     bool          // a watcher has got the error
	changed  chan struct{} // closed with each change of these and of status
	status   Status
}

var _ nginxsync.Source = (*Source)(nil)

// Status says how a Source fares.
type Status struct {
	Relay     string    `json:"relay"`     // that is followed, or was tried last
	Connected bool      `json:"connected"` // a relay is heard, and hears its own source
	Since     time.Time `json:"since,omitzero"`
	Error     string    `json:"error,omitempty"` // of the last try, empty while Connected
	Fallback  bool      `json:"fallback"`        // the fallback's snapshot counts
	// FallbackError is why there is no fallback, or the last error of it.
	FallbackError string `json:"fallbackError,omitempty"`
}

// New makes a source; it sends nothing yet. A configuration that is not valid is an error with all
// its problems and nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Source, error) {
	p := check.Problems{Package: "relay", Sentinel: nginxsync.ErrInvalid}
	p.Require("URLs", len(cfg.URLs) > 0)
	for i, text := range cfg.URLs {
		at, err := url.Parse(text)
		if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" ||
			at.User != nil || at.RawQuery != "" || at.Fragment != "" {
			p.Add("URLs", "%d: want http or https and a host, such as https://relay.example:9183",
				i)
		}
	}
	p.Require("Token", cfg.Token != nil)
	p.Duration("Silence", &cfg.Silence, 45*time.Second)
	p.Duration("FallbackAfter", &cfg.FallbackAfter, time.Minute)
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
	return &Source{cfg: cfg, changed: make(chan struct{}),
		status: Status{Error: "no relay has answered yet", Since: cfg.Now()}}, nil
}

// Watch implements nginxsync.Source. A try to follow a relay that fails while it waits is its
// error, unless the fallback's snapshot counts.
func (s *Source) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	failures := -1
	for {
		if ctx.Err() != nil {
			return nginxsync.Snapshot{}, 0, context.Cause(ctx)
		}
		s.mu.Lock()
		now, revision, changed := s.current(), s.revision, s.changed
		failed, why := s.failures, s.status.Error
		fails := failures >= 0 && failed != failures || failures < 0 && now == nil && failed > 0
		fails = fails && !s.status.Connected && s.stood == nil
		s.told = s.told || fails
		s.mu.Unlock()
		switch {
		case now != nil && revision != after:
			return *now, revision, nil
		case fails:
			return nginxsync.Snapshot{}, 0, errors.New(why)
		}
		failures = failed
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// current is the snapshot that counts, or nil. The caller holds mu.
func (s *Source) current() *nginxsync.Snapshot {
	if s.stood != nil {
		return s.stood
	}
	return s.relayed
}

// Status is safe to call at any time.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run follows the relays until ctx ends, and returns its cause. Run must not be called twice.
func (s *Source) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if s.cfg.Fallback != nil {
		wg.Go(func() { s.standBy(ctx) })
	}
	tries := retry.Backoff{}
	for i := 0; ; i++ {
		at := strings.TrimSuffix(s.cfg.URLs[i%len(s.cfg.URLs)], "/")
		start := s.cfg.Now()
		came, err := s.follow(ctx, at)
		s.cfg.Observe("follow", s.cfg.Now().Sub(start), err)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if came {
			tries = retry.Backoff{}
		}
		s.lost(at, err)
		if err := retry.Sleep(ctx, tries.Next(100*time.Millisecond, 5*time.Second)); err != nil {
			return err
		}
	}
}

// tell makes the watchers look again. The caller holds mu.
func (s *Source) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// lost notes that a relay is not followed any more, or cannot be, or hears nothing itself.
func (s *Source) lost(at string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	why := fmt.Sprintf("relay %s: %s", at, err)
	if s.status.Error != why {
		s.cfg.Logger.Warn("relay cannot be followed", "relay", at, "err", err)
	}
	if s.status.Connected {
		s.status.Since = s.cfg.Now()
	}
	s.status.Relay, s.status.Connected, s.status.Error = at, false, why
	s.failures++
	s.tell()
}

// heard notes that a relay is followed; next is its snapshot, nil for the one that is known.
func (s *Source) heard(at string, next *nginxsync.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.status.Connected {
		s.cfg.Logger.Info("relay is followed", "relay", at)
		s.status.Since = s.cfg.Now()
	}
	s.status.Relay, s.status.Connected, s.status.Error = at, true, ""
	if next != nil {
		s.relayed = next
	}
	if next != nil || s.stood != nil || s.told { // the watchers have to learn that it is well
		s.revision++
	}
	s.stood, s.told, s.status.Fallback = nil, false, false
	s.tell()
}

// keep takes the snapshot of a relay that does not hear its source; nil is none.
func (s *Source) keep(next *nginxsync.Snapshot) {
	if next == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relayed = next; s.stood == nil {
		s.revision++
		s.tell()
	}
}
