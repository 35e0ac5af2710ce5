package conf

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Roots maps absolute paths of the production machine to the directories of a tree that hold
// their files, where "." is the tree itself. The longest path counts. A nil Roots
// stands for DefaultRoot at ".".
//
//	conf.Roots{"/etc/nginx": ".", "/etc/letsencrypt": "letsencrypt", "/usr/share/nginx": "share"}
//	conf.Roots{"/": "."} // a tree that holds etc/nginx/nginx.conf
type Roots map[string]string

// DefaultRoot is the absolute path that a tree stands for by default.
const DefaultRoot = "/etc/nginx"

// Validate reports every entry that is not an absolute path without "." and ".." and a relative
// one. The error has no sentinel in its chain.
func (r Roots) Validate() error {
	for _, abs := range slices.Sorted(maps.Keys(r)) {
		switch at := r[abs]; {
		case !path.IsAbs(abs) || path.Clean(abs) != abs:
			return fmt.Errorf("%q: want an absolute path without . and .., such as %s", abs,
				DefaultRoot)
		case !fs.ValidPath(at):
			return fmt.Errorf("%s: %q: want a directory of the tree, relative, or \".\" for all "+
				"of it", abs, at)
		}
	}
	return nil
}

// OrDefault returns the roots, or those of the zero value.
func (r Roots) OrDefault() Roots {
	if len(r) == 0 {
		return Roots{DefaultRoot: "."}
	}
	return r
}

// Name returns the name in the tree of an absolute path. It reports false for a path outside all
// roots.
func (r Roots) Name(abs string) (string, bool) {
	abs = path.Clean(abs)
	best, name := -1, ""
	for root, at := range r.OrDefault() {
		if rest, ok := below(abs, root); ok && len(root) > best {
			best, name = len(root), path.Join(at, rest)
		}
	}
	return name, best >= 0
}

// Abs returns the absolute path of a name in the tree. It reports false for a name in no root.
func (r Roots) Abs(name string) (string, bool) {
	best, abs := -1, ""
	for root, at := range r.OrDefault() {
		rest, ok := name, at == "."
		if !ok {
			rest, ok = below("/"+name, "/"+at)
		}
		if ok && len(at) > best {
			best, abs = len(at), path.Join(root, rest)
		}
	}
	return abs, best >= 0
}

// below returns the part of a clean absolute path after the directory.
func below(abs, dir string) (string, bool) {
	if abs == dir {
		return "", true
	}
	return strings.CutPrefix(abs, strings.TrimSuffix(dir, "/")+"/")
}

// String lists the absolute paths in their order.
func (r Roots) String() string {
	return strings.Join(slices.Sorted(maps.Keys(r.OrDefault())), ", ")
}
