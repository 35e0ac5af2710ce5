// Package buildcontext reads the files that COPY and ADD name, out of a build context or the files of
// an image.
package buildcontext

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// PatternError says that .dockerignore has a pattern that cannot be read.
type PatternError struct{ Err error }

func (e *PatternError) Error() string { return ".dockerignore: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *PatternError) Unwrap() error { return e.Err }

// maxLinks bounds the symbolic links that one path may lead through, as Linux does.
const maxLinks = 40

// Files are the files of a build context or of an image. They follow a symbolic link only by their own
// hand, link by link, so that none leads out, however the file system behind them follows links.
// They are safe for concurrent use if FS is.
type Files struct {
	FS     fs.FS // nil for a context without files
	ignore *patternmatcher.PatternMatcher
	// image is the name of the image whose files these are, "" for the build context. Links of an
	// image stay in it: "/" is its root, and ".." of its root is its root.
	image string
}

// Name is for messages.
func (c *Files) Name() string {
	if c.image != "" {
		return c.image
	}
	return "build context"
}

// OfImage returns the files of an image or stage; name is for messages.
func OfImage(fsys fs.FS, name string) *Files { return &Files{FS: fsys, image: name} }

// Open returns the files of a build context that its .dockerignore does not exclude. A nil fsys
// is an empty context. A pattern that cannot be read is a [*PatternError].
func Open(fsys fs.FS) (*Files, error) {
	c := &Files{FS: fsys}
	if fsys == nil {
		return c, nil
	}
	f, err := fsys.Open(".dockerignore")
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err == nil {
		c.ignore, err = patternmatcher.New(patterns)
	}
	if err != nil {
		return nil, &PatternError{err}
	}
	return c, nil
}

// ignored reports whether .dockerignore excludes the path.
func (c *Files) ignored(name string) (bool, error) {
	if c.ignore == nil || name == "." {
		return false, nil
	}
	return c.ignore.MatchesOrParentMatches(name)
}

// Source is one file, directory or link of the context.
type Source struct {
	Name string // as the Dockerfile reaches it
	Real string // its path, with no link on the way
	Info fs.FileInfo
}

// Find returns the entries that a source of COPY or ADD stands for: one, or all that a pattern
// matches.
func (c *Files) Find(pattern string) ([]Source, error) {
	clean := path.Clean(strings.TrimLeft(pattern, "/"))
	if c.image != "" {
		clean = path.Clean(strings.TrimLeft(path.Clean("/"+pattern), "/"))
	}
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, fmt.Errorf("%s leaves the build context: name a path inside it", pattern)
	}
	if c.FS == nil {
		return nil, fmt.Errorf("%s is not in the build context, which is empty", pattern)
	}
	if !strings.ContainsAny(clean, "*?[") {
		s, err := c.stat(clean)
		if err != nil {
			return nil, err
		}
		kept, err := c.keeps(s)
		if err == nil && !kept {
			err = fmt.Errorf("%s is not in the build context: .dockerignore excludes it", pattern)
		}
		return []Source{s}, err
	}
	names, err := c.glob(".", strings.Split(clean, "/"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pattern, err)
	}
	var found []Source
	for _, n := range names {
		s, err := c.stat(n)
		if err != nil {
			return nil, err
		}
		kept, err := c.keeps(s)
		if err != nil {
			return nil, err
		}
		if kept {
			found = append(found, s)
		}
	}
	return found, nil
}

// glob expands a pattern part by part below dir.
func (c *Files) glob(dir string, pattern []string) ([]string, error) {
	if len(pattern) == 0 {
		return []string{dir}, nil
	}
	if !strings.ContainsAny(pattern[0], "*?[") {
		s, err := c.stat(path.Join(dir, pattern[0]))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil:
			return nil, err
		case len(pattern) > 1 && !s.Info.IsDir():
			return nil, nil
		}
		return c.glob(path.Join(dir, pattern[0]), pattern[1:])
	}
	at, err := c.stat(dir)
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(c.FS, at.Real)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		ok, err := path.Match(pattern[0], e.Name())
		if err != nil {
			return nil, err
		}
		name := path.Join(dir, e.Name())
		if !ok {
			continue
		}
		if len(pattern) > 1 {
			if s, err := c.stat(name); err != nil || !s.Info.IsDir() {
				continue
			}
		}
		below, err := c.glob(name, pattern[1:])
		if err != nil {
			return nil, err
		}
		found = append(found, below...)
	}
	return found, nil
}

// stat follows the links of name and returns their target.
func (c *Files) stat(name string) (Source, error) {
	rest := parts(name)
	at, links := ".", 0
	info, err := fs.Lstat(c.FS, at)
	for len(rest) > 0 && err == nil {
		if !info.IsDir() {
			return Source{}, fmt.Errorf("%s is not in the build context: %s is not a directory: %w",
				name, at, fs.ErrNotExist)
		}
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			if at == "." && c.image == "" {
				return Source{}, fmt.Errorf("%s leaves the build context by a symbolic link: "+
					"copy the file into the context", name)
			}
			at = path.Dir(at)
			info, err = fs.Lstat(c.FS, at)
			continue
		}
		next := path.Join(at, part)
		info, err = fs.Lstat(c.FS, next)
		if err != nil || info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		links++
		target, linkErr := c.ReadLink(next)
		switch {
		case linkErr != nil:
			return Source{}, linkErr
		case links > maxLinks:
			return Source{}, fmt.Errorf("%s: more than %d symbolic links: they may form a circle",
				name, maxLinks)
		case path.IsAbs(target) && c.image != "":
			at = "."
		case path.IsAbs(target):
			return Source{}, fmt.Errorf("%s leaves the build context: symbolic link %s names the "+
				"absolute path %s", name, next, target)
		}
		rest = append(parts(target), rest...)
		info, err = fs.Lstat(c.FS, at)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Source{}, fmt.Errorf("%s is not in the build context: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return Source{}, fmt.Errorf("build context: %w", err)
	}
	return Source{Name: name, Real: at, Info: info}, nil
}

// parts splits a path and drops the parts that stand for the same directory.
func parts(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(p string) bool {
		return p == "." ||
			p == ""
	})
}

// ReadLink returns the target of a link.
func (c *Files) ReadLink(name string) (string, error) {
	target, err := fs.ReadLink(c.FS, name)
	if err != nil {
		return "", fmt.Errorf("build context: symbolic link %s: %w", name, err)
	}
	return target, nil
}

// keeps reports whether .dockerignore leaves anything of s.
func (c *Files) keeps(s Source) (bool, error) {
	byName, err := c.ignored(s.Name)
	if err != nil {
		return false, err
	}
	out, err := c.ignored(s.Real)
	switch {
	case err != nil:
		return false, err
	case !byName && !out:
		return true, nil
	case !s.Info.IsDir() || !c.ignore.Exclusions():
		return false, nil
	}
	left := false
	err = c.Walk(s.Real, nil, func(string, fs.FileInfo) error { left = true; return nil })
	return left, err
}

// Walk calls visit for everything below the directory dir that .dockerignore and exclude leave, with
// names relative to dir, in lexical order and a directory before its content. The patterns of exclude
// are relative to dir; nil excludes nothing. Links are visited, not followed.
func (c *Files) Walk(dir string, exclude *patternmatcher.PatternMatcher,
	visit func(rel string, info fs.FileInfo) error) error {
	return c.walkBelow(dir, ".", exclude, func() error { return nil }, visit)
}

// walkBelow visits rel's entries. enter visits rel itself if that has not happened: an ignored
// directory is entered only when something below it is not ignored.
func (c *Files) walkBelow(dir, rel string, exclude *patternmatcher.PatternMatcher,
	enter func() error, visit func(string, fs.FileInfo) error) error {
	entries, err := fs.ReadDir(c.FS, path.Join(dir, rel))
	if err != nil {
		return fmt.Errorf("build context: %w", err)
	}
	for _, e := range entries {
		name := path.Join(rel, e.Name())
		out, err := c.ignored(path.Join(dir, name))
		if err != nil {
			return err
		}
		below := out && c.ignore.Exclusions() // something in a directory may be left
		if !out && exclude != nil {
			if out, err = exclude.MatchesOrParentMatches(name); err != nil {
				return err
			}
			below = out && exclude.Exclusions()
		}
		if out && (!e.IsDir() || !below) {
			continue
		}
		info, err := fs.Lstat(c.FS, path.Join(dir, name))
		if err != nil {
			return fmt.Errorf("build context: %w", err)
		}
		visited := false
		self := func() error {
			if visited {
				return nil
			}
			visited = true
			if err := enter(); err != nil {
				return err
			}
			return visit(name, info)
		}
		if !out {
			if err := self(); err != nil {
				return err
			}
		}
		if info.IsDir() {
			if err := c.walkBelow(dir, name, exclude, self, visit); err != nil {
				return err
			}
		}
	}
	return nil
}
