package nginxsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// ErrHeld is in the chain of WaitVerified's error when the guard holds a change of the revision.
var ErrHeld = errors.New("held")

// ErrNotFound is in the chain of Release's error when the guard holds no such change.
var ErrNotFound = errors.New("not found")

// Config configures an Agent. Source and Driver are required.
type Config struct {
	Source Source
	Driver Driver
	// StateFile is where the routes are kept that Nginx has accepted: Nginx starts from it without
	// the agent. The agent keeps the copy of before, a lock, and damaged files beside it. Empty
	// means that nothing is kept.
	StateFile string
	// Guard says which changes the agent does not believe without a plan.
	Guard Guard
	// CheckEvery is how often a verified Nginx is asked whether it still has the routes. The
	// default is one second.
	CheckEvery time.Duration
	// Timeout bounds one attempt to bring Nginx in step: asking, pushing, asking again. The default
	// is 10 seconds.
	Timeout time.Duration
	// Logger logs the events of Run. The default discards.
	Logger *slog.Logger
	// Now is the clock of the times in Status and of Observe. The default is time.Now.
	Now func() time.Time
	// Observe is called after each call of the driver and each write of the state file with
	// "state", "apply" or "save", how long it took and its error. It must return soon. Nil means
	// that there is none.
	Observe func(op string, took time.Duration, err error)
}

// Agent keeps one Nginx in step with a Source: source, guard, desired, applied, verified. Its
// methods are safe for concurrent use.
//
// An agent that starts takes over the routes of Nginx, or the state file where that is newer, each
// only when its digest proves it, and changes it as its source says. A source that is silent takes
// nothing away; the Guard judges the losses that an empty or a restored source brings.
//
// One agent owns an Nginx. An agent whose state file another process owns waits; one that starts
// takes over from the agent that pushed before, which does not push any more and says so in
// Status.Fenced. Routes that are equal are taken over without a push.
//
// A record that is not valid harms only itself: the agent sets it aside by the rules of
// Snapshot.Usable, applies the rest, shows it in Status.SetAside and logs it once.
type Agent struct {
	cfg    Config
	writer string // the name of this agent in Nginx

	mu       sync.Mutex
	status   Status
	revision uint64        // of status; grows with each change
	changed  chan struct{} // closed with each change of status
	releases []Intent      // for Run
	wake     chan struct{} // of capacity 1: there are releases
}

// Status is the state of an Agent.
type Status struct {
	// of the snapshot that Desired was made from; 0 before the first
	Revision uint64 `json:"revision"`
	// the newest revision that every worker answers with
	VerifiedRevision uint64 `json:"verifiedRevision"`
	// the generation that Nginx should have
	Desired Generation `json:"desired"`
	// the generation that Nginx has accepted
	Applied Generation `json:"applied"`
	// the generation that every worker of Nginx answered with when last asked
	Verified Generation `json:"verified"`
	// the generation that the state file has: a start of Nginx without the agent serves it
	Saved Generation `json:"saved"`
	// the newest revision that the state file has
	SavedRevision uint64 `json:"savedRevision"`
	// Desired comes from Nginx or the state file: the source has supplied no snapshot yet
	Resumed bool `json:"resumed"`
	// when Desired changed last
	ChangedAt time.Time `json:"changedAt"`
	// when Nginx was last seen to have all of Desired
	VerifiedAt time.Time `json:"verifiedAt"`
	// the changes that the guard holds, by VIP and cluster
	Held []Held `json:"held"`
	// records of the snapshot of Revision that are not valid, as Snapshot.Usable returns them
	SetAside []SetAside `json:"setAside"`
	// as last seen
	Workers []Worker `json:"workers"`
	// of the last attempt at Nginx; empty when it went well
	LastError string `json:"lastError"`
	// of the last attempt to write the state file; empty when it went well
	SaveError string `json:"saveError"`
	// why this agent does not push: another one owns Nginx or the state file; empty when none does
	Fenced string `json:"fenced"`
	// Nginx's memory for routes and the rest of it, in bytes; 0 when the driver does not know
	Memory int64 `json:"memory"`
	Free   int64 `json:"free"`
	// of the last attempt at the source; empty when it went well. The last snapshot stays in force.
	SourceError string `json:"sourceError"`
	// how many times routes were pushed to Nginx
	Pushes uint64 `json:"pushes"`

	refused uint64 // the newest revision that was not pushed because another agent owns Nginx
}

// OpenAgent checks the configuration and reads the state file. A configuration that is not valid is
// an error with all its problems and ErrInvalid in its chain. A state file that is damaged is not:
// Run renames it and writes another one.
func OpenAgent(ctx context.Context, cfg Config) (*Agent, error) {
	p := check.Problems{Package: "agent", Sentinel: ErrInvalid}
	p.Require("Source", cfg.Source != nil)
	p.Require("Driver", cfg.Driver != nil)
	p.Duration("CheckEvery", &cfg.CheckEvery, time.Second)
	p.Duration("Timeout", &cfg.Timeout, 10*time.Second)
	if g := cfg.Guard; g.Share < 0 || g.Share > 1 || g.AlarmAfter < 0 || g.ReleaseAfter < 0 {
		p.Add("Guard", "%+v: want a share from 0 (default 0.5) to 1 and no negative times", g)
	}
	cfg.Guard.Share = cmp.Or(cfg.Guard.Share, 0.5)
	cfg.Guard.AlarmAfter = cmp.Or(cfg.Guard.AlarmAfter, 15*time.Minute)
	if err := p.Err(); err != nil {
		return nil, err
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
	a := &Agent{cfg: cfg, writer: writerName(), revision: 1, changed: make(chan struct{}),
		wake: make(chan struct{}, 1)}
	if cfg.StateFile == "" {
		return a, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("agent: state file %s: %w", cfg.StateFile, context.Cause(ctx))
	}
	if resumed, _, _ := readState(cfg.StateFile); resumed.Generation != (Generation{}) {
		a.status = Status{Desired: resumed.Generation, Resumed: true, ChangedAt: cfg.Now()}
	}
	return a, nil
}

// Status returns a copy of the agent's current state.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status.clone()
}

func (s Status) clone() Status {
	s.Held, s.Workers, s.SetAside = slices.Clone(s.Held), slices.Clone(s.Workers),
		slices.Clone(s.SetAside)
	return s
}

// Watch blocks until the status has another revision than after, and returns the newest status and
// its revision: those in between are skipped. An after of 0 returns the current one. Revisions grow
// and are never 0; each look at Nginx makes one. The error is the context's cause when ctx ends.
func (a *Agent) Watch(ctx context.Context, after uint64) (Status, uint64, error) {
	for {
		if ctx.Err() != nil {
			return Status{}, 0, context.Cause(ctx)
		}
		a.mu.Lock()
		status, revision, changed := a.status.clone(), a.revision, a.changed
		a.mu.Unlock()
		if revision != after {
			return status, revision, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// WaitVerified blocks until every worker of Nginx answers with the routes of that revision of the
// source or of a newer one. Records that are set aside are no part of the routes: look for them in
// Status, or ask Snapshot.Validate before the snapshot goes to the source. When the guard holds a
// change that came with the revision, the error is a *HeldError with ErrHeld in its chain, as soon
// as the rest is verified: the routes that the change would have replaced go on to serve. When
// another agent owns Nginx, ErrFenced is in the chain. When ctx ends, the error names the last
// revisions, the workers that answer with other routes and the last error, and has the context's
// cause in its chain. Whether the routes survive a restart of Nginx is another question: WaitSaved.
func (a *Agent) WaitVerified(ctx context.Context, revision uint64) error {
	return a.wait(ctx, func(s Status) (bool, error) {
		if s.VerifiedRevision < revision {
			if s.refused >= revision {
				return false, fmt.Errorf("revision %d: another agent owns Nginx: %w", revision,
					ErrFenced)
			}
			return false, nil
		}
		var held []Held
		for _, h := range s.Held {
			if h.after < revision && revision <= h.at {
				held = append(held, h)
			}
		}
		if len(held) > 0 {
			return false, fmt.Errorf("revision %d: %w", revision, &HeldError{held})
		}
		return true, nil
	}, func(s Status) string {
		return fmt.Sprintf("wait for revision %d: at %d, verified %d%s", revision, s.Revision,
			s.VerifiedRevision, s.lagging())
	})
}

// WaitSaved blocks until the state file has the routes of that revision or of a newer one: Nginx
// serves them after a restart, also without the agent. Its errors are those of a context that ends;
// without a state file it waits for that.
func (a *Agent) WaitSaved(ctx context.Context, revision uint64) error {
	return a.wait(ctx, func(s Status) (bool, error) {
		return s.SavedRevision >= revision, nil
	}, func(s Status) string {
		return fmt.Sprintf("wait for revision %d in the state file: it has %d, last error: %s",
			revision, s.SavedRevision, cmp.Or(s.SaveError, "none"))
	})
}

func (a *Agent) wait(ctx context.Context, done func(Status) (bool, error),
	describe func(Status) string) error {
	for {
		a.mu.Lock()
		status, changed := a.status, a.changed
		a.mu.Unlock()
		if ok, err := done(status); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", describe(status), context.Cause(ctx))
		}
	}
}

// lagging names the worker or row that keeps the status from being verified.
func (s Status) lagging() string {
	var b strings.Builder
	for _, w := range s.Workers {
		if w.Applied != s.Desired && s.Applied == s.Desired {
			fmt.Fprintf(&b, ", worker %d (process %d) answers with %q", w.Slot, w.PID,
				w.Applied.String())
		}
	}
	return b.String() + ", last error: " + cmp.Or(s.LastError, s.SourceError, "none")
}

// Release lets changes take effect that the guard holds, as an intent of the same form would: of
// one cluster of the baseline, of a VIP, or of one cluster of a VIP. It does not wait for Nginx.
// ErrNotFound: the guard holds no such change.
func (a *Agent) Release(i Intent) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.ContainsFunc(a.status.Held, func(h Held) bool {
		return i.covers(h.key())
	}) {
		where := "baseline"
		switch {
		case i.VIP.IsValid():
			where = "vip " + i.VIP.String()
		case i.Branch != "":
			where = "branch " + i.Branch
		}
		return fmt.Errorf("release %s cluster %q: %w", where, i.Cluster, ErrNotFound)
	}
	a.releases = append(a.releases, i)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return nil
}

func (a *Agent) update(f func(*Status)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.status)
	a.revision++
	close(a.changed)
	a.changed = make(chan struct{})
}
