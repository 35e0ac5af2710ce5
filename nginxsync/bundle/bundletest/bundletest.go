// Package bundletest holds every bundle.Source to the same contract.
package bundletest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
)

// Limits are the limits that the harness gives its source.
var Limits = bundle.Limits{Files: 20, Bytes: 64 << 10, FileBytes: 32 << 10}

// Files is a tree: the contents by name. A name that ends in ".sh" has the mode 0755, every other
// 0644. A content that Link made is a symbolic link.
type Files map[string]string

const linkMark = "\x00link to "

// Link is the content that stands for a symbolic link.
func Link(target string) string { return linkMark + target }

// LinkTarget returns where the link of that content leads to. It reports false for the content of a
// file.
func LinkTarget(content string) (string, bool) { return strings.CutPrefix(content, linkMark) }

// Mode is that of the file in every tree of the suite.
func Mode(name string) fs.FileMode {
	if strings.HasSuffix(name, ".sh") {
		return 0o755
	}
	return 0o644
}

func (f Files) digest(t *testing.T) string {
	t.Helper()
	files := map[string]bundle.File{}
	for name, text := range f {
		files[name] = bundle.File{Mode: Mode(name), Text: text}
	}
	b, err := bundle.New(files, bundle.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return b.Digest
}

// Write makes f the whole content of the directory dir: it writes new files first, then removes
// files that f lacks.
func Write(t *testing.T, dir string, f Files) {
	t.Helper()
	for name, text := range f {
		target := filepath.Join(dir, filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(target), 0o755)
		if to, ok := LinkTarget(text); ok {
			os.Remove(target)
			err = errors.Join(err, os.Symlink(to, target))
		} else {
			err = errors.Join(err, os.WriteFile(target, []byte(text), 0o600),
				os.Chmod(target, Mode(name)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(dir, path)
		if _, ok := f[filepath.ToSlash(name)]; err != nil || relErr != nil || d.IsDir() || ok {
			return errors.Join(err, relErr)
		}
		return os.Remove(path)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Harness is a source with Limits and the functions that change its production tree.
type Harness struct {
	Source bundle.Source
	// Set makes f the whole production tree.
	Set func(f Files)
	// Away takes the far side away, Back brings it back with the tree that it had.
	Away, Back func()
	// NoLinks reports whether the source's trees have no symbolic links.
	NoLinks bool
}

// Run runs the suite; each case has a harness of its own.
func Run(t *testing.T, start func(t *testing.T) *Harness) {
	cases := []struct {
		name string
		run  func(s *suite)
	}{
		{"names, modes and contents arrive as they are", testFaithful},
		{"a change is seen once", testChange},
		{"a tree that comes back has the digest that it had", testBack},
		{"every fetcher sees the last change", testFetchers},
		{"a cancelled context ends the wait with its cause", testCancelled},
		{"a tree over the limits is refused, the next one is not", testLimits},
		{"a file over its limit is refused by name, the next tree is not", testFileLimit},
		{"files of version control and swap files are passed over", testSkipped},
		{"links to absolute paths of the tree are followed, others refused", testLinks},
		{"an empty tree is refused", testEmpty},
		{"a far side that is away wipes nothing", testAway},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute,
				errors.New("the case takes too long"))
			defer cancel()
			c.run(&suite{Harness: start(t), t: t, ctx: ctx})
		})
	}
}

type suite struct {
	*Harness
	t   *testing.T
	ctx context.Context
}

func tree(version string) Files {
	return Files{"nginx.conf": "http { include conf.d/*.conf; }\n", "conf.d/a.conf": "# " +
		version + "\n"}
}

// follow fetches until the digest is there. Errors and older trees before it are fine.
func (s *suite) follow(after, digest string) (*bundle.Bundle, error) {
	for {
		b, err := s.Source.Fetch(s.ctx, after)
		switch {
		case s.ctx.Err() != nil:
			return nil, fmt.Errorf("waiting for bundle %s: %w, last error %w", digest,
				context.Cause(s.ctx), err)
		case err != nil:
			time.Sleep(time.Millisecond) // another try is worth it
		case b.Digest == after:
			return nil, fmt.Errorf("fetch after %s returns it again", after)
		case b.Digest == digest:
			return b, nil
		default:
			after = b.Digest
		}
	}
}

func (s *suite) set(f Files) string {
	s.t.Helper()
	s.Set(maps.Clone(f))
	return f.digest(s.t)
}

func (s *suite) want(after, digest string) *bundle.Bundle {
	s.t.Helper()
	b, err := s.follow(after, digest)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// refused fetches until there is an error that is bundle.ErrInvalid, and returns it.
func (s *suite) refused(after, want string) error {
	s.t.Helper()
	for {
		b, err := s.Source.Fetch(s.ctx, after)
		switch {
		case s.ctx.Err() != nil:
			s.t.Fatalf("fetch: %v, %v, want %s", context.Cause(s.ctx), err, want)
		case err == nil:
			s.t.Fatalf("fetch returns %d files, want %s", len(b.Files), want)
		case errors.Is(err, bundle.ErrInvalid):
			return err
		}
	}
}

func testFaithful(s *suite) {
	files := tree("1")
	files["bin/run.sh"] = "#!/bin/sh\n"
	files["empty"] = ""
	files["a b/-c/ä.conf"] = "x"
	files["binary"] = "\x00\xff\r\n\x1f\x8b" + strings.Repeat("z", 9000)
	files["sites/{a},[b]*?'\"\\.conf"] = "odd"
	b := s.want("", s.set(files))
	for name, text := range files {
		if f := b.Files[name]; f.Text != text || f.Mode != Mode(name) {
			s.t.Errorf("file %q: mode %o, %d bytes, want %o, %d bytes", name, f.Mode, len(f.Text),
				Mode(name), len(text))
		}
	}
}

func testChange(s *suite) {
	first := s.set(tree("1"))
	s.want("", first)
	s.want("", first)
	more := tree("2")
	more["new"] = "x"
	second := s.set(more)
	s.want(first, second)
	s.want(second, s.set(tree("3"))) // a file is gone
}

func testBack(s *suite) {
	first, second := tree("1"), tree("2")
	a := s.set(first)
	s.want("", a)
	b := s.set(second)
	s.want(a, b)
	s.set(first)
	s.want(b, a)
}

func testFetchers(s *suite) {
	last := tree("5").digest(s.t)
	s.set(tree("0"))
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := s.follow("", last); err != nil {
				s.t.Error(err)
			}
		})
	}
	for i := range 5 {
		s.set(tree(fmt.Sprint(i + 1)))
	}
	wg.Wait()
}

func testCancelled(s *suite) {
	digest := s.set(tree("1"))
	s.want("", digest)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(s.ctx)
	done := make(chan error)
	go func() {
		_, err := s.Source.Fetch(ctx, digest)
		done <- err
	}()
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		s.t.Errorf("fetch: %v, want the cause", err)
	}
	if _, err := s.Source.Fetch(ctx, ""); !errors.Is(err, cause) {
		s.t.Errorf("fetch with a context that has ended: %v, want the cause", err)
	}
}

func testLimits(s *suite) {
	digest := s.set(tree("1"))
	s.want("", digest)
	large := tree("2")
	for i := range 3 {
		large[fmt.Sprint("large", i)] = strings.Repeat("x", int(Limits.FileBytes))
	}
	s.set(large)
	s.refused(digest, "a refusal of too many bytes")
	many := tree("3")
	for i := range Limits.Files {
		many[fmt.Sprint("file", i)] = "x"
	}
	s.set(many)
	s.refused(digest, "a refusal of too many files")
	s.want(digest, s.set(tree("4")))
}

func testFileLimit(s *suite) {
	digest := s.set(tree("1"))
	s.want("", digest)
	large := tree("2")
	large["geo/large.mmdb"] = strings.Repeat("x", int(Limits.FileBytes)+1)
	s.set(large)
	if err := s.refused(digest, "a refusal of a large file"); !strings.Contains(err.Error(),
		"geo/large.mmdb") {
		s.t.Errorf("refusal %q does not name the file", err)
	}
	exact := tree("3")
	exact["geo/large.mmdb"] = strings.Repeat("x", int(Limits.FileBytes))
	s.want(digest, s.set(exact))
}

func testSkipped(s *suite) {
	plain := tree("1")
	plain["conf.d/.htpasswd"] = "a:b"
	plain["conf.d/a.conf~"] = "an include of conf.d/* serves it"
	digest := plain.digest(s.t)
	for _, name := range []string{".nginx.conf.swp", "conf.d/.a.conf.swo", "conf.d/.#a.conf",
		".svn/entries", "conf.d/.hg/store/x"} {
		plain[name] = "x"
	}
	s.Set(plain)
	s.want("", digest)
}

func testLinks(s *suite) {
	if s.NoLinks {
		return
	}
	files := tree("1")
	files["sites-available/default"] = "server {}\n"
	files["sites-enabled/default"] = Link("/etc/nginx/sites-available/default")
	files["sites-enabled/also"] = Link("../../nginx/sites-available/default")
	want := maps.Clone(files)
	want["sites-enabled/default"], want["sites-enabled/also"] = "server {}\n", "server {}\n"
	digest := want.digest(s.t)
	s.Set(maps.Clone(files))
	s.want("", digest)
	for _, out := range []string{"/usr/share/nginx/modules-available/mod.conf",
		"../../../etc/passwd", "/etc/nginx/../passwd", "/etc/nginx"} {
		files["modules-enabled/50-mod.conf"] = Link(out)
		s.Set(maps.Clone(files))
		if err := s.refused(digest, "a refusal of a link to "+out); !strings.Contains(err.Error(),
			"leads out of the tree") {
			s.t.Errorf("link to %s: %v, want that it leads out of the tree", out, err)
		}
	}
}

func testEmpty(s *suite) {
	digest := s.set(tree("1"))
	s.want("", digest)
	s.Set(Files{})
	s.refused(digest, "a refusal of no files")
	s.refused("", "a refusal of no files")
	s.want(digest, s.set(tree("2")))
}

func testAway(s *suite) {
	digest := s.set(tree("1"))
	s.want("", digest)
	s.Away()
	if b, err := s.Source.Fetch(s.ctx, digest); err == nil {
		s.t.Fatalf("fetch returns %d files, want an error", len(b.Files))
	}
	s.Back()
	s.want("", digest)
}
