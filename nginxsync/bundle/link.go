package bundle

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

func (b *Builder) badLink(link, why string) error {
	return fmt.Errorf("symbolic link %q to %q: %s; want a link to a file of the tree, or the "+
		"file itself: %w", link, b.links[link], why, ErrInvalid)
}

// resolve follows a link, and the links in its target, to a name without links.
func (b *Builder) resolve(link string) (string, error) {
	name := link
	for range 16 {
		at := b.linkOn(name)
		if at == "" {
			return name, nil
		}
		next, ok := b.follow(at)
		if !ok {
			return "", b.badLink(link, fmt.Sprintf(
				"it leads out of the tree, which stands for %s; "+
					"say under roots where %s is taken from", b.Roots, b.links[at]))
		}
		name = next + strings.TrimPrefix(name, at)
	}
	return "", b.badLink(link, "too many links on the way")
}

// follow returns the name of one link's target. Where the tree stands for absolute paths, the
// link is followed as on the production machine.
func (b *Builder) follow(link string) (string, bool) {
	target := b.links[link]
	if abs, ok := b.Roots.Abs(path.Dir(link)); ok && !path.IsAbs(target) {
		target = path.Join(abs, target)
	}
	name, ok := path.Join(path.Dir(link), target), true
	if path.IsAbs(target) {
		name, ok = b.Roots.Name(target)
	}
	return name, ok && fs.ValidPath(name) && name != "."
}

// linkOn returns the first part of the name, from its beginning, that is a link, or "".
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
