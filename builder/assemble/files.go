package assemble

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/sluice-deploy/sluice/builder"
)

// maxLinks bounds the symbolic links that one path may lead through, as Linux does.
const maxLinks = 40

// buildContext reads the files of a build. It follows a symbolic link only by its own hand, link by
// link, so that none leads out of the context, however the file system behind it follows links.
type buildContext struct {
	fsys   fs.FS
	ignore *patternmatcher.PatternMatcher
	// image is the name of the image whose files these are, "" for the build context. Links of an
	// image stay in it: "/" is its root, and ".." of its root is its root.
	image string
}

// name is for messages.
func (c *buildContext) name() string {
	if c.image != "" {
		return c.image
	}
	return "build context"
}

func openContext(fsys fs.FS) (*buildContext, error) {
	c := &buildContext{fsys: fsys}
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
		return nil, fmt.Errorf(".dockerignore: %w: %w", err, builder.ErrInvalid)
	}
	return c, nil
}

// ignored reports whether .dockerignore excludes the path.
func (c *buildContext) ignored(name string) (bool, error) {
	if c.ignore == nil || name == "." {
		return false, nil
	}
	return c.ignore.MatchesOrParentMatches(name)
}

// source is one file, directory or link of the context.
type source struct {
	name string // as the Dockerfile reaches it
	real string // where it is, with no link on the way
	info fs.FileInfo
}

// find returns the entries that a source of COPY or ADD stands for: one, or all that a pattern
// matches.
func (c *buildContext) find(pattern string) ([]source, error) {
	clean := path.Clean(strings.TrimLeft(pattern, "/"))
	if c.image != "" {
		clean = path.Clean(strings.TrimLeft(path.Clean("/"+pattern), "/"))
	}
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, fmt.Errorf("%s leaves the build context: name a path inside it", pattern)
	}
	if c.fsys == nil {
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
		return []source{s}, err
	}
	names, err := c.glob(".", strings.Split(clean, "/"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pattern, err)
	}
	var found []source
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
func (c *buildContext) glob(dir string, pattern []string) ([]string, error) {
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
		case len(pattern) > 1 && !s.info.IsDir():
			return nil, nil
		}
		return c.glob(path.Join(dir, pattern[0]), pattern[1:])
	}
	at, err := c.stat(dir)
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(c.fsys, at.real)
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
			if s, err := c.stat(name); err != nil || !s.info.IsDir() {
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
func (c *buildContext) stat(name string) (source, error) {
	rest := parts(name)
	at, links := ".", 0
	info, err := fs.Lstat(c.fsys, at)
	for len(rest) > 0 && err == nil {
		if !info.IsDir() {
			return source{}, fmt.Errorf("%s is not in the build context: %s is no folder: %w", name,
				at, fs.ErrNotExist)
		}
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			if at == "." && c.image == "" {
				return source{}, fmt.Errorf("%s leaves the build context by a symbolic link: "+
					"copy the file into the context", name)
			}
			at = path.Dir(at)
			info, err = fs.Lstat(c.fsys, at)
			continue
		}
		next := path.Join(at, part)
		info, err = fs.Lstat(c.fsys, next)
		if err != nil || info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		links++
		target, linkErr := c.readLink(next)
		switch {
		case linkErr != nil:
			return source{}, linkErr
		case links > maxLinks:
			return source{}, fmt.Errorf("%s: more than %d symbolic links: they may form a circle",
				name, maxLinks)
		case path.IsAbs(target) && c.image != "":
			at = "."
		case path.IsAbs(target):
			return source{}, fmt.Errorf("%s leaves the build context: symbolic link %s names the "+
				"absolute path %s", name, next, target)
		}
		rest = append(parts(target), rest...)
		info, err = fs.Lstat(c.fsys, at)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return source{}, fmt.Errorf("%s is not in the build context: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return source{}, fmt.Errorf("build context: %w", err)
	}
	return source{name: name, real: at, info: info}, nil
}

// parts splits a path and drops the parts that stand for the same directory.
func parts(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(p string) bool {
		return p == "." ||
			p == ""
	})
}

func (c *buildContext) readLink(name string) (string, error) {
	target, err := fs.ReadLink(c.fsys, name)
	if err != nil {
		return "", fmt.Errorf("build context: symbolic link %s: %w", name, err)
	}
	return target, nil
}

// keeps reports whether .dockerignore leaves anything of s.
func (c *buildContext) keeps(s source) (bool, error) {
	byName, err := c.ignored(s.name)
	if err != nil {
		return false, err
	}
	out, err := c.ignored(s.real)
	switch {
	case err != nil:
		return false, err
	case !byName && !out:
		return true, nil
	case !s.info.IsDir() || !c.ignore.Exclusions():
		return false, nil
	}
	left := false
	err = c.walk(s.real, nil, func(string, fs.FileInfo) error { left = true; return nil })
	return left, err
}

// walk calls visit for everything below the directory dir that .dockerignore and exclude leave, with
// names relative to dir, in lexical order and a directory before its content. The patterns of exclude
// are relative to dir; nil excludes nothing. Links are visited, not followed.
func (c *buildContext) walk(dir string, exclude *patternmatcher.PatternMatcher,
	visit func(rel string, info fs.FileInfo) error) error {
	return c.walkBelow(dir, ".", exclude, func() error { return nil }, visit)
}

// walkBelow visits rel's entries. enter visits rel itself if that has not happened: an ignored
// directory is entered only when something below it is not ignored.
func (c *buildContext) walkBelow(dir, rel string, exclude *patternmatcher.PatternMatcher,
	enter func() error, visit func(string, fs.FileInfo) error) error {
	entries, err := fs.ReadDir(c.fsys, path.Join(dir, rel))
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
		info, err := fs.Lstat(c.fsys, path.Join(dir, name))
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
