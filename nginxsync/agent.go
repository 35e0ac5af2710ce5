package nginxsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Config configures an Agent. Source and Driver are required.
type Config struct {
	Source Source
	Driver Driver
	// StateFile is where the routes are kept that Nginx has accepted: Nginx starts from it without
	// the agent, and the agent resumes from it. Empty means that nothing is kept.
	StateFile string
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
// The guard holds an emptying change: when a snapshot takes the last instance of a cluster's
// baseline away and does not name the cluster in Planned, the agent keeps the instances that it
// knew, applies the rest, and shows the cluster in Status.Held until a snapshot has instances again
// or plans the change.
//
// A record that is not valid harms only itself: the agent sets it aside by the rules of
// Snapshot.Usable, applies the rest, shows it in Status.SetAside and logs it once.
type Agent struct {
	cfg     Config
	resumed Routes // of the state file

	mu       sync.Mutex
	status   Status
	revision uint64        // of status; grows with each change
	changed  chan struct{} // closed with each change of status
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
	// Desired is still that of the state file: the source has supplied no snapshot yet
	Resumed bool `json:"resumed"`
	// when Desired changed last
	ChangedAt time.Time `json:"changedAt"`
	// when Nginx was last seen to have all of Desired
	VerifiedAt time.Time `json:"verifiedAt"`
	// clusters whose emptying is held, by name
	Held []Held `json:"held"`
	// records of the snapshot of Revision that are not valid, as Snapshot.Usable returns them
	SetAside []SetAside `json:"setAside"`
	// as last seen
	Workers []Worker `json:"workers"`
	// of the last attempt at Nginx or the state file; empty when it went well
	LastError string `json:"lastError"`
	// of the last attempt at the source; empty when it went well. The last snapshot stays in force.
	SourceError string `json:"sourceError"`
	// how many times routes were pushed to Nginx
	Pushes uint64 `json:"pushes"`
}

// Held is an emptying change that the guard holds.
type Held struct {
	Cluster   string    `json:"cluster"`
	Instances int       `json:"instances"` // how many are kept
	Since     time.Time `json:"since"`     // when the change came
}

// OpenAgent checks the configuration and reads the state file. A configuration that is not valid is
// an error with all its problems and ErrInvalid in its chain. So is a state file that is damaged:
// Nginx would start with its routes. A missing one is not.
func OpenAgent(ctx context.Context, cfg Config) (*Agent, error) {
	p := check.Problems{Package: "agent", Sentinel: ErrInvalid}
	p.Require("Source", cfg.Source != nil)
	p.Require("Driver", cfg.Driver != nil)
	p.Duration("CheckEvery", &cfg.CheckEvery, time.Second)
	p.Duration("Timeout", &cfg.Timeout, 10*time.Second)
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
	a := &Agent{cfg: cfg, revision: 1, changed: make(chan struct{})}
	if cfg.StateFile == "" {
		return a, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("agent: state file %s: %w", cfg.StateFile, context.Cause(ctx))
	}
	text, err := os.ReadFile(cfg.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = a.resumed.UnmarshalText(text)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: state file %s: %w", cfg.StateFile, err)
	}
	a.status = Status{Desired: a.resumed.Generation, Resumed: true, ChangedAt: cfg.Now()}
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
// source or of a newer one. Routes that the guard holds count as the routes of the revision, and
// so does the rest of a snapshot with records that are set aside. Before an instance ends that the
// guard may hold, look for held clusters and records that are set aside in Status, or ask
// Snapshot.Validate before the snapshot goes to the source. The error names the last revisions and
// the last error of the agent and has the context's cause in its chain.
func (a *Agent) WaitVerified(ctx context.Context, revision uint64) error {
	for {
		a.mu.Lock()
		status, changed := a.status, a.changed
		a.mu.Unlock()
		if status.VerifiedRevision >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			last := cmp.Or(status.LastError, status.SourceError, "none")
			return fmt.Errorf("wait for revision %d: at %d, verified %d, last error: %s: %w",
				revision, status.Revision, status.VerifiedRevision, last, context.Cause(ctx))
		}
	}
}

func (a *Agent) update(f func(*Status)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.status)
	a.revision++
	close(a.changed)
	a.changed = make(chan struct{})
}

type revised struct {
	snapshot Snapshot
	revision uint64
}

// Run keeps Nginx in step until ctx ends, and returns its cause. A source or an Nginx that fails is
// tried again without limit. Run must not be called twice.
func (a *Agent) Run(ctx context.Context) error {
	snapshots := make(chan revised, 1) // the newest one only: an older one is taken out before
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.watch(ctx, snapshots) })

	d := desired{routes: a.resumed, have: a.resumed.Generation != (Generation{})}
	tries := retry.Backoff{}
	var wait time.Duration
	for {
		var timer <-chan time.Time
		if d.have {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case next := <-snapshots:
			a.accept(&d, next)
			tries = retry.Backoff{}
		case <-timer:
		}
		if !d.have {
			continue
		}
		verified, err := a.reconcile(ctx, &d)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			wait = tries.Next(20*time.Millisecond, 2*time.Second)
			a.cfg.Logger.Warn("nginx is not in step", "err", err, "generation",
				d.routes.Generation.Number, "retry", wait)
		case !verified:
			wait = tries.Next(2*time.Millisecond, 100*time.Millisecond)
		default:
			wait, tries = a.cfg.CheckEvery, retry.Backoff{}
		}
	}
}

func (a *Agent) watch(ctx context.Context, out chan revised) {
	var after uint64
	tries := retry.Backoff{}
	for {
		snapshot, revision, err := a.cfg.Source.Watch(ctx, after)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			a.cfg.Logger.Warn("source", "err", err)
			a.update(func(s *Status) { s.SourceError = err.Error() })
			select {
			case <-ctx.Done():
				return
			case <-time.After(tries.Next(50*time.Millisecond, 5*time.Second)):
			}
			continue
		}
		after, tries = revision, retry.Backoff{}
		select {
		case <-out:
		default:
		}
		out <- revised{snapshot, revision}
	}
}

// desired is the state that Nginx should have, owned by Run.
type desired struct {
	routes   Routes
	have     bool
	held     []Held
	aside    []SetAside
	revision uint64
	saved    Generation // in the state file
	pushed   Routes     // that Nginx has accepted last
}

// accept turns a snapshot into the desired routes: without the records that are not valid, guarded,
// and with a new generation only if it routes differently.
func (a *Agent) accept(d *desired, next revised) {
	now := a.cfg.Now()
	usable, aside := next.snapshot.Usable()
	snapshot, held := guard(d.routes.Snapshot, usable, d.held, now)
	changed := !d.have || !snapshot.Equal(d.routes.Snapshot)
	if changed {
		d.routes, d.have = NewRoutes(d.routes.Generation.Number+1, snapshot), true
	}
	for _, h := range held {
		if !slices.Contains(d.held, h) {
			a.cfg.Logger.Warn("emptying change held", "cluster", h.Cluster, "instances",
				h.Instances)
		}
	}
	known := make(map[SetAside]bool, len(d.aside))
	for _, record := range d.aside {
		known[record] = true
	}
	for _, record := range aside {
		if !known[record] {
			a.cfg.Logger.Warn("record set aside", "record", record.String())
		}
	}
	d.held, d.aside, d.revision = held, aside, next.revision
	a.update(func(s *Status) {
		s.Revision, s.Held, s.SetAside, s.SourceError = next.revision, held, aside, ""
		s.Desired, s.Resumed = d.routes.Generation, false
		if changed {
			s.ChangedAt = now
		}
	})
}

// guard is next with the last known instances of every cluster whose baseline it would empty
// without a plan.
func guard(last, next Snapshot, before []Held, now time.Time) (Snapshot, []Held) {
	planned := next.Planned
	next = next.Canonical()
	var held []Held
	for cluster, instances := range last.Baseline {
		if len(instances) == 0 || len(next.Baseline[cluster]) > 0 ||
			slices.Contains(planned, cluster) {
			continue
		}
		next.Baseline[cluster] = instances
		h := Held{Cluster: cluster, Instances: len(instances), Since: now}
		if i := slices.IndexFunc(before, func(b Held) bool {
			return b.Cluster == cluster
		}); i >= 0 {
			h.Since = before[i].Since
		}
		held = append(held, h)
	}
	slices.SortFunc(held, func(a, b Held) int { return cmp.Compare(a.Cluster, b.Cluster) })
	return next, held
}

// reconcile makes one step: look, push when Nginx has something else, keep the state file, look
// again.
func (a *Agent) reconcile(ctx context.Context, d *desired) (verified bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	defer func() {
		if err != nil {
			a.update(func(s *Status) { s.LastError = err.Error() })
		}
	}()
	state, err := a.state(ctx)
	if err != nil {
		return false, err
	}
	if state.Applied != d.routes.Generation {
		if state.Applied.Number >= d.routes.Generation.Number {
			// Another agent pushed, or the state file is stale: pick a higher generation.
			d.routes = NewRoutes(state.Applied.Number+1, d.routes.Snapshot)
			a.update(func(s *Status) { s.Desired = d.routes.Generation })
		}
		start := a.cfg.Now()
		delta := NewDelta(d.pushed, d.routes)
		if d.pushed.Generation == (Generation{}) || d.pushed.Generation != state.Applied {
			delta = d.routes.All()
		}
		err := a.cfg.Driver.Apply(ctx, delta)
		a.cfg.Observe("apply", a.cfg.Now().Sub(start), err)
		if err != nil {
			return false, err
		}
		d.pushed = d.routes
		a.update(func(s *Status) { s.Pushes++ })
		if state, err = a.state(ctx); err != nil {
			return false, err
		}
	}
	if a.cfg.StateFile != "" && d.saved != d.routes.Generation {
		start := a.cfg.Now()
		text, err := d.routes.MarshalText()
		if err == nil {
			err = atomicfile.Write(a.cfg.StateFile, text, 0o644)
		}
		a.cfg.Observe("save", a.cfg.Now().Sub(start), err)
		if err != nil {
			return false, fmt.Errorf("state file: %w", err)
		}
		d.saved = d.routes.Generation
	}
	verified = state.Verified(d.routes.Generation)
	a.update(func(s *Status) {
		s.Applied, s.Workers, s.LastError = state.Applied, state.Workers, ""
		if verified {
			s.Verified, s.VerifiedAt, s.VerifiedRevision = d.routes.Generation, a.cfg.Now(),
				d.revision
		}
	})
	return verified, nil
}

// state asks the driver.
func (a *Agent) state(ctx context.Context) (DriverState, error) {
	start := a.cfg.Now()
	state, err := a.cfg.Driver.State(ctx)
	a.cfg.Observe("state", a.cfg.Now().Sub(start), err)
	return state, err
}
