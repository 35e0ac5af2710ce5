package filestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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
	config  Config
	journal *os.File

	mu   sync.Mutex
	ends []int64 // of the journal's lines that were seen, each with its newline
}

var (
	_ builds.Journal = (*Store)(nil)
	_ builds.Logs    = (*Store)(nil)
	_ builds.Owners  = (*Store)(nil)
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
	f, err := os.OpenFile(filepath.Join(cfg.Dir, "journal"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("builds in %s: %w", cfg.Dir, err)
	}
	s := &Store{config: cfg, journal: f}
	if err := s.locked(ctx, f, func() error { return nil }); err != nil {
		return nil, errors.Join(fmt.Errorf("builds in %s: %w", cfg.Dir, err), f.Close())
	}
	return s, nil
}

// Close closes the journal. Tenures of owners stay until they are left.
func (s *Store) Close() error { return s.journal.Close() }

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

// scan finds the lines that were added since the last scan. s.mu is held.
func (s *Store) scan() error {
	at := s.end(len(s.ends))
	r := bufio.NewReader(io.NewSectionReader(s.journal, at, 1<<62))
	for {
		n := 0
		for {
			part, err := r.ReadSlice('\n')
			n += len(part)
			if errors.Is(err, io.EOF) {
				return nil // a line that has not ended is no line yet
			}
			if err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return err
			}
		}
		at += int64(n)
		s.ends = append(s.ends, at)
	}
}

// end is where line n, counted from 1, ends; 0 for n = 0.
func (s *Store) end(n int) int64 {
	if n == 0 {
		return 0
	}
	return s.ends[n-1]
}

// Append implements builds.Journal. It is one synced write.
func (s *Store) Append(ctx context.Context, after uint64, e builds.Entry) error {
	if e.Seq != after+1 {
		return fmt.Errorf("append after entry %d: the entry has number %d: %w", after, e.Seq,
			builder.ErrInvalid)
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("append after entry %d: %w", after, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.locked(ctx, s.journal, func() error {
		if err := s.scan(); err != nil {
			return err
		}
		if last := uint64(len(s.ends)); last != after {
			return fmt.Errorf("the last entry is %d: %w", last, builds.ErrConflict)
		}
		at := s.end(len(s.ends))
		if err := s.journal.Truncate(at); err != nil { // what a crash cut off
			return err
		}
		if _, err := s.journal.WriteAt(append(line, '\n'), at); err != nil {
			return errors.Join(err, s.journal.Truncate(at))
		}
		return s.journal.Sync() // others may have read the line, so it stays after an error
	})
	if err != nil {
		return fmt.Errorf("append after entry %d: %w", after, err)
	}
	return nil
}

// Read implements builds.Journal. It returns at most 1000 entries.
func (s *Store) Read(ctx context.Context, after uint64) ([]builds.Entry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	err := s.scan()
	n := uint64(len(s.ends))
	if err != nil || n <= after {
		s.mu.Unlock()
		return nil, err
	}
	last := min(n, after+page)
	from, to := s.end(int(after)), s.end(int(last))
	s.mu.Unlock()
	text := make([]byte, to-from)
	if _, err := s.journal.ReadAt(text, from); err != nil {
		return nil, fmt.Errorf("read after entry %d: %w", after, err)
	}
	entries := make([]builds.Entry, 0, last-after)
	for line := range bytes.Lines(text) {
		seq := after + uint64(len(entries)) + 1
		var e builds.Entry
		err := json.Unmarshal(line, &e)
		if err == nil && e.Seq != seq {
			err = fmt.Errorf("entry %d stands in its place", e.Seq)
		}
		if err != nil {
			e = builds.Entry{Seq: seq, Kind: builds.Damaged,
				Reason: fmt.Sprintf("%s:%d: %v", s.journal.Name(), seq, err)}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Wait implements builds.Journal.
func (s *Store) Wait(ctx context.Context, after uint64) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.mu.Lock()
		err := s.scan()
		n := uint64(len(s.ends))
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("wait for entry %d: %w", after+1, err)
		}
		if n > after {
			return nil
		}
		pause(ctx, s.config.Poll)
	}
}

// log is the file of a build's log.
func (s *Store) log(build string) string {
	return filepath.Join(s.config.Dir, "logs", names.DNSLabel(build)+".log")
}

// AppendLog implements builds.Logs. It does not sync: a power failure may cost the end of a log,
// which builds.Builds.Log then says.
func (s *Store) AppendLog(ctx context.Context, build string, offset int64, data []byte) error {
	f, err := os.OpenFile(s.log(build), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = s.locked(ctx, f, func() error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Size() != offset {
			return fmt.Errorf("append to the log of build %s at %d: it has %d bytes: %w", build,
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
func (s *Store) ReadLog(ctx context.Context, build string, offset int64, limit int) ([]byte, int64,
	error) {
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	f, err := os.Open(s.log(build))
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
