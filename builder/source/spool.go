package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
)

// Config is for [Open]. Dir and Fetcher are required.
type Config struct {
	// Dir is a directory for spools alone. Open makes it, with permissions 0700, when it is
	// missing.
	Dir string
	// Fetcher fetches, a Set as a rule.
	Fetcher Fetcher
	// Limits bound every fetch whose request has none.
	Limits Limits
	// Now is the clock of Observe. The default is time.Now.
	Now func() time.Time
	// Observe gets each fetch ("fetch") with its duration and its error. The default is
	// none.
	Observe func(op string, took time.Duration, err error)
}

func (c Config) validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("source: Config.%s: %s: %w", field,
			fmt.Sprintf(format, args...), builder.ErrInvalid))
	}
	if c.Dir == "" {
		bad("Dir", "is empty: want a directory")
	}
	if c.Fetcher == nil {
		bad("Fetcher", "is nil: want one, a Set for several kinds")
	}
	if c.Limits.Bytes < 0 {
		bad("Limits.Bytes", "%d: want 0 (default %d) or more", c.Limits.Bytes, defaultBytes)
	}
	if c.Limits.Files < 0 {
		bad("Limits.Files", "%d: want 0 (default %d) or more", c.Limits.Files, defaultFiles)
	}
	return errors.Join(errs...)
}

// Spool gives each fetch a directory of its own. Several processes may have a spool in one Dir:
// each holds a lock on its own part, and Open removes the parts of processes that have ended. It is
// safe for concurrent use.
type Spool struct {
	config Config
	part   string
	lock   *os.File
}

const (
	partPrefix = "spool-" // of a part, whose lock is the file of the same name with .lock
	lockSuffix = ".lock"
)

// Open opens a spool, or returns every problem of cfg at once. The caller closes it.
func Open(ctx context.Context, cfg Config) (*Spool, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("spool of sources: %w", err)
	}
	s := &Spool{config: cfg}
	err = s.gate(ctx, filepath.Join(dir, "gate"), func() error {
		return errors.Join(sweep(dir), s.take(dir))
	})
	if err != nil {
		return nil, fmt.Errorf("spool of sources %s: %w", dir, err)
	}
	return s, nil
}

// gate calls f while no other process sweeps or takes a part.
func (s *Spool) gate(ctx context.Context, name string, f func() error) error {
	gate, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer gate.Close() // which unlocks
	for {
		got, err := tryLock(gate)
		if err != nil {
			return err
		}
		if got {
			return f()
		}
		timer := time.NewTimer(10 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// take makes and locks this spool's part.
func (s *Spool) take(dir string) error {
	part, err := os.MkdirTemp(dir, partPrefix)
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(part+lockSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := tryLock(lock); err != nil {
		return errors.Join(err, lock.Close())
	}
	s.part, s.lock = part, lock
	return nil
}

// sweep removes the parts without a holder of their lock.
func sweep(dir string) error {
	parts, err := filepath.Glob(filepath.Join(dir, partPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, part := range parts {
		if filepath.Ext(part) == lockSuffix {
			continue
		}
		lock, err := os.OpenFile(part+lockSuffix, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if free, err := tryLock(lock); err != nil {
			errs = append(errs, err)
		} else if free {
			errs = append(errs, tree.Remove(part), os.Remove(part+lockSuffix))
		}
		errs = append(errs, lock.Close())
	}
	return errors.Join(errs...)
}

// Close removes the spool with all that was fetched.
func (s *Spool) Close() error {
	return errors.Join(tree.Remove(s.part), os.Remove(s.part+lockSuffix), s.lock.Close())
}

// Fetched are the files of a source, until Close.
type Fetched struct {
	// Files are the files, as builder.Request.Context has them.
	Files fs.FS
	// Dir is the directory that they are in.
	Dir      string
	Identity Identity

	remove func() error
}

// Close removes the files. It may be called more than once.
func (f *Fetched) Close() error { return f.remove() }

// Fetch fetches a source into a directory that no other fetch has; r.Dir and r.Scratch do not
// count. The log has the identity. Errors are as [Fetcher] has them.
func (s *Spool) Fetch(ctx context.Context, r Request) (_ *Fetched, err error) {
	if s.config.Observe != nil {
		start := s.config.Now()
		defer func() { s.config.Observe("fetch", s.config.Now().Sub(start), err) }()
	}
	own, err := os.MkdirTemp(s.part, "fetch-")
	if err != nil {
		return nil, fmt.Errorf("spool of sources: %w", err)
	}
	f := &Fetched{Dir: filepath.Join(own, "files"),
		remove: sync.OnceValue(func() error { return tree.Remove(own) })}
	r.Dir, r.Scratch = f.Dir, filepath.Join(own, "scratch")
	if r.Limits.Bytes == 0 {
		r.Limits.Bytes = s.config.Limits.Bytes
	}
	if r.Limits.Files == 0 {
		r.Limits.Files = s.config.Limits.Files
	}
	if err = errors.Join(os.Mkdir(r.Dir, 0o700), os.Mkdir(r.Scratch, 0o700)); err == nil {
		f.Identity, err = s.config.Fetcher.Fetch(ctx, r)
	}
	if err != nil {
		return nil, errors.Join(err, f.remove())
	}
	root, err := os.OpenRoot(f.Dir)
	if err != nil {
		return nil, errors.Join(err, f.remove())
	}
	if r.Log != nil {
		fmt.Fprintln(r.Log, f.Identity)
	}
	f.Files = builder.RootFS(root)
	f.remove = sync.OnceValue(func() error { return errors.Join(root.Close(), tree.Remove(own)) })
	return f, nil
}
