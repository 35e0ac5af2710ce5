package assemble

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
)

// kind is the type of a path of an image.
type kind byte

const (
	isDir kind = iota + 1
	isLink
	isFile // and anything else
)

type node struct {
	kind kind
	link string
}

// tree is the file system of an image as far as COPY needs it: the paths that exist and the targets
// of links. Names have no leading slash; the root, ".", is always there.
type tree map[string]node

const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// add puts one layer over the tree.
func (t tree) add(layer v1.Layer) error {
	r, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	type named struct {
		name string
		node node
	}
	var added []named
	brought := tree{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		name := clean(h.Name)
		base := path.Base(name)
		switch {
		case base == whiteoutOpaque:
			t.removeBelow(path.Dir(name))
		case strings.HasPrefix(base, whiteoutPrefix):
			t.remove(path.Join(path.Dir(name), strings.TrimPrefix(base, whiteoutPrefix)))
		default:
			n, err := nodeOf(h, brought, t)
			if err != nil {
				return err
			}
			if n.kind != 0 {
				added = append(added, named{name, n})
				brought[name] = n
			}
		}
	}
	if _, err := io.Copy(io.Discard, r); err != nil { // the digest is checked at the end
		return err
	}
	// A whiteout hides entries of the layers below, never entries of its own layer.
	for _, a := range added {
		t.set(a.name, a.node)
	}
	return nil
}

// nodeOf returns the node that an entry puts at its path; the zero node for an entry that puts
// none. A hard link has its target's node, from its own layer, brought, or from the layers below.
func nodeOf(h *tar.Header, brought, below tree) (node, error) {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return node{}, nil
	case tar.TypeDir:
		return node{kind: isDir}, nil
	case tar.TypeSymlink:
		return node{kind: isLink, link: h.Linkname}, nil
	case tar.TypeLink:
		target := clean(h.Linkname)
		if n := cmp.Or(brought[target], below[target]); n.kind == isLink {
			return n, nil
		}
		return node{kind: isFile}, nil
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return node{kind: isFile}, nil
	}
	return node{}, fmt.Errorf("entry %s of a layer: entries of type %q are not known here: %w",
		names.Quote(h.Name), h.Typeflag,
		builder.ErrUnsupported)
}

// set records one entry; a directory that something else replaces takes its content with it.
func (t tree) set(name string, n node) {
	if old, ok := t[name]; ok && old.kind == isDir && n.kind != isDir {
		t.removeBelow(name)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t[dir]; ok {
			break
		}
		t[dir] = node{kind: isDir}
	}
	t[name] = n
}

func (t tree) remove(name string) {
	t.removeBelow(name)
	delete(t, name)
}

func (t tree) removeBelow(dir string) {
	for name := range t {
		if dir == "." || strings.HasPrefix(name, dir+"/") {
			delete(t, name)
		}
	}
}

// resolve follows the links in the path of the directory name and calls create for every directory
// that is missing. It returns the name that has no link in it.
func (t tree) resolve(name string, create func(dir string) error) (string, error) {
	rest := strings.Split(clean(name), "/")
	at, links := ".", 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		n, ok := t[next]
		switch {
		case !ok:
			if err := create(next); err != nil {
				return "", err
			}
			t[next] = node{kind: isDir}
			at = next
		case n.kind == isDir:
			at = next
		case n.kind == isLink:
			if links++; links > maxLinks {
				return "", fmt.Errorf("/%s: more than %d symbolic links in the image", name,
					maxLinks)
			}
			if path.IsAbs(n.link) {
				at = "."
			}
			rest = append(strings.Split(n.link, "/"), rest...)
		default:
			return "", fmt.Errorf("/%s is a file in the image, no folder", next)
		}
	}
	return at, nil
}

// find follows all links of name and returns the node at their end; ok is false when there is none.
func (t tree) find(name string) (n node, ok bool) {
	missing := errors.New("missing")
	dir, err := t.resolve(path.Dir(clean(name)), func(string) error { return missing })
	if err != nil {
		return node{}, false
	}
	at := path.Join(dir, path.Base(clean(name)))
	if at == "." {
		return node{kind: isDir}, true
	}
	n, ok = t[at]
	if ok && n.kind == isLink {
		if _, err := t.resolve(at, func(string) error { return missing }); err == nil {
			return node{kind: isDir}, true
		}
	}
	return n, ok
}

// clean turns a path of an image into the form that tree uses.
func clean(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}
