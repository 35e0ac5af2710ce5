// Package folderbundle is a bundle.Source on a folder of this machine that learns of changes from the kernel.
//
// Purpose: a production tree that something else already brings to this machine, such as a mounted volume or a configuration
// management tool. New makes one; it holds an open folder, so that no symbolic link leads out of it, and no other resource.
//
// Permissions: to read the folder and all below it. Limits: the kernel's number of inotify watches (one a folder); where they
// do not suffice, as on network file systems, which tell nothing, the source looks every Every.
package folderbundle

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Config configures a Source. Dir is required.
type Config struct {
	Dir string // The folder of the production tree.
	// Settle is how long the folder must stay as it is before a change is believed. The default is half a second.
	Settle time.Duration
	// Every is the time between two looks when the kernel tells nothing. The default is 30 seconds.
	Every  time.Duration
	Limits bundle.Limits
}

// Source is a bundle.Source. It is safe for concurrent use.
type Source struct{ cfg Config }

var _ bundle.Source = (*Source)(nil)

// New checks the configuration. The error has all its problems, and bundle.ErrInvalid in its chain. The directory may appear
// later.
func New(cfg Config) (*Source, error) {
	p := check.Problems{Package: "folderbundle", Sentinel: bundle.ErrInvalid}
	p.Require("Dir", cfg.Dir != "")
	p.Duration("Settle", &cfg.Settle, 500*time.Millisecond)
	p.Duration("Every", &cfg.Every, 30*time.Second)
	p.Join("Limits", cfg.Limits.Validate())
	cfg.Limits = cfg.Limits.WithDefaults()
	if err := p.Err(); err != nil {
		return nil, err
	}
	return &Source{cfg: cfg}, nil
}

// Fetch implements bundle.Source. Symbolic links are resolved when they stay in the folder.
func (s *Source) Fetch(ctx context.Context, after string) (*bundle.Bundle, error) {
	polling := bundle.Polling{Every: s.cfg.Every, Settle: s.cfg.Settle}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		wake := make(chan struct{}, 1) // one look is due, however many changes there were
		polling.Wake = wake
		go forward(watcher, wake)
	}
	return polling.Fetch(ctx, after, func(context.Context) (*bundle.Bundle, error) {
		// A folder of this name may be another one now: a new tree moved into its place.
		root, err := os.OpenRoot(s.cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("folderbundle: %w", err)
		}
		defer root.Close()
		if watcher != nil {
			s.watch(watcher)
		}
		b, err := bundle.Read(root.FS(), s.cfg.Limits)
		if err != nil {
			return nil, fmt.Errorf("folderbundle %s: %w", s.cfg.Dir, err)
		}
		return b, nil
	})
}

// watch asks for changes of all folders that are there. What cannot be watched is found by looking.
func (s *Source) watch(watcher *fsnotify.Watcher) {
	_ = filepath.WalkDir(s.cfg.Dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = watcher.Add(name)
		}
		return nil
	})
	_ = watcher.Add(filepath.Dir(filepath.Clean(s.cfg.Dir))) // for a folder that is replaced as a whole
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
