// Package rsyncsource fetches directories of rsync daemons.
//
// It runs the machine's rsync, 3.1 or newer (Debian: rsync), which is asked for a list of the
// directory before and after the transfer: limits are checked before a file is written, and a
// directory that was written to meanwhile is fetched again, twice at most. The password goes to
// rsync's standard input. The identity is a digest of the tree; rsync has no TLS and no versions,
// so another content than at an earlier attempt is known, but cannot be had.
package rsyncsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/internal/program"
	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
)

// Config configures a [Fetcher]. The zero value works.
type Config struct {
	// Program is the path of rsync. The default is "rsync" in the search path.
	Program string
	// Idle is how long the daemon may say nothing. The default is one minute; it counts whole
	// seconds.
	Idle time.Duration
}

const (
	defaultIdle = time.Minute
	tries       = 3
	lineBytes   = 8 << 10 // of a list, for one entry at most on average
)

// Fetcher fetches with rsync. It is safe for concurrent use.
type Fetcher struct{ config Config }

var _ source.Fetcher = (*Fetcher)(nil)

// New returns a fetcher, or every problem of cfg at once, each wrapping builder.ErrInvalid. It does
// no I/O.
func New(cfg Config) (*Fetcher, error) {
	if cfg.Idle < 0 || cfg.Idle > 0 && cfg.Idle < time.Second {
		return nil,
			fmt.Errorf("rsyncsource: Config.Idle: %s: want 0 (default %s) or 1s or more: %w",
				cfg.Idle, defaultIdle, builder.ErrInvalid)
	}
	if cfg.Program == "" {
		cfg.Program = "rsync"
	}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	return &Fetcher{cfg}, nil
}

// Fetch implements source.Fetcher.
func (f *Fetcher) Fetch(ctx context.Context, r source.Request) (source.Identity, error) {
	return source.Run(ctx, r, source.KindRsync, f.fetch)
}

func (f *Fetcher) fetch(ctx context.Context, r source.Request) (source.Identity, error) {
	for try := 1; ; try++ {
		steady, err := f.once(ctx, r)
		if err != nil {
			return source.Identity{}, f.failure(ctx, r, err)
		}
		if steady {
			break
		}
		if err := tree.Empty(r.Dir); err != nil {
			return source.Identity{}, f.failure(ctx, r, err)
		}
		if try == tries {
			return source.Identity{}, source.Fail(r, builder.ReasonSourceChanged,
				errors.New("the directory was written to during each of 3 transfers"),
				"submit a build when its directory is complete, and give each build its own")
		}
		fmt.Fprintln(r.Log, "the directory was written to during the transfer: fetch it again")
	}
	return f.identify(ctx, r)
}

// identify checks the fetched files and names them.
func (f *Fetcher) identify(ctx context.Context, r source.Request) (source.Identity, error) {
	id := source.Identity{Kind: source.KindRsync}
	var err error
	if id.Files, id.Bytes, err = tree.Check(ctx, r.Dir, tree.Limits(r.Limits)); err == nil {
		id.ID, err = tree.Digest(ctx, r.Dir)
	}
	if err != nil {
		return source.Identity{}, f.failure(ctx, r, err)
	}
	if r.Pinned != (source.Identity{}) && r.Pinned != id {
		return source.Identity{}, source.Fail(r, builder.ReasonSourceChanged,
			fmt.Errorf("it gives %s, and gave %s before", id, r.Pinned),
			"submit another build for the new content, and give each build its own directory")
	}
	return id, nil
}

// once lists, transfers and lists again, and reports whether both lists are the same.
func (f *Fetcher) once(ctx context.Context, r source.Request) (steady bool, err error) {
	before, err := f.list(ctx, r)
	if err != nil {
		return false, err
	}
	if err := within(before, r.Limits); err != nil {
		return false, err
	}
	// The limit of the second look is for a directory that grows between the two.
	err = f.rsync(r, program.Program{Grows: r.Dir, Limit: r.Limits.Bytes},
		"--recursive", "--links", "--perms",
		"--chmod=u-s,g-s,o-t,Du+rwx", address(r), r.Dir+"/").Run(ctx)
	var ended *program.Error
	if errors.As(err, &ended) && (ended.Code == 23 || ended.Code == 24) {
		// A file that is gone since the list, or cannot be read: another list tells which.
		if after, listErr := f.list(ctx, r); listErr == nil && !bytes.Equal(before, after) {
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	after, err := f.list(ctx, r)
	return bytes.Equal(before, after), err
}

// list is rsync's list of all entries: mode, size, time and name, one a line.
func (f *Fetcher) list(ctx context.Context, r source.Request) ([]byte, error) {
	out := &bounded{limit: int(min(int64(r.Limits.Files+1)*lineBytes, math.MaxInt32))}
	p := f.rsync(r, program.Program{Stdout: out}, "--recursive", "--links", "--list-only",
		"--no-human-readable", address(r))
	err := p.Run(ctx)
	if out.over {
		return nil, fmt.Errorf("the list of files has more than %d bytes: %w", out.limit,
			tree.ErrRefused)
	}
	return out.Bytes(), err
}

func (f *Fetcher) rsync(r source.Request, p program.Program, args ...string) program.Program {
	idle := strconv.Itoa(int(f.config.Idle / time.Second))
	own := []string{"--no-motd", "--contimeout=" + idle, "--timeout=" + idle}
	if s := r.Source.Rsync; s.Secret != "" {
		own = append(own, "--password-file=-")
		p.Stdin = r.Secrets[s.Secret] + "\n"
	}
	p.Path, p.Args = f.config.Program, append(own, args...)
	p.Env, p.Dir = program.Env(r.Scratch), r.Scratch
	return p
}

// address is the source's URL with its user.
func address(r source.Request) string {
	url := r.Source.Rsync.URL()
	if user := r.Source.Rsync.User; user != "" {
		url = strings.Replace(url, "//", "//"+user+"@", 1)
	}
	return url
}

// within checks a list against limits.
func within(list []byte, l source.Limits) error {
	files, size := -1, int64(0) // the first one is the directory itself
	for line := range bytes.Lines(list) {
		fields := bytes.Fields(line)
		if len(fields) < 5 {
			continue
		}
		files++
		if fields[0][0] == '-' {
			n, _ := strconv.ParseInt(strings.ReplaceAll(string(fields[1]), ",", ""), 10, 64)
			size += n
		} else if fields[0][0] != 'd' && fields[0][0] != 'l' {
			return fmt.Errorf("%q: is no file, directory or symbolic link: %w",
				bytes.TrimSpace(line), tree.ErrRefused)
		}
	}
	if files > l.Files || size > l.Bytes {
		return fmt.Errorf("it has %d files and %d bytes: want at most %d and %d: %w", files, size,
			l.Files, l.Bytes, tree.ErrRefused)
	}
	return nil
}

// failure says why a fetch did not succeed.
func (f *Fetcher) failure(ctx context.Context, r source.Request, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("fetch %s: %w", r.Source, context.Cause(ctx))
	}
	var ended *program.Error
	switch {
	case errors.Is(err, tree.ErrRefused), errors.Is(err, program.ErrTooLarge):
		return source.Fail(r, builder.ReasonSourceRefused, err,
			"correct the directory, or raise the limits of the builder")
	case !errors.As(err, &ended) || ended.Code < 0:
		return source.Fail(r, builder.ReasonInfrastructure, err,
			"look whether rsync is installed on the builder and its disk has room")
	}
	evidence := fmt.Sprintf("rsync ended with status %d", ended.Code)
	has := func(text string) bool { return strings.Contains(ended.Stderr, text) }
	switch {
	case has("auth failed"), has("access denied"):
		return source.Fail(r, builder.ReasonSourceDenied, err,
			"look at the user, the secret and the daemon's \"auth users\" and \"hosts allow\"",
			evidence)
	case has("Unknown module"), has("No such file or directory"), has("chdir failed"):
		return source.Fail(r, builder.ReasonSourceNotFound, err,
			"look at the module and the path", evidence)
	case ended.Code == 10, ended.Code == 12, ended.Code == 30, ended.Code == 35,
		has("max connections"):
		return source.Fail(r, builder.ReasonSourceAway, err,
			"look whether the rsync daemon runs and can be reached", evidence)
	case ended.Code == 11:
		return source.Fail(r, builder.ReasonInfrastructure, err,
			"look whether the builder's disk has room", evidence)
	}
	return source.Fail(r, builder.ReasonSourceRefused, err,
		"look at the log of the rsync daemon", evidence)
}

// bounded keeps a text up to a limit.
type bounded struct {
	bytes.Buffer
	limit int
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		b.over = true
		return 0, errors.New("too long")
	}
	return b.Buffer.Write(p)
}
