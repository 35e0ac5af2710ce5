// Package livecatalog keeps a catalogue of templates up to date without a restart: out of a
// directory, a git branch, an HTTP or an rsync server, as the sources below nginxsync/bundle bring
// trees of files.
//
// A tree that is refused, that holds no template, or that cannot be fetched leaves the catalogue as
// it is, and Status says why. A build keeps the template that it began with: templates never
// change.
package livecatalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
)

// Config is for New.
type Config struct {
	// Source brings the tree: a directory a template, as builder.Load reads it. It is required, and
	// stays the caller's.
	Source bundle.Source
	// First is in force until the source has brought a catalogue. The default is builder.Default().
	First *builder.Catalog
	// Retry is the time after a Fetch that failed, and after a tree that was refused. The default
	// is 10 seconds.
	Retry time.Duration
	// Logger is told of catalogues that are taken or refused. Nil discards the lines.
	Logger *slog.Logger
	// Now is the time of Status. Nil is time.Now.
	Now func() time.Time
	// Observe is called after each tree with the operation "load", the time that reading it took,
	// and the error. Nil is none.
	Observe func(op string, took time.Duration, err error)
}

// Status says where the catalogue in force comes from.
type Status struct {
	// Digest of the tree in force; "" while First is.
	Digest string `json:"digest,omitempty"`
	// Since is the time from which it is in force.
	Since time.Time `json:"since"`
	// Err is the reason why the newest tree is not in force, or nil. It matches builder.ErrInvalid
	// when the tree is refused.
	Err error `json:"-"`
}

// Live is a catalogue that follows a source. It is safe for concurrent use.
type Live struct {
	cfg Config

	mu      sync.Mutex
	catalog *builder.Catalog
	status  Status
}

// New checks cfg and returns a Live on which Run has to be called. The error matches
// builder.ErrInvalid.
func New(cfg Config) (*Live, error) {
	var problems []error
	if cfg.Source == nil {
		problems = append(problems, fmt.Errorf("livecatalog: Config.Source: nil: want a source: %w",
			builder.ErrInvalid))
	}
	if cfg.Retry < 0 {
		problems = append(problems, fmt.Errorf("livecatalog: Config.Retry: %v: want 0 (default "+
			"10s) or more: %w", cfg.Retry, builder.ErrInvalid))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if cfg.First == nil {
		cfg.First = builder.Default()
	}
	if cfg.Retry == 0 {
		cfg.Retry = 10 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Live{cfg: cfg, catalog: cfg.First, status: Status{Since: cfg.Now()}}, nil
}

// Catalog returns the catalogue in force.
func (l *Live) Catalog() *builder.Catalog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.catalog
}

// Status returns the state of now.
func (l *Live) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Run takes each tree of the source until ctx ends, and returns the cause.
func (l *Live) Run(ctx context.Context) error {
	seen := ""
	for {
		b, err := l.cfg.Source.Fetch(ctx, seen)
		if err == nil {
			seen = b.Digest // a refused tree is not looked at again before it changes
			err = l.take(b)
		} else {
			seen = "" // so that the next Fetch returns, and tells that the source is back
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			continue
		}
		l.fail(err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(l.cfg.Retry):
		}
	}
}

// take puts the tree in force, or says why not.
func (l *Live) take(b *bundle.Bundle) (err error) {
	l.mu.Lock()
	inForce := l.status.Digest == b.Digest
	if inForce {
		l.status.Err = nil
	}
	l.mu.Unlock()
	if inForce {
		return nil
	}
	start := l.cfg.Now()
	if l.cfg.Observe != nil {
		defer func() { l.cfg.Observe("load", l.cfg.Now().Sub(start), err) }()
	}
	catalog, err := builder.Load(b.FS())
	if err != nil {
		return err
	}
	if len(catalog.Templates()) == 0 {
		return fmt.Errorf("load catalogue: the tree has no template: %w", builder.ErrInvalid)
	}
	l.mu.Lock()
	l.catalog, l.status = catalog, Status{Digest: b.Digest, Since: start}
	l.mu.Unlock()
	l.cfg.Logger.Info("catalogue in force", "digest", b.Digest, "templates",
		len(catalog.Templates()))
	return nil
}

// fail notes an error, and logs it when it is another one than before.
func (l *Live) fail(err error) {
	l.mu.Lock()
	known := l.status.Err != nil && l.status.Err.Error() == err.Error()
	l.status.Err = err
	l.mu.Unlock()
	if !known {
		l.cfg.Logger.Warn("catalogue stays as it was", "err", err)
	}
}
