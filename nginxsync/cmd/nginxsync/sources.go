package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/consulsource"
	"github.com/sluice-deploy/sluice/nginxsync/filesource"
	"github.com/sluice-deploy/sluice/nginxsync/relay"
)

// parts are the sources of one list.
type parts struct {
	sources []nginxsync.Source
	runs    []func(context.Context) error
	shown   []agenthttp.Source // for the status
	merged  nginxsync.Source
}

// source is that of all parts; nil when there is none.
func (p *parts) source() nginxsync.Source {
	switch {
	case len(p.sources) == 0:
		return nil
	case p.merged == nil && len(p.sources) == 1:
		p.merged = p.sources[0]
	case p.merged == nil:
		p.merged = nginxsync.Merge(p.sources...)
	}
	return p.merged
}

// sources makes the sources of a list, which is the value of the key at.
func (a *assembly) sources(at string, list []sourceEntry, bad func(string, error)) *parts {
	p := &parts{}
	if len(list) == 0 {
		bad(at, errors.New("want at least one: consul, file, relay or vip"))
	}
	names := map[string]bool{}
	for i, s := range list {
		key := fmt.Sprintf("%s[%d]", at, i)
		kinds := []bool{s.Consul != nil, s.File != nil, s.VIP != nil, s.Relay != nil}
		if first := slices.Index(kinds, true); first < 0 || slices.Contains(kinds[first+1:], true) {
			bad(key, errors.New("want consul, file, relay or vip, one of them"))
			continue
		}
		if names[s.Name] {
			bad(key, fmt.Errorf("another source has the name %.64q: give each a name", s.Name))
		}
		names[s.Name] = true
		source, status, err := a.source(key, s, bad)
		if err != nil {
			bad(key+"."+s.kind(), err)
			continue
		}
		p.sources = append(p.sources, source)
		p.shown = append(p.shown, agenthttp.Source{Name: s.Name, Kind: s.kind(), Status: status})
		if runner, ok := source.(relay.Fallback); ok {
			p.runs = append(p.runs, runner.Run)
		}
	}
	return p
}

// source makes the source of an entry of one kind, and the function that returns its status.
func (a *assembly) source(at string, s sourceEntry, bad func(string, error)) (nginxsync.Source,
	func() any, error) {
	log, observe := a.log.With("source", s.Name), a.metrics.Observe(s.Name)
	switch {
	case s.Consul != nil:
		source, err := consulsource.New(s.Consul.config(log, observe))
		return source, func() any { return source.Status() }, err
	case s.File != nil:
		source, err := filesource.New(filesource.Config{Path: s.File.Path, Every: s.File.Every})
		return source, nil, err
	case s.VIP != nil:
		source, err := s.VIP.source(log, observe)
		return source, func() any { return source.Status() }, err
	}
	cfg, problems := s.Relay.config()
	cfg.Logger, cfg.Now, cfg.Observe = log, now, observe
	if len(s.Relay.Fallback) > 0 {
		// Made once now, so that its problems are known.
		a.sources(at+".relay.fallback", s.Relay.Fallback, bad)
		cfg.Fallback = func() (relay.Fallback, error) { return a.fallback(s.Relay.Fallback) }
	}
	source, err := relay.New(cfg)
	return source, func() any { return source.Status() }, errors.Join(problems, err)
}

// fallback makes the sources of a list that is known to be right.
func (a *assembly) fallback(list []sourceEntry) (relay.Fallback, error) {
	var errs []error
	p := a.sources("fallback", list, func(at string, err error) {
		errs = append(errs, fmt.Errorf("%s: %w", at, err))
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return fallback{p.source(), p.runs}, nil
}

// fallback is a source whose parts run together.
type fallback struct {
	nginxsync.Source
	runs []func(context.Context) error
}

// Run implements relay.Fallback.
func (f fallback) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, run := range f.runs {
		wg.Go(func() { _ = run(ctx) }) // its error is the context's cause
	}
	wg.Wait()
	<-ctx.Done()
	return context.Cause(ctx)
}

// passOn makes the handler that agents on other hosts follow.
func (a *assembly) passOn(source nginxsync.Source, token string) error {
	handler, err := relay.NewHandler(relay.HandlerConfig{Source: source, Token: token,
		Logger: a.log.With("relay", a.file.Relay.Listen), Observe: a.metrics.Observe("relay")})
	if err != nil {
		return err
	}
	a.relay, a.runs = handler, append(a.runs, handler.Run)
	return nil
}

// relayEntry follows the relays of other hosts.
type relayEntry struct {
	URLs          []string      `yaml:"urls"`
	TokenFile     string        `yaml:"tokenFile"`
	TLS           *tlsEntry     `yaml:"tls"`
	Silence       time.Duration `yaml:"silence"`
	Fallback      []sourceEntry `yaml:"fallback"`
	FallbackAfter time.Duration `yaml:"fallbackAfter"`
}

// config is that of the source, without the fields that every source gets.
func (r *relayEntry) config() (relay.Config, error) {
	client, err := r.TLS.client()
	if !filepath.IsAbs(r.TokenFile) {
		err = errors.Join(err, fmt.Errorf("tokenFile %.128q: want an absolute path: %w",
			r.TokenFile, nginxsync.ErrInvalid))
	}
	return relay.Config{URLs: r.URLs, Client: client, Silence: r.Silence,
		FallbackAfter: r.FallbackAfter,
		Token:         func() (string, error) { return readToken(r.TokenFile) }}, err
}

// client is an HTTP client that speaks TLS as the section says.
func (t *tlsEntry) client() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	config, err := t.config()
	if config != nil {
		transport.TLSClientConfig = config
	}
	return &http.Client{Transport: transport}, err
}
