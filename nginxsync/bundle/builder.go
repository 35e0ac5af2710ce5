package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/textfs"
)

// Builder puts a bundle together file by file within limits, for implementations of Source. It
// reads no more than the limits allow. Files of version control systems and swap files of editors
// are passed over. It is not safe for concurrent use.
type Builder struct {
	// Limits bound the bundle.
	Limits Limits
	// Subdir is the part of the names that is taken, without a slash at its ends: files outside are
	// passed over. Empty means all.
	Subdir string
	// Roots say where the targets of links are in the tree: see Reader.Roots.
	Roots conf.Roots

	files map[string]content
	links map[string]string
	size  int64
}

// content is a file's text, or the way to it.
type content struct {
	mode fs.FileMode
	size int64
	text string
	open func() (fs.File, error) // nil for text
}

// inside is the name below Subdir.
func (b *Builder) inside(name string) (string, bool) {
	name = strings.TrimPrefix(name, "./")
	if b.Subdir != "" {
		var ok bool
		if name, ok = strings.CutPrefix(name, b.Subdir+"/"); !ok {
			return "", false
		}
	}
	return name, !skipped(name)
}

// Add reads a regular file of a known size; -1 when it is not known. Only the permission bits of
// mode are kept. A file that is larger than the limits allow is refused unread.
func (b *Builder) Add(name string, mode fs.FileMode, size int64, r io.Reader) error {
	inner, ok := b.inside(name)
	if !ok {
		return nil
	}
	limits := b.Limits.WithDefaults()
	if err := b.vacant(inner, limits); err != nil {
		return err
	}
	total := b.size
	if err := limits.room(inner, max(size, 0), &total); err != nil {
		return err
	}
	text, err := readText(r, size, min(limits.FileBytes, limits.Bytes-b.size)+1)
	if err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	return b.put(inner, content{mode: mode.Perm(), size: int64(len(text)), text: text})
}

// readText reads up to limit bytes. size is a guess, -1 for none.
func readText(r io.Reader, size, limit int64) (string, error) {
	var text strings.Builder
	text.Grow(int(max(min(size, limit), 0)))
	_, err := io.Copy(&text, io.LimitReader(r, limit))
	return text.String(), err
}

func (b *Builder) put(inner string, c content) error {
	limits := b.Limits.WithDefaults()
	if err := b.vacant(inner, limits); err != nil {
		return err
	}
	if err := limits.room(inner, c.size, &b.size); err != nil {
		return err
	}
	if b.files == nil {
		b.files = map[string]content{}
	}
	b.files[inner] = c
	return nil
}

func (b *Builder) vacant(inner string, limits Limits) error {
	_, file := b.files[inner]
	_, link := b.links[inner]
	switch {
	case badName(inner) != "":
		return fmt.Errorf("file %q: %s: %w", inner, badName(inner), ErrInvalid)
	case file || link:
		return fmt.Errorf("file %q: it is there twice: %w", inner, ErrInvalid)
	case len(b.files)+len(b.links) >= limits.Files:
		return fmt.Errorf("more than %d files: %w", limits.Files, ErrInvalid)
	}
	return nil
}

// Link adds a symbolic link. It is resolved by Bundle, and refused when it leads out of the roots
// or to nothing: a bundle has files only.
func (b *Builder) Link(name, target string) error {
	inner, ok := b.inside(name)
	if !ok {
		return nil
	}
	if err := b.vacant(inner, b.Limits.WithDefaults()); err != nil {
		return err
	}
	if b.links == nil {
		b.links = map[string]string{}
	}
	b.links[inner] = target
	return nil
}

// Bundle returns the files that were added, with a copy of its target in the place of each link. A
// link to a directory brings in all files below it.
func (b *Builder) Bundle() (*Bundle, error) {
	targets, err := b.targets()
	if err != nil {
		return nil, err
	}
	files, read := make(map[string]File, len(targets)), map[string]File{}
	for name, target := range targets {
		f, ok := read[target]
		if !ok {
			if f, err = b.files[target].read(b.Limits.WithDefaults()); err != nil {
				return nil, fmt.Errorf("file %q: %w", target, err)
			}
			read[target] = f
		}
		files[name] = f
	}
	return New(files, b.Limits)
}

// read returns the text. One that has grown since it was listed is cut behind the limit, for New to
// refuse.
func (c content) read(limits Limits) (File, error) {
	if c.open == nil {
		return File{Mode: c.mode, Text: c.text}, nil
	}
	f, err := c.open()
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	text, err := readText(f, c.size, limits.FileBytes+1)
	return File{Mode: c.mode, Text: text}, err
}

// digest is that of Bundle's result. Texts are read through a small buffer; that of a file which
// changes meanwhile makes a digest that no bundle has.
func (b *Builder) digest() (string, error) {
	targets, err := b.targets()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		c := b.files[targets[name]]
		writeHead(h, name, c.mode, c.size)
		if c.open == nil {
			textfs.WriteTo(h, c.text)
			continue
		}
		f, err := c.open()
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, io.LimitReader(f, c.size+1))
		f.Close()
		if err != nil {
			return "", fmt.Errorf("file %q: %w", name, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// targets is, by each name of the bundle, the file that has its content, itself or that which a
// link leads to.
func (b *Builder) targets() (map[string]string, error) {
	limits := b.Limits.WithDefaults()
	targets, total := make(map[string]string, len(b.files)+len(b.links)), b.size
	for name := range b.files {
		targets[name] = name
	}
	add := func(name, target string) error {
		if len(targets) >= limits.Files {
			return fmt.Errorf("more than %d files, those behind links counted: %w", limits.Files,
				ErrInvalid)
		}
		targets[name] = target
		return limits.room(name, b.files[target].size, &total)
	}
	for _, link := range slices.Sorted(maps.Keys(b.links)) {
		target, err := b.resolve(link)
		if err != nil {
			return nil, err
		}
		if _, ok := b.files[target]; ok {
			if err := add(link, target); err != nil {
				return nil, err
			}
			continue
		}
		if err := b.directory(link, target, add); err != nil {
			return nil, err
		}
	}
	names := slices.Sorted(maps.Keys(targets))
	return targets, checkNames(names, func(name string) bool {
		_, ok := targets[name]
		return ok
	}, limits)
}

// directory adds the files below the directory that a link leads to.
func (b *Builder) directory(link, target string, add func(name, target string) error) error {
	found := false
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		if rest, ok := strings.CutPrefix(name, target+"/"); ok {
			found = true
			if err := add(link+"/"+rest, name); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.links)) {
		if strings.HasPrefix(name, target+"/") {
			return b.badLink(link, "a directory with links in it")
		}
	}
	if !found {
		return b.badLink(link, "which is not there")
	}
	return nil
}
