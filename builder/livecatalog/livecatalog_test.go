//go:build linux

package livecatalog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/livecatalog"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/dirbundle"
)

// write writes a template into a directory of templates, whole or not at all, as an operator does
// with a link or a rename.
func write(t *testing.T, dir, name, dockerfile string) {
	t.Helper()
	staged := t.TempDir()
	for file, text := range map[string]string{"Dockerfile": dockerfile,
		"template.json": `{"description": "d"}`} {
		if err := os.WriteFile(filepath.Join(staged, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(dir, name)
	if err := errors.Join(os.RemoveAll(at), os.Rename(staged, at)); err != nil {
		t.Fatal(err)
	}
}

// A new version of a template is on offer without a restart; a tree with a mistake, or without a
// template, leaves the catalogue as it is and says why.
func TestLive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "web", "FROM scratch\nUSER 1\n")
	source, err := dirbundle.New(dirbundle.Config{Dir: dir, Settle: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var loads atomic.Int64
	live, err := livecatalog.New(livecatalog.Config{Source: source, Retry: time.Millisecond,
		Observe: func(op string, took time.Duration, err error) {
			if op != "load" || took < 0 {
				t.Errorf("observed %s %v", op, took)
			}
			loads.Add(1)
		}})
	if err != nil {
		t.Fatal(err)
	}
	if live.Catalog() != builder.Default() || live.Status().Digest != "" {
		t.Errorf("before the first tree: %+v", live.Status())
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- live.Run(ctx) }()
	newest := func(id string) func() error {
		return func() error {
			tmpl, err := live.Catalog().Template("web")
			if err == nil && (tmpl.ID() != id || live.Status().Err != nil) {
				err = fmt.Errorf("%s, %+v", tmpl.ID(), live.Status())
			}
			return err
		}
	}
	testbed.Poll(t, "first catalogue", newest("web@1"))
	write(t, dir, "web@2", "FROM scratch\nUSER 2\n")
	testbed.Poll(t, "second version", newest("web@2"))

	before := live.Status()
	write(t, dir, "web@3", "FROM scratch\nONBUILD RUN x\n")
	testbed.Poll(t, "refused tree", func() error {
		if s := live.Status(); !errors.Is(s.Err, builder.ErrInvalid) ||
			!strings.Contains(s.Err.Error(), `"web@3": Dockerfile line 2`) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if s := live.Status(); s.Digest != before.Digest || s.Since != before.Since {
		t.Errorf("a refused tree changed the status from %+v to %+v", before, s)
	}
	if tmpl, err := live.Catalog().Template("web"); err != nil || tmpl.ID() != "web@2" {
		t.Errorf("after a refused tree: %v, %v", tmpl, err)
	}
	write(t, dir, "web@3", "FROM scratch\nUSER 3\n")
	testbed.Poll(t, "mended version", newest("web@3"))
	if loads.Load() < 4 {
		t.Errorf("%d trees were observed, want 4 or more", loads.Load())
	}

	stop := errors.New("stop")
	cancel(stop)
	if err := <-ended; !errors.Is(err, stop) {
		t.Errorf("Run returned %v, want the cause", err)
	}
}

// trees is a source of one tree after the other; after the last one it waits.
type trees []fstest.MapFS

func (s *trees) Fetch(ctx context.Context, after string) (*bundle.Bundle, error) {
	if len(*s) == 0 {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	next := (*s)[0]
	*s = (*s)[1:]
	if next == nil {
		return nil, errors.New("the server is away")
	}
	return bundle.Read(next, bundle.Limits{})
}

func TestEmptyAndMissingTrees(t *testing.T) {
	t.Parallel()
	first, err := builder.Load(fstest.MapFS{"a/Dockerfile": {Data: []byte("FROM scratch\n")},
		"a/template.json": {Data: []byte(`{"description": "d"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	for says, tree := range map[string]fstest.MapFS{
		"has no template":    {"README": {Data: []byte("moved\n")}},
		"the server is away": nil,
	} {
		live, err := livecatalog.New(livecatalog.Config{Source: &trees{tree}, First: first})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- live.Run(ctx) }()
		testbed.Poll(t, "error", func() error {
			if err := live.Status().Err; err == nil || !strings.Contains(err.Error(), says) {
				return fmt.Errorf("status %v, want %q", err, says)
			}
			return nil
		})
		if live.Catalog() != first {
			t.Errorf("%s: the catalogue was replaced", says)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	}
}

// An error of the source is over once the source is back, also with the tree of before.
func TestSourceComesBack(t *testing.T) {
	t.Parallel()
	tree := fstest.MapFS{"a/Dockerfile": {Data: []byte("FROM scratch\n")},
		"a/template.json": {Data: []byte(`{"description": "d"}`)}}
	asked := &counting{trees: trees{tree, nil, tree}}
	live, err := livecatalog.New(livecatalog.Config{Source: asked, Retry: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- live.Run(ctx) }()
	testbed.Poll(t, "source that is back", func() error {
		if n, s := asked.n.Load(), live.Status(); n < 4 || s.Err != nil || s.Digest == "" {
			return fmt.Errorf("asked %d times, %+v", n, s)
		}
		return nil
	})
	cancel()
	<-ended
}

// counting counts how often it is asked.
type counting struct {
	trees
	n atomic.Int64
}

func (c *counting) Fetch(ctx context.Context, after string) (*bundle.Bundle, error) {
	c.n.Add(1)
	return c.trees.Fetch(ctx, after)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := livecatalog.New(livecatalog.Config{Retry: -1})
	for _, want := range []string{"Config.Source", "Config.Retry"} {
		if !errors.Is(err, builder.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
