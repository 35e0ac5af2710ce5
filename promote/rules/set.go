package rules

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// Config configures a [Set]. Path is required.
type Config struct {
	// Path is the file of the document.
	Path string
	// Pipeline is the order of environments. The default, for nil, is promote.DefaultPipeline().
	Pipeline promote.Pipeline
	// Traffic counts requests. The default, for nil, is that a document with traffic is an error.
	Traffic promote.Traffic
	// Every is how often Run looks at the file. The default is one second.
	Every time.Duration
	// Logger receives a line for each document that Run has taken or refused. The default, for
	// nil, is to log nothing.
	Logger *slog.Logger
	// Now is the clock, for Observe. The default is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of each Reload, as "reload", with its duration and
	// error. It is called concurrently and has to return quickly. The default is none.
	Observe func(op string, took time.Duration, err error)
}

// Set is the newest good document of a file. It is safe for concurrent use.
type Set struct {
	cfg   Config
	mu    sync.Mutex // of Reload
	data  []byte     // of the newest document that was read, good or bad
	rules atomic.Pointer[Rules]
}

// Open reads the document. It returns every problem of cfg, or every error of the document.
func Open(ctx context.Context, cfg Config) (*Set, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("rules: Config."+format+": %w", append(args,
			promote.ErrInvalid)...))
	}
	if cfg.Path == "" {
		bad("Path: empty: want the file of the document")
	}
	if cfg.Pipeline == nil {
		cfg.Pipeline = promote.DefaultPipeline()
	}
	if err := cfg.Pipeline.Validate(); err != nil {
		bad("Pipeline: %v", err)
	}
	if cfg.Every < 0 {
		bad("Every: %s: want 0 (default 1s) or more", cfg.Every)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	cfg.Every = cmp.Or(cfg.Every, time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Set{cfg: cfg}
	return s, s.Reload(ctx)
}

// Rules returns the rules in force.
func (s *Set) Rules() *Rules { return s.rules.Load() }

// Reload reads the file and takes its document. After an error the rules in force stay as they
// were.
func (s *Set) Reload(ctx context.Context) (err error) {
	_, err = s.reload(ctx)
	return err
}

// reload also reports whether the file has other content than the time before.
func (s *Set) reload(ctx context.Context) (other bool, err error) {
	if s.cfg.Observe != nil {
		start := s.cfg.Now()
		defer func() { s.cfg.Observe("reload", s.cfg.Now().Sub(start), err) }()
	}
	if ctx.Err() != nil {
		return false, fmt.Errorf("reload %s: %w", s.cfg.Path, context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := os.ReadFile(s.cfg.Path)
	if err != nil {
		return false, fmt.Errorf("reload rules: %w", err)
	}
	other = s.data == nil || !bytes.Equal(s.data, data)
	s.data = data
	rules, err := Parse(s.cfg.Path, data, s.cfg.Pipeline)
	if err != nil {
		return other, err
	}
	if s.cfg.Traffic == nil {
		for _, r := range rules.list {
			if len(r.Traffic) > 0 {
				return other, fmt.Errorf("%s:%d: rule %q has traffic: nothing counts requests "+
					"here (Config.Traffic): %w", s.cfg.Path, r.line, r.name, promote.ErrInvalid)
			}
		}
	}
	s.rules.Store(rules)
	return other, nil
}

// Run takes each new document of the file until ctx ends, and returns the cause. A document with
// errors, and a file that is gone, leave the rules in force as they are.
func (s *Set) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		switch other, err := s.reload(ctx); {
		case ctx.Err() != nil:
		case err != nil && err.Error() != failed:
			failed = err.Error()
			s.cfg.Logger.Warn("rules stay as they were", "err", err)
		case err == nil && (other || failed != ""):
			failed = ""
			s.cfg.Logger.Info("rules in force", "path", s.cfg.Path)
		}
	}
}

// Gates returns the gates that hold the rules in force: approval, soak, freeze and, with
// Config.Traffic, traffic.
func (s *Set) Gates() []promote.Gate {
	gates := []promote.Gate{approval{s}, soak{s}, freeze{s}}
	if s.cfg.Traffic != nil {
		gates = append(gates, traffic{s})
	}
	return gates
}

// Of each gate the rules are looked up when it is asked.
type (
	approval struct{ *Set }
	soak     struct{ *Set }
	freeze   struct{ *Set }
	traffic  struct{ *Set }
)

var (
	_ promote.PureGate = approval{}
	_ promote.PureGate = soak{}
	_ promote.PureGate = freeze{}
	_ promote.Gate     = traffic{}
)

func (s *Set) of(t promote.Target) Cluster { return s.Rules().For(t.Cluster) }

func (g approval) gate(t promote.Target) promote.ApprovalGate {
	return promote.ApprovalGate{Rules: g.of(t).Approvals}
}

func (g soak) gate(t promote.Target) promote.SoakGate {
	return promote.SoakGate{Times: g.of(t).Soak}
}

func (g freeze) gate(t promote.Target) promote.FreezeGate {
	return promote.FreezeGate{Freezes: g.of(t).Freezes}
}

func (g traffic) gate(t promote.Target) promote.TrafficGate {
	return promote.TrafficGate{Source: g.cfg.Traffic, Requests: g.of(t).Traffic}
}

func (approval) Name() string { return promote.ApprovalGate{}.Name() }
func (soak) Name() string     { return promote.SoakGate{}.Name() }
func (freeze) Name() string   { return promote.FreezeGate{}.Name() }
func (traffic) Name() string  { return promote.TrafficGate{}.Name() }

func (approval) Reads() promote.Reads { return promote.ApprovalGate{}.Reads() }
func (soak) Reads() promote.Reads     { return promote.SoakGate{}.Reads() }
func (freeze) Reads() promote.Reads   { return promote.FreezeGate{}.Reads() }
func (traffic) Reads() promote.Reads  { return promote.TrafficGate{}.Reads() }

func (g approval) Policy(t promote.Target) any { return g.gate(t).Policy(t) }
func (g soak) Policy(t promote.Target) any     { return g.gate(t).Policy(t) }
func (g traffic) Policy(t promote.Target) any  { return g.gate(t).Policy(t) }

func (g approval) Judge(c promote.Change) *promote.Refusal { return g.gate(c.Target).Judge(c) }
func (g soak) Judge(c promote.Change) *promote.Refusal     { return g.gate(c.Target).Judge(c) }
func (g freeze) Judge(c promote.Change) *promote.Refusal   { return g.gate(c.Target).Judge(c) }

func (g approval) Check(ctx context.Context, c promote.Change) error {
	return g.gate(c.Target).Check(ctx, c)
}

func (g soak) Check(ctx context.Context, c promote.Change) error {
	return g.gate(c.Target).Check(ctx, c)
}

func (g freeze) Check(ctx context.Context, c promote.Change) error {
	return g.gate(c.Target).Check(ctx, c)
}

func (g traffic) Check(ctx context.Context, c promote.Change) error {
	return g.gate(c.Target).Check(ctx, c)
}
