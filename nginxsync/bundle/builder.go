package bundle

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Builder puts a bundle together file by file within limits, for implementations of Source. It reads no more than
// the limits allow. It is not safe for concurrent use.
type Builder struct {
	// Limits bound the bundle.
	Limits Limits
	// Folder is the part of the names that is taken, without a slash at its ends: files outside are passed over. Empty
	// means all.
	Folder string

	files map[string]File
	links map[string]string
	size  int64
}

// inside is the name below Folder.
func (b *Builder) inside(name string) (string, bool) {
	name = strings.TrimPrefix(name, "./")
	if b.Folder == "" {
		return name, true
	}
	return strings.CutPrefix(name, b.Folder+"/")
}

// Add reads a regular file. Only the permission bits of mode are kept.
func (b *Builder) Add(name string, mode fs.FileMode, r io.Reader) error {
	inner, ok := b.inside(name)
	if !ok {
		return nil
	}
	limits := b.Limits.WithDefaults()
	if err := b.room(inner, limits); err != nil {
		return err
	}
	var text strings.Builder
	n, err := io.Copy(&text, io.LimitReader(r, limits.Bytes-b.size+1))
	if err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	if b.size += n; b.size > limits.Bytes {
		return fmt.Errorf("file %q: more than %d bytes: %w", name, limits.Bytes, ErrInvalid)
	}
	if b.files == nil {
		b.files = map[string]File{}
	}
	b.files[inner] = File{Mode: mode.Perm(), Text: text.String()}
	return nil
}

func (b *Builder) room(inner string, limits Limits) error {
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

// Link adds a symbolic link. It is resolved by Bundle, and refused when it leads out of the bundle or to nothing: a bundle has
// files only.
func (b *Builder) Link(name, target string) error {
	inner, ok := b.inside(name)
	if !ok {
		return nil
	}
	if err := b.room(inner, b.Limits.WithDefaults()); err != nil {
		return err
	}
	if b.links == nil {
		b.links = map[string]string{}
	}
	b.links[inner] = target
	return nil
}

// Bundle is what was added, with a copy of its target in the place of each link. A link to a folder brings in all files below
// it.
func (b *Builder) Bundle() (*Bundle, error) {
	files := make(map[string]File, len(b.files)+len(b.links))
	for name, f := range b.files {
		files[name] = f
	}
	limits := b.Limits.WithDefaults()
	size := b.size
	add := func(name string, f File) error {
		if size += int64(len(f.Text)); size > limits.Bytes || len(files) >= limits.Files {
			return fmt.Errorf("more than %d files or %d bytes, those behind links counted: %w", limits.Files, limits.Bytes, ErrInvalid)
		}
		files[name] = f
		return nil
	}
	for _, link := range slices.Sorted(maps.Keys(b.links)) {
		target, err := b.resolve(link)
		if err != nil {
			return nil, err
		}
		if f, ok := b.files[target]; ok {
			if err := add(link, f); err != nil {
				return nil, err
			}
			continue
		}
		found := false
		for _, name := range slices.Sorted(maps.Keys(b.files)) {
			if rest, ok := strings.CutPrefix(name, target+"/"); ok {
				found = true
				if err := add(link+"/"+rest, b.files[name]); err != nil {
					return nil, err
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(b.links)) {
			if strings.HasPrefix(name, target+"/") {
				return nil, b.badLink(link, "a folder with links in it")
			}
		}
		if !found {
			return nil, b.badLink(link, "which is not there")
		}
	}
	return New(files, limits)
}

func (b *Builder) badLink(link, why string) error {
	return fmt.Errorf("symbolic link %q to %q: %s; want a link to a file of the tree, or the file itself: %w", link, b.links[link], why, ErrInvalid)
}

// resolve follows a link, and the links on its way, to a name that has none.
func (b *Builder) resolve(link string) (string, error) {
	name := link
	for range 16 {
		at := b.linkOn(name)
		if at == "" {
			return name, nil
		}
		target := b.links[at]
		if path.IsAbs(target) {
			return "", b.badLink(link, "it leads out of the tree")
		}
		name = path.Join(path.Dir(at), target) + strings.TrimPrefix(name, at)
		if !fs.ValidPath(name) || name == "." {
			return "", b.badLink(link, "it leads out of the tree")
		}
	}
	return "", b.badLink(link, "too many links on the way")
}

// linkOn is the first link on the way to the name, or "".
func (b *Builder) linkOn(name string) string {
	for i := 0; i <= len(name); i++ {
		if i == len(name) || name[i] == '/' {
			if _, ok := b.links[name[:i]]; ok {
				return name[:i]
			}
		}
	}
	return ""
}
