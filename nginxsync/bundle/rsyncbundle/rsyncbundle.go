// Package rsyncbundle is a bundle.Source on a module of an rsync daemon.
//
// Purpose: a production tree that its machines already offer by rsync. New makes a Source that asks
// for the list of files every Every, holds it to the limits, and brings its copy in Dir up to date,
// by checksum; a copy is believed when the daemon has nothing to add to it. It needs the rsync
// program, 3.1 or newer.
//
// No shell is started, on either side: only rsync:// URLs are accepted, and the environment of the
// process is not passed on. Symbolic links are resolved when they stay in the tree; devices and the
// like are refused.
//
// Permissions: to read the module and to write Dir; a password is given with PasswordFile. Limits:
// with each look the daemon reads the whole tree. Between the list and the copy a daemon could
// offer more than it said: each file is held to the limit on its own.
package rsyncbundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/internal/tool"
)

// Config configures a Source. URL and Dir are required.
type Config struct {
	URL string // rsync://[user@]host[:port]/module[/directory]
	// Dir is a directory for the copy, made when it is missing. Nothing else may write there.
	Dir string
	// PasswordFile is the file with the user's password, which others must not be able to read.
	// Empty means that there is none.
	PasswordFile string
	// Every is the time between two looks. The default is 30 seconds.
	Every time.Duration
	// Timeout is how long one look may take. The default is two minutes.
	Timeout time.Duration
	// Roots say where the targets of links are in the tree. The default is that it stands for
	// /etc/nginx.
	Roots  conf.Roots
	Limits bundle.Limits
}

// Source is a bundle.Source. It is safe for concurrent use.
type Source struct {
	cfg Config
	mu  sync.Mutex // one look at a time
}

var _ bundle.Source = (*Source)(nil)

// New checks the configuration. The error has all its problems, and bundle.ErrInvalid in its chain.
func New(cfg Config) (*Source, error) {
	p := check.Problems{Package: "rsyncbundle", Sentinel: bundle.ErrInvalid}
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil || u.Scheme != "rsync" || u.Host == "" || strings.Trim(u.Path, "/") == "" ||
		u.RawQuery != "" || u.Fragment != "":
		// it may hold a password
		p.Add("URL", "want rsync://host/module or rsync://host/module/directory")
	default:
		if _, password := u.User.Password(); password {
			p.Add("URL", "want the password in PasswordFile")
		}
	}
	p.Require("Dir", cfg.Dir != "")
	p.Duration("Every", &cfg.Every, 30*time.Second)
	p.Duration("Timeout", &cfg.Timeout, 2*time.Minute)
	if err := cfg.Roots.Validate(); err != nil {
		p.Add("Roots", "%v", err)
	}
	p.Join("Limits", cfg.Limits.Validate())
	cfg.Limits = cfg.Limits.WithDefaults()
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("rsyncbundle: %w", err)
	}
	// the content of the directory, not the directory
	cfg.URL = strings.TrimRight(cfg.URL, "/") + "/"
	return &Source{cfg: cfg}, nil
}

// Fetch implements bundle.Source.
func (s *Source) Fetch(ctx context.Context, after string) (*bundle.Bundle, error) {
	return bundle.Polling{Every: s.cfg.Every}.Fetch(ctx, after, s.look)
}

func (s *Source) look(ctx context.Context) (bundle.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout := s.cfg.Timeout
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("rsync took longer than %s",
		timeout))
	defer cancel()
	digest, err := s.take(ctx)
	if err != nil {
		return bundle.View{}, fmt.Errorf("rsyncbundle %s: %w", s.cfg.URL, err)
	}
	return bundle.View{Digest: digest, Load: s.load}, nil
}

// rsync runs rsync with the arguments of every run before args. In args "--" ends the options.
func (s *Source) rsync(ctx context.Context, limit int64, args ...string) ([]byte, error) {
	common := []string{"--recursive", "--links", "--perms", "--times", "--contimeout=20",
		"--timeout=60", "--no-motd"}
	if s.cfg.PasswordFile != "" {
		common = append(common, "--password-file="+s.cfg.PasswordFile)
	}
	return tool.Command{Name: "rsync", Args: append(common, args...), Limit: limit}.Output(ctx)
}

var errChanging = errors.New("the tree changes while it is read")

// take copies until the daemon has nothing to add and its list is the one from before the copy: the
// tree was at rest.
func (s *Source) take(ctx context.Context) (string, error) {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return "", err
	}
	copying := []string{"--checksum", "--delete", "--force", "--max-size=" +
		strconv.FormatInt(s.cfg.Limits.FileBytes, 10), "--", s.cfg.URL, s.cfg.Dir + "/"}
	list, err := s.list(ctx)
	if err != nil {
		return "", err
	}
	for range 5 {
		if _, err := s.rsync(ctx, 1<<20, copying...); err != nil {
			return "", err
		}
		rest, err := s.rsync(ctx, 16<<20, append([]string{"--dry-run", "--omit-dir-times",
			"--itemize-changes"}, copying...)...)
		if err != nil {
			return "", err
		}
		before := list
		if list, err = s.list(ctx); err != nil {
			return "", err
		}
		if len(bytes.TrimSpace(rest)) == 0 && list == before {
			return s.digest()
		}
	}
	return "", errChanging
}

// list is the daemon's list of files, held to the limits.
func (s *Source) list(ctx context.Context) (string, error) {
	list, err := s.rsync(ctx, int64(s.cfg.Limits.Files+1)*2400, "--list-only",
		"--no-human-readable", "--", s.cfg.URL)
	if errors.Is(err, tool.ErrTooLarge) {
		return "", fmt.Errorf("more than %d files: %w", s.cfg.Limits.Files, bundle.ErrInvalid)
	} else if err != nil {
		return "", err
	}
	return string(list), s.check(string(list))
}

// check holds the list, a line for each file such as "-rw-r--r-- 1234 2026/01/02 03:04:05 name", to
// the limits.
func (s *Source) check(list string) error {
	files, size := 0, int64(0)
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) < 5 || f[0][0] == 'd' {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		switch {
		case err != nil:
			return fmt.Errorf("list of files: %q", strings.TrimSpace(line))
		case f[0][0] != '-' && f[0][0] != 'l':
			return fmt.Errorf("%s: want regular files, links and directories only: %w",
				strings.TrimSpace(line), bundle.ErrInvalid)
		case f[0][0] == '-' && n > s.cfg.Limits.FileBytes:
			return fmt.Errorf("file %q: %d bytes, limit of one file is %d: %w",
				strings.Join(f[4:], " "), n, s.cfg.Limits.FileBytes, bundle.ErrInvalid)
		case f[0][0] == '-':
			size += n
		}
		if files++; files > s.cfg.Limits.Files || size > s.cfg.Limits.Bytes {
			return fmt.Errorf("more than %d files or %d bytes: %w", s.cfg.Limits.Files,
				s.cfg.Limits.Bytes, bundle.ErrInvalid)
		}
	}
	return nil
}

// digest is that of the copy.
func (s *Source) digest() (digest string, err error) {
	err = s.copy(func(r bundle.Reader, fsys fs.FS) error {
		digest, err = r.Digest(fsys)
		return err
	})
	return digest, err
}

// load makes a bundle of the copy, which another look may have changed meanwhile.
func (s *Source) load(context.Context) (b *bundle.Bundle, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.copy(func(r bundle.Reader, fsys fs.FS) error {
		b, err = r.Read(fsys)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rsyncbundle %s: %w", s.cfg.URL, err)
	}
	return b, nil
}

// copy opens the copy. Nothing in it leads out of Dir, even when the daemon sent links that would.
func (s *Source) copy(read func(bundle.Reader, fs.FS) error) error {
	root, err := os.OpenRoot(s.cfg.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return read(bundle.Reader{Limits: s.cfg.Limits, Roots: s.cfg.Roots}, root.FS())
}
