package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/internal/names"
)

const (
	defaultPoll = 50 * time.Millisecond
	page        = 1000             // entries that one Read returns at most
	retry       = time.Millisecond // between two tries for a lock
)

// Config says where a [Store] is.
type Config struct {
	// Dir is the directory. Open makes it, with permissions 0700, when it is missing. Required.
	Dir string
	// Poll is how often Wait looks for entries of other processes. The default is 50 ms.
	Poll time.Duration
}

func (c Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, fmt.Errorf("filestore: Config.Dir: is empty: want a directory: %w",
			builder.ErrInvalid))
	}
	if c.Poll < 0 {
		errs = append(errs,
			fmt.Errorf("filestore: Config.Poll: %s: want 0 (default %s) or more: %w",
				c.Poll, defaultPoll, builder.ErrInvalid))
	}
	return errors.Join(errs...)
}

// Store keeps builds in a directory. All methods are safe for concurrent use.
type Store struct {
	config Config

	mu      sync.Mutex
	journal journal
}

var (
	_ builds.Journal   = (*Store)(nil)
	_ builds.Compacter = (*Store)(nil)
	_ builds.Logs      = (*Store)(nil)
	_ builds.Owners    = (*Store)(nil)
)

// Open opens the directory that cfg names, or returns every problem of cfg at once. The caller
// closes the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if cfg.Poll == 0 {
		cfg.Poll = defaultPoll
	}
	for _, dir := range []string{cfg.Dir, filepath.Join(cfg.Dir, "logs"),
		filepath.Join(cfg.Dir, "owners")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("builds in %s: %w", cfg.Dir, err)
		}
	}
	s := &Store{config: cfg, journal: journal{name: filepath.Join(cfg.Dir, "journal")}}
	err := s.journal.open()
	if err == nil {
		err = s.locked(ctx, s.journal.file, func() error { return nil })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("builds in %s: %w", cfg.Dir, err), s.Close())
	}
	return s, nil
}

// Close closes the journal. Tenures of owners stay until they are left.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.journal.file == nil {
		return nil
	}
	return s.journal.file.Close()
}

// locked calls f while it holds the lock of a file against other processes and other open files.
func (s *Store) locked(ctx context.Context, file *os.File, f func() error) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		got, err := tryLock(file, true)
		if err != nil {
			return err
		}
		if got {
			break
		}
		pause(ctx, retry)
	}
	return errors.Join(f(), unlock(file))
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// log is the file of a log.
func (s *Store) log(name string) string {
	return filepath.Join(s.config.Dir, "logs", names.DNSLabel(name)+".log")
}

// AppendLog implements builds.Logs. It does not sync: a power failure may cost the end of a log,
// which builds.Builds.Log then says.
func (s *Store) AppendLog(ctx context.Context, name string, offset int64, data []byte) error {
	f, err := os.OpenFile(s.log(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = s.locked(ctx, f, func() error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Size() != offset {
			return fmt.Errorf("append to the log %s at %d: it has %d bytes: %w", name,
				offset, info.Size(), builds.ErrConflict)
		}
		if _, err = f.WriteAt(data, offset); err != nil {
			return errors.Join(err, f.Truncate(offset))
		}
		return nil
	})
	return errors.Join(err, f.Close())
}

// ReadLog implements builds.Logs.
func (s *Store) ReadLog(ctx context.Context, name string, offset int64, limit int) ([]byte, int64,
	error) {
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	f, err := os.Open(s.log(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	size := info.Size()
	data := make([]byte, max(0, min(int64(limit), size-offset)))
	n, err := f.ReadAt(data, offset)
	if len(data) == 0 || errors.Is(err, io.EOF) {
		err = nil
	}
	return data[:n], size, err
}

// RemoveLog implements builds.Logs.
func (s *Store) RemoveLog(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := os.Remove(s.log(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// owner is the file that an owner locks.
func (s *Store) owner(name string) string {
	return filepath.Join(s.config.Dir, "owners", names.DNSLabel(name))
}

// Join implements builds.Owners.
func (s *Store) Join(ctx context.Context, owner string) (context.Context, func(), error) {
	f, err := os.OpenFile(s.owner(owner), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	// Lives holds the lock for a moment
	for try := 0; ; try++ {
		got, err := tryLock(f, true)
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case err == nil && got:
			tenure, end := context.WithCancelCause(context.Background())
			return tenure, sync.OnceFunc(func() {
				end(fmt.Errorf("owner %s has left: %w", owner, builds.ErrFenced))
				f.Close()
			}), nil
		case err == nil && try == 500:
			err = fmt.Errorf("owner %s lives already: %w", owner, builds.ErrConflict)
		}
		if err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		pause(ctx, retry)
	}
}

// Lives implements builds.Owners.
func (s *Store) Lives(ctx context.Context, owner string) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	f, err := os.Open(s.owner(owner))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	free, err := tryLock(f, false)
	return !free, err
}
