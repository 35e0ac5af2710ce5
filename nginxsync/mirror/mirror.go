package mirror

import (
	"cmp"
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
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
	"github.com/sluice-deploy/sluice/nginxsync/route"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// Nginx controls one running Nginx. ExecNginx is one; mirrortest.Run holds an implementation to the
// contract. An implementation is safe for concurrent use. A context that ends is an error with the
// context's cause in its chain.
type Nginx interface {
	// Test returns nil when Nginx accepts the configuration. The error has the reason that Nginx
	// gives.
	Test(ctx context.Context, main string) error
	// Reload signals Nginx to read its configuration again. Nil does not mean that it did.
	Reload(ctx context.Context) error
	// Workers returns the process ids of the workers that take new requests, and the number of
	// workers that only finish the requests they have.
	Workers() (active []int, retired int, err error)
	// Errors returns the emergencies and the crashes of workers that Nginx has logged since the
	// last call of Reload, or "".
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
	// Roots say where absolute paths are in the bundle. The default is that it stands for
	// /etc/nginx.
	Roots conf.Roots
	// Dir is the directory of the trees. Nginx runs on Dir/current/<Main>, a link to one of them.
	Dir string
	// VerifyTimeout is how long the workers of a new tree have to appear. The default is 30
	// seconds.
	VerifyTimeout time.Duration
	// MaxRetired is the number of retired workers, which finish old requests, from which on a
	// reload waits for one of them to end: it bounds the old generations that are alive. Where
	// requests may last indefinitely, set worker_shutdown_timeout with Rules.Main. The default is
	// 8.
	MaxRetired int
	// MinInterval is the least time between two reloads. The default is two seconds.
	MinInterval time.Duration
	// Watch is how long the error log is watched after every worker runs on a new tree: a worker
	// that crashes in that time brings the tree before back. The default is two seconds.
	Watch time.Duration
	// DriftEvery is the time between two looks of Run for drift. The default is one minute.
	DriftEvery time.Duration
	// Restart puts a new Nginx in the place of the running one where a reload cannot carry a change
	// over: see ErrNeedsRestart. ExecNginx is one. The default is none: then the status says that a
	// restart is needed.
	Restart Upgrader
	// Approve is asked before each switch to another tree, with the hosts and locations whose
	// requests would go elsewhere, at most 200 of them. An error holds the tree back: Nginx runs on
	// as it does, Sync returns the error with ErrHeld in its chain, and Run asks again, at least
	// each minute. It must not call the Mirror. The default lets every tree pass. It is not asked
	// for the first tree, which there is nothing to compare with.
	Approve func(ctx context.Context, routes *route.Comparison) error
	// Keep is how many trees besides the current one stay in Dir. The default is 3.
	Keep int
	// Logger logs the events of Run. The default discards.
	Logger *slog.Logger
	// Now is the clock of MinInterval, Watch, Observe and the times in Status. The default is
	// time.Now.
	Now func() time.Time
	// Observe is called after each step with its name, how long it took and its error: "stage"
	// (transform, write, test), "compare", "reload" (until every worker runs on the tree and the
	// error log was watched), "restart", "sync" (all of it) and "drift". It must return soon. Nil
	// means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// Mirror carries each change of the production tree over to a running Nginx: stage, transform,
// test, switch, reload, verify, and back to the tree before when anything goes wrong. Its methods
// are safe for concurrent use.
type Mirror struct {
	cfg Config

	mu         sync.Mutex // one sync at a time
	lastReload time.Time
	expected   expectedTree // of the last Stage
	next       staged       // by the last Stage
	live       staged       // that Nginx was verified on last

	statusMu sync.Mutex
	status   Status
	revision uint64        // of status; grows with each change
	changed  chan struct{} // closed with each change of status
}

// Status is the state of a Mirror.
type Status struct {
	// digest of the production tree that was looked at last
	Bundle string `json:"bundle"`
	// when it came
	SeenAt time.Time `json:"seenAt"`
	// id of the tree that Nginx runs on, verified
	Tree string `json:"tree"`
	// digest of the production tree that it was made from, empty after a restart
	TreeOf string `json:"treeOf"`
	// when that was seen
	Verified time.Time `json:"verified"`
	// of the last transform
	Changes []transform.Change `json:"changes"`
	// Routes are the hosts and locations whose requests go elsewhere in Bundle than in the tree of
	// before; nil when there was none to compare with. The places are those in production's files,
	// or, when this process had not seen the tree of before, in the transformed ones. A reader
	// must not change them.
	Routes *route.Comparison `json:"routes"`
	// why Nginx does not run on Bundle; empty when it does
	LastError string `json:"lastError"`
	Rollbacks int    `json:"rollbacks"`
	// why a reload cannot carry Bundle over and a restart is needed; empty otherwise
	Restart string `json:"restart"`
	// the condition that a reload waits for; empty when none waits
	Waiting string `json:"waiting"`
	// since when production has a tree that Nginx does not run on; zero when it runs on the last
	// one seen
	Behind time.Time `json:"behind"`
	// differences of the live tree from the written one, as seen last; empty when there are none
	Drift []string `json:"drift"`
	// when that was
	DriftAt time.Time `json:"driftAt"`
}

// Lag is how long production has had a tree that Nginx does not run on.
func (s Status) Lag(now time.Time) time.Duration {
	if s.Behind.IsZero() {
		return 0
	}
	return now.Sub(s.Behind)
}

// New checks the configuration. The error has all its problems, and nginxsync.ErrInvalid in its
// chain.
func New(cfg Config) (*Mirror, error) {
	cfg.Main = cmp.Or(cfg.Main, "nginx.conf")
	p := check.Problems{Package: "mirror", Sentinel: nginxsync.ErrInvalid}
	p.Require("Source", cfg.Source != nil)
	p.Require("Nginx", cfg.Nginx != nil)
	p.Require("Driver", cfg.Driver != nil)
	p.Require("Dir", cfg.Dir != "")
	p.Join("Rules", cfg.Rules.Validate())
	if !fs.ValidPath(cfg.Main) || cfg.Main == "." {
		p.Add("Main", "%q: want a relative path without . and ..", cfg.Main)
	}
	if err := cfg.Roots.Validate(); err != nil {
		p.Add("Roots", "%v", err)
	}
	p.Duration("VerifyTimeout", &cfg.VerifyTimeout, 30*time.Second)
	check.Number(&p, "MaxRetired", &cfg.MaxRetired, 8)
	p.Duration("MinInterval", &cfg.MinInterval, 2*time.Second)
	p.Duration("Watch", &cfg.Watch, 2*time.Second)
	p.Duration("DriftEvery", &cfg.DriftEvery, time.Minute)
	check.Number(&p, "Keep", &cfg.Keep, 3)
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
	return &Mirror{cfg: cfg, revision: 1, changed: make(chan struct{})}, nil
}

// Status returns a copy of the mirror's current state.
func (m *Mirror) Status() Status {
	m.statusMu.Lock()
	defer m.statusMu.Unlock()
	return m.status.clone()
}

func (s Status) clone() Status {
	s.Changes, s.Drift = slices.Clone(s.Changes), slices.Clone(s.Drift)
	return s
}

// Watch blocks until the status has another revision than after, and returns the newest status and
// its revision: those in between are skipped. An after of 0 returns the current one. Revisions grow
// and are never 0. The error is the context's cause when ctx ends.
func (m *Mirror) Watch(ctx context.Context, after uint64) (Status, uint64, error) {
	for {
		if ctx.Err() != nil {
			return Status{}, 0, context.Cause(ctx)
		}
		m.statusMu.Lock()
		status, revision, changed := m.status.clone(), m.revision, m.changed
		m.statusMu.Unlock()
		if revision != after {
			return status, revision, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (m *Mirror) update(f func(*Status)) {
	m.statusMu.Lock()
	defer m.statusMu.Unlock()
	f(&m.status)
	m.revision++
	close(m.changed)
	m.changed = make(chan struct{})
}

// observed runs one step and reports it to Config.Observe.
func (m *Mirror) observed(op string, step func() error) error {
	start := m.cfg.Now()
	err := step()
	m.cfg.Observe(op, m.cfg.Now().Sub(start), err)
	return err
}

func (m *Mirror) path(name string) string { return filepath.Join(m.cfg.Dir, name) }

// Two links in Dir: current is the tree that Nginx reads, good is the tree that was verified last.
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

// Sync carries one bundle over. On an error Nginx runs on the tree that it ran on before, and the
// error has the reason, with file and line where there are any; when the tree of before could not
// be verified either, the error reports that too.
func (m *Mirror) Sync(ctx context.Context, b *bundle.Bundle) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.update(func(st *Status) {
		st.Bundle, st.SeenAt = b.Digest, m.cfg.Now()
		if st.TreeOf != b.Digest && st.Behind.IsZero() {
			st.Behind = st.SeenAt
		}
	})
	err := m.observed("sync", func() error { return m.sync(ctx, b) })
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
		good = m.link(currentLink) // the tree that Nginx was started on
	}
	if id != good {
		if err := m.review(ctx, good); err != nil {
			return err
		}
	}
	if err := m.Switch(id); err != nil {
		return err
	}
	if state, err := m.cfg.Driver.State(ctx); err == nil && good == id && !fresh {
		if done, err := m.runs(state, id, nil); err == nil && done {
			return m.verified(id, b.Digest)
		}
	}
	if err = m.observed("reload", func() error { return m.activate(ctx, id) }); err == nil {
		return m.verified(id, b.Digest)
	}
	why, err := needsRestart(m.translated(err))
	m.update(func(st *Status) { st.Restart = why })
	if why != "" && m.cfg.Restart != nil {
		if err = m.observed("restart", func() error {
			return m.restart(ctx, id, good)
		}); err == nil {
			return m.verified(id, b.Digest)
		}
	}
	if good == "" || good == id {
		return fmt.Errorf("tree %s: %w", id, err)
	}
	m.update(func(st *Status) { st.Rollbacks++ })
	// The way back must not end with the request that asked for the way forth.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.VerifyTimeout+
		m.cfg.MinInterval)
	defer cancel()
	backErr := m.Switch(good)
	if backErr == nil {
		backErr = m.observed("reload", func() error { return m.restore(back, good) })
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
		st.Behind, st.Drift, st.DriftAt, st.Restart = time.Time{}, nil, st.Verified, ""
	})
	if m.next.digest == digest {
		m.live = m.next
		m.live.origin, m.live.result = nil, nil
	}
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
		if err == nil && e.IsDir() && len(e.Name()) == 32 &&
			strings.Trim(e.Name(), "0123456789abcdef") == "" && e.Name() != current {
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

// Run syncs each bundle of the source until ctx ends, and returns its cause. A bundle that fails is
// tried again, at least a minute apart, or at once when the source has another.
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
		m.cfg.Logger.Info("production tree is carried over", "bundle", b.Digest, "tree",
			m.Status().Tree)
	}
}
