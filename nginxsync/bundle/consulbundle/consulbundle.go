// Package consulbundle is a bundle.Source on the keys below a prefix of a Consul agent's key-value
// store.
//
// Purpose: a production tree that is kept in Consul. New makes a Source that waits for changes with
// blocking queries. The client is the official one, made and configured by the caller: address,
// token, TLS, data center.
//
// Layout: the key is the prefix and the name of the file, the value its content, the flags its
// permission bits (0 stands for 0644). A key that ends in "/" and has no value is a directory and
// is passed over. Consul takes 512 KiB a value and 64 changes in one transaction: a writer of more
// changes the tree in several steps, which Settle waits for; the SHA256SUMS of
// bundle.VerifiedSource prove that none is missing.
//
// Permissions: key_prefix read. Limits: reads are those of Consul's default consistency, from the
// leader; an answer without a known leader, an error and an empty prefix are errors, so that a
// registry that is away or lost its content wipes nothing.
package consulbundle

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Config configures a Source. Client and Prefix are required.
type Config struct {
	Client *api.Client
	// of the keys, such as "nginx/production/"; a "/" at its end is added when it is missing
	Prefix string
	// Wait is how long a query blocks at most, up to ten minutes: a Consul that was restored from a
	// snapshot, whose index is lower than before, is noticed after it at the latest. The default is
	// one minute.
	Wait time.Duration
	// Settle is how long the keys must stay as they are before a change is believed. The default is
	// half a second.
	Settle time.Duration
	// Interval is the least time between two queries in the long run; two may follow each other at
	// once. The default is one second.
	Interval time.Duration
	Limits   bundle.Limits
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

// Source is a bundle.Source. It is safe for concurrent use.
type Source struct{ cfg Config }

var _ bundle.Source = (*Source)(nil)

// New checks the configuration. The error has all its problems, and bundle.ErrInvalid in its chain.
func New(cfg Config) (*Source, error) {
	cfg.Prefix = strings.TrimRight(cfg.Prefix, "/") + "/"
	p := check.Problems{Package: "consulbundle", Sentinel: bundle.ErrInvalid}
	p.Require("Client", cfg.Client != nil)
	if p.Require("Prefix", cfg.Prefix != "/"); cfg.Prefix != "/" && cfg.Prefix[0] == '/' {
		p.Add("Prefix", "%q: must not begin with a slash", cfg.Prefix)
	}
	if cfg.Wait > 10*time.Minute {
		p.Add("Wait", "%s: want at most 10m", cfg.Wait)
	}
	p.Duration("Wait", &cfg.Wait, time.Minute)
	p.Duration("Settle", &cfg.Settle, 500*time.Millisecond)
	p.Duration("Interval", &cfg.Interval, time.Second)
	p.Join("Limits", cfg.Limits.Validate())
	cfg.Limits = cfg.Limits.WithDefaults()
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Source{cfg: cfg}, nil
}

// Fetch implements bundle.Source.
func (s *Source) Fetch(ctx context.Context, after string) (*bundle.Bundle, error) {
	index, seen, budget := uint64(0), "", budget{interval: s.cfg.Interval, now: s.cfg.Now}
	for {
		if err := budget.take(ctx); err != nil {
			return nil, err
		}
		wait := s.cfg.Wait
		if seen != "" {
			wait = s.cfg.Settle // is anything else about to change?
		}
		b, next, err := s.query(ctx, index, wait)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, fmt.Errorf("consulbundle %s: %w", s.cfg.Prefix, err)
		case b.Digest != after && b.Digest == seen:
			return b, nil
		case b.Digest != after:
			seen = b.Digest
		default:
			seen = "" // as it was: a return is not a change
		}
		if next < index {
			next = 0 // Consul was restored from a snapshot: begin again
		}
		index = next
	}
}

// query asks for the tree and blocks until Consul's index is above index, at most for wait.
func (s *Source) query(ctx context.Context, index uint64, wait time.Duration) (*bundle.Bundle,
	uint64, error) {
	// Consul adds up to a sixteenth to the wait. A connection that is dead must not be waited for
	// longer.
	limit := wait + wait/16 + 15*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer in %s", limit))
	defer cancel()
	pairs, meta, err := s.cfg.Client.KV().List(s.cfg.Prefix,
		(&api.QueryOptions{WaitIndex: index, WaitTime: wait}).WithContext(ctx))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, 0, context.Cause(ctx)
	case err != nil:
		return nil, 0, redacted(err)
	case !meta.KnownLeader:
		return nil, 0, errors.New("consul knows no leader")
	}
	b := bundle.Builder{Limits: s.cfg.Limits}
	for _, p := range pairs {
		name := strings.TrimPrefix(p.Key, s.cfg.Prefix)
		if name == "" || strings.HasSuffix(name, "/") && len(p.Value) == 0 {
			continue
		}
		if err := b.Add(name, fs.FileMode(cmp.Or(p.Flags, 0o644)), int64(len(p.Value)),
			bytes.NewReader(p.Value)); err != nil {
			return nil, 0, err
		}
	}
	bundle, err := b.Bundle()
	return bundle, max(meta.LastIndex, 1), err // an index of 0 would not block
}

// redacted is Consul's error without the URL, whose query may have a token.
func redacted(err error) error {
	text := err.Error()
	if i := strings.Index(text, "\": "); strings.HasPrefix(text, "Get \"") && i > 0 {
		return errors.New(text[i+3:])
	}
	var status api.StatusError
	if errors.As(err, &status) {
		return fmt.Errorf("status %d: %.200s", status.Code, strings.TrimSpace(status.Body))
	}
	return err
}

// budget allows one query an interval and two at once.
type budget struct {
	interval time.Duration
	now      func() time.Time
	free     time.Time // when the bucket has its second token back
}

func (b *budget) take(ctx context.Context) error {
	now := b.now()
	if b.free.Before(now) {
		b.free = now
	}
	early := b.free.Sub(now) - b.interval
	b.free = b.free.Add(b.interval)
	if early <= 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(early):
		return nil
	}
}
