// Package dirbundle is a bundle.Source on a directory of this machine that learns of changes
// from the kernel.
//
// Purpose: a production tree that something else already brings to this machine, such as a mounted
// volume or a configuration management tool. New makes one; it holds an open directory, so that no
// symbolic link leads out of it, and no other resource.
//
// Permissions: to read the directory and all below it. Limits: the kernel's number of inotify
// watches (one a directory); where they do not suffice, as on network file systems, which report no
// changes, the source looks every Every.
package dirbundle

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Config configures a Source. Dir is required.
type Config struct {
	Dir string // The directory of the production tree.
	// Settle is how long the directory must stay as it is before a change is believed. The default
	// is half a second.
	Settle time.Duration
	// Every is the time between two looks when the kernel reports no change. The default is 30
	// seconds.
	Every time.Duration
	// Extra are further directories of this machine, by the directory of the tree that each fills,
	// such as {"share": "/usr/share/nginx"}. Add them to Roots, too.
	Extra map[string]string
	// Roots say where the targets of links are in the tree. The default is that it stands for
	// /etc/nginx.
	Roots  conf.Roots
	Limits bundle.Limits
}

// Source is a bundle.Source. It is safe for concurrent use.
type Source struct{ cfg Config }

var _ bundle.Source = (*Source)(nil)

// New checks the configuration. The error has all its problems, and bundle.ErrInvalid in its chain.
// The directory may appear later.
func New(cfg Config) (*Source, error) {
	p := check.Problems{Package: "dirbundle", Sentinel: bundle.ErrInvalid}
	p.Require("Dir", cfg.Dir != "")
	p.Duration("Settle", &cfg.Settle, 500*time.Millisecond)
	p.Duration("Every", &cfg.Every, 30*time.Second)
	for at, dir := range cfg.Extra {
		if !fs.ValidPath(at) || at == "." || dir == "" {
			p.Add("Extra", "%q: %q: want a relative path, and a directory of this machine", at, dir)
		}
	}
	if err := cfg.Roots.Validate(); err != nil {
		p.Add("Roots", "%v", err)
	}
	p.Join("Limits", cfg.Limits.Validate())
	cfg.Limits = cfg.Limits.WithDefaults()
	if err := p.Err(); err != nil {
		return nil, err
	}
	return &Source{cfg: cfg}, nil
}

// Fetch implements bundle.Source. Symbolic links are resolved when they stay in the directory.
func (s *Source) Fetch(ctx context.Context, after string) (*bundle.Bundle, error) {
	polling := bundle.Polling{Every: s.cfg.Every, Settle: s.cfg.Settle}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		wake := make(chan struct{}, 1) // one look is due, however many changes there were
		polling.Wake = wake
		go forward(watcher, wake)
	}
	return polling.Fetch(ctx, after, func(context.Context) (bundle.View, error) {
		if watcher != nil {
			s.watch(watcher)
		}
		v := bundle.View{Load: func(context.Context) (b *bundle.Bundle, err error) {
			return b, s.open(func(r bundle.Reader, fsys fs.FS) error {
				b, err = r.Read(fsys)
				return err
			})
		}}
		return v, s.open(func(r bundle.Reader, fsys fs.FS) (err error) {
			v.Digest, err = r.Digest(fsys)
			return err
		})
	})
}

// open opens the directories. One of this name may be another now: a new tree moved into its place.
func (s *Source) open(read func(bundle.Reader, fs.FS) error) error {
	root, err := os.OpenRoot(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("dirbundle: %w", err)
	}
	defer root.Close()
	r := bundle.Reader{Limits: s.cfg.Limits, Roots: s.cfg.Roots, Extra: map[string]fs.FS{}}
	for at, dir := range s.cfg.Extra {
		extra, err := os.OpenRoot(dir)
		if err != nil {
			return fmt.Errorf("dirbundle: %w", err)
		}
		defer extra.Close()
		r.Extra[at] = extra.FS()
	}
	if err := read(r, root.FS()); err != nil {
		return fmt.Errorf("dirbundle %s: %w", s.cfg.Dir, err)
	}
	return nil
}

// watch asks for changes of all directories that are there. Changes in directories that cannot be
// watched are found by looking.
func (s *Source) watch(watcher *fsnotify.Watcher) {
	dirs := append(slices.Collect(maps.Values(s.cfg.Extra)), s.cfg.Dir)
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = watcher.Add(name)
			}
			return nil
		})
		// for a directory that is replaced as a whole
		_ = watcher.Add(filepath.Dir(filepath.Clean(dir)))
	}
}

func forward(watcher *fsnotify.Watcher, wake chan<- struct{}) {
	for {
		select {
		case _, ok := <-watcher.Events:
			if !ok {
				return
			}
		case _, ok := <-watcher.Errors: // an overflow: something has changed
			if !ok {
				return
			}
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}
