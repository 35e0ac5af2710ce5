package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// Nginx is the control of one running Nginx. ExecNginx is one.
type Nginx interface {
	// Test reports whether Nginx accepts the configuration. The error has what Nginx says.
	Test(ctx context.Context, main string) error
	// Reload tells Nginx to read its configuration again. Nil does not mean that it did.
	Reload(ctx context.Context) error
	// Workers are the process ids of the workers that take new requests, and the number of those that only finish what they
	// began.
	Workers() (active []int, retired int, err error)
	// Errors are what Nginx has logged as emergencies, and crashes of workers, since the last call of Reload, empty when nothing.
	Errors() string
}

// Config configures a Mirror. Source, Nginx, Driver and Dir are required.
type Config struct {
	Source bundle.Source
	Nginx  Nginx
	Driver nginxsync.Driver
	Rules  transform.Rules
	// Main is the name of the main file in the bundle. The default is nginx.conf.
	Main string
	// Root is the absolute path that the bundle stands for. The default is /etc/nginx.
	Root string
	// Dir is the folder of the trees. Nginx runs on Dir/current/<Main>, a link to one of them.
	Dir string
	// VerifyTimeout is how long the workers of a new tree have to appear. The default is 30 seconds.
	VerifyTimeout time.Duration
	// MaxRetired is the number of retired workers, which finish old requests, from which on a reload waits for one of them to
	// end: it bounds the old generations that are alive. Where requests may last for ever, set worker_shutdown_timeout with
	// Rules.Main. The default is 8.
	MaxRetired int
	// MinInterval is the least time between two reloads. The default is two seconds.
	MinInterval time.Duration
	// Watch is how long the error log is watched after every worker runs on a new tree: a worker that crashes in that time
	// brings the tree before back. The default is two seconds.
	Watch time.Duration
	// DriftEvery is the time between two looks of Run for drift. The default is one minute.
	DriftEvery time.Duration
	// Keep is how many trees besides the current one stay in Dir. The default is 3.
	Keep int
	// Logger is for what happens while Run runs. The default discards.
	Logger *slog.Logger
	// Now is the clock of MinInterval, Watch and the times in Status. The default is time.Now.
	Now func() time.Time
}

// Mirror carries each change of the production tree over to a running Nginx: stage, transform, test, switch, reload, verify,
// and back to the tree before when anything goes wrong. Its methods are safe for concurrent use.
type Mirror struct {
	cfg Config

	mu         sync.Mutex // one sync at a time
	lastReload time.Time
	expected   expectedTree // of the last Stage

	statusMu sync.Mutex
	status   Status
}

// Status is what a Mirror knows.
type Status struct {
	Bundle    string             // digest of the production tree that was looked at last
	SeenAt    time.Time          // when it came
	Tree      string             // id of the tree that Nginx runs on, verified
	TreeOf    string             // digest of the production tree that it was made from, empty after a restart
	Verified  time.Time          // when that was seen
	Changes   []transform.Change // of the last transform
	LastError string             // why Bundle is not what Nginx runs on; empty when it is
	Rollbacks int
	Waiting   string    // what a reload waits for; empty when none waits
	Behind    time.Time // since when production has a tree that Nginx does not run on; zero when it runs on the last one seen
	Drift     []string  // what differs in the live tree from what was written, as it was seen last; empty when nothing
	DriftAt   time.Time // when that was
}

// Lag is how long production has had a tree that Nginx does not run on.
func (s Status) Lag(now time.Time) time.Duration {
	if s.Behind.IsZero() {
		return 0
	}
	return now.Sub(s.Behind)
}

// New checks the configuration.
func New(cfg Config) (*Mirror, error) {
	if cfg.Source == nil || cfg.Nginx == nil || cfg.Driver == nil || cfg.Dir == "" {
		return nil, errors.New("mirror: Source, Nginx, Driver and Dir are required")
	}
	if err := cfg.Rules.Validate(); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	if cfg.Main == "" {
		cfg.Main = "nginx.conf"
	}
	if cfg.VerifyTimeout <= 0 {
		cfg.VerifyTimeout = 30 * time.Second
	}
	if cfg.MaxRetired <= 0 {
		cfg.MaxRetired = 8
	}
	if cfg.MinInterval <= 0 {
		cfg.MinInterval = 2 * time.Second
	}
	if cfg.Watch <= 0 {
		cfg.Watch = 2 * time.Second
	}
	if cfg.DriftEvery <= 0 {
		cfg.DriftEvery = time.Minute
	}
	if cfg.Keep <= 0 {
		cfg.Keep = 3
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Mirror{cfg: cfg}, nil
}

// Status is a copy of what the mirror knows now.
func (m *Mirror) Status() Status {
	m.statusMu.Lock()
	defer m.statusMu.Unlock()
	status := m.status
	status.Changes, status.Drift = slices.Clone(status.Changes), slices.Clone(status.Drift)
	return status
}

func (m *Mirror) update(f func(*Status)) {
	m.statusMu.Lock()
	defer m.statusMu.Unlock()
	f(&m.status)
}

func (m *Mirror) path(name string) string { return filepath.Join(m.cfg.Dir, name) }

// Two links in Dir: current is what Nginx reads, good is the tree that was verified last.
const currentLink, goodLink = "current", "good"

func (m *Mirror) link(name string) string {
	target, _ := os.Readlink(m.path(name))
	return target
}

// Switch makes current a link to the tree, in one step.
func (m *Mirror) Switch(id string) error { return m.point(currentLink, id) }

func (m *Mirror) point(name, id string) error {
	temporary := m.path("." + name)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("switch: %w", err)
	}
	if err := os.Symlink(id, temporary); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	if err := os.Rename(temporary, m.path(name)); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	return nil
}

// Sync carries one bundle over. On an error Nginx runs on the tree that it ran on before, and the error says why, with
// file and line where there are any; when even that could not be verified, the error says so too.
func (m *Mirror) Sync(ctx context.Context, b *bundle.Bundle) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.update(func(st *Status) {
		st.Bundle, st.SeenAt = b.Digest, m.cfg.Now()
		if st.TreeOf != b.Digest && st.Behind.IsZero() {
			st.Behind = st.SeenAt
		}
	})
	err := m.sync(ctx, b)
	m.update(func(st *Status) {
		st.LastError = ""
		if err != nil {
			st.LastError = err.Error()
		}
	})
	return err
}

func (m *Mirror) sync(ctx context.Context, b *bundle.Bundle) error {
	id, fresh, err := m.stage(ctx, b)
	if err != nil {
		return err
	}
	good := m.link(goodLink)
	if good == "" {
		good = m.link(currentLink) // what Nginx was started on
	}
	if err := m.Switch(id); err != nil {
		return err
	}
	if state, err := m.cfg.Driver.State(ctx); err == nil && good == id && !fresh {
		if done, err := m.runs(state, id, nil); err == nil && done {
			return m.verified(id, b.Digest)
		}
	}
	if err = m.activate(ctx, id); err == nil {
		return m.verified(id, b.Digest)
	}
	if good == "" || good == id {
		return fmt.Errorf("tree %s: %w", id, err)
	}
	m.update(func(st *Status) { st.Rollbacks++ })
	// The way back must not end with the request that asked for the way forth.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.VerifyTimeout+m.cfg.MinInterval)
	defer cancel()
	backErr := m.Switch(good)
	if backErr == nil {
		backErr = m.restore(back, good)
	}
	// The tree passed the test and Nginx would not have it: the next try has to test it again.
	os.RemoveAll(m.path(id))
	if backErr != nil {
		return fmt.Errorf("tree %s: %w; back to %s: %w", id, err, good, backErr)
	}
	return fmt.Errorf("tree %s: %w; back on %s", id, err, good)
}

func (m *Mirror) verified(id, digest string) error {
	m.update(func(st *Status) {
		st.Tree, st.TreeOf, st.Verified = id, digest, m.cfg.Now()
		st.Behind, st.Drift, st.DriftAt = time.Time{}, nil, st.Verified
	})
	m.clean(id)
	return m.point(goodLink, id)
}

// clean removes all trees but the current one and the Keep that were made last.
func (m *Mirror) clean(current string) {
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return
	}
	type old struct {
		name string
		made time.Time
	}
	var trees []old
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && e.IsDir() && len(e.Name()) == 32 && strings.Trim(e.Name(), "0123456789abcdef") == "" && e.Name() != current {
			trees = append(trees, old{e.Name(), info.ModTime()})
		}
	}
	for len(trees) > m.cfg.Keep {
		oldest := 0
		for i := range trees {
			if trees[i].made.Before(trees[oldest].made) {
				oldest = i
			}
		}
		os.RemoveAll(m.path(trees[oldest].name))
		trees = append(trees[:oldest], trees[oldest+1:]...)
	}
}

// Run syncs each bundle of the source until ctx ends, and returns its cause. A bundle that fails is tried again, at least a
// minute apart, or at once when the source has another.
func (m *Mirror) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for retry.Sleep(ctx, m.cfg.DriftEvery) == nil {
			if drift := m.CheckDrift(ctx); len(drift) > 0 && ctx.Err() == nil {
				m.cfg.Logger.Warn("the live tree drifted", "drift", drift)
			}
		}
	})
	after := ""
	tries := retry.Backoff{}
	for {
		fetch, cancel := ctx, context.CancelFunc(func() {})
		if m.Status().LastError != "" {
			fetch, cancel = context.WithTimeout(ctx, tries.Next(time.Second, time.Minute))
		}
		b, err := m.cfg.Source.Fetch(fetch, after)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded):
			after = "" // the same bundle again
			continue
		case err != nil:
			m.cfg.Logger.Warn("production tree", "err", err)
			m.update(func(st *Status) { st.LastError = fmt.Sprintf("source: %v", err) })
			if err := retry.Sleep(ctx, tries.Next(time.Second, time.Minute)); err != nil {
				return err
			}
			continue
		}
		after = b.Digest
		if err := m.Sync(ctx, b); err != nil {
			m.cfg.Logger.Warn("production tree is not carried over", "err", err, "bundle", b.Digest)
			continue
		}
		tries = retry.Backoff{}
		m.cfg.Logger.Info("production tree is carried over", "bundle", b.Digest, "tree", m.Status().Tree)
	}
}
