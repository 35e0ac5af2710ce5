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

// node is one path of an image.
type node struct {
	kind  kind
	link  string // where a link leads
	mode  int64  // permissions, set-ID and sticky bits, as in a tar header
	owner owner
	size  int64
	// layer and offset say where the uncompressed layer of the base image has a file's content
	layer  int
	offset int64
	made   *entry // of this build; nil for the base's own
	device bool   // a device or named pipe, which has no content
}

// tree is the file system of an image: its paths, and where their content is. Names have no leading
// slash; the root, ".", is always there.
type tree map[string]node

// maxLinks bounds the symbolic links that one path may lead through, as Linux does.
const maxLinks = 40

const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// add puts one layer over the tree; number is its place in the base image, from 0.
func (t tree) add(layer v1.Layer, number int) error {
	uncompressed, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer uncompressed.Close()
	r := &positionReader{r: uncompressed}
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
			if n.kind == isFile && h.Typeflag != tar.TypeLink {
				n.layer, n.offset = number, r.position
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
	n := node{mode: h.Mode & 0o7777, owner: owner{h.Uid, h.Gid}}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return node{}, nil
	case tar.TypeDir:
		n.kind = isDir
		return n, nil
	case tar.TypeSymlink:
		n.kind, n.link = isLink, h.Linkname
		return n, nil
	case tar.TypeLink:
		target := clean(h.Linkname)
		if n := cmp.Or(brought[target], below[target]); n.kind == isLink || n.kind == isFile {
			return n, nil
		}
		return node{kind: isFile, device: true}, nil // its target is nowhere
	case tar.TypeReg:
		n.kind, n.size = isFile, h.Size
		return n, nil
	case tar.TypeGNUSparse, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		n.kind, n.device = isFile, true
		return n, nil
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
		t[dir] = node{kind: isDir, mode: 0o755}
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
			t[next] = node{kind: isDir, mode: 0o755}
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
			return "", fmt.Errorf("/%s is a file in the image, not a directory", next)
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

// follow returns the name of an image's path without the links in it, the last one followed too.
// A missing path is taken as it is written, so a link that leads nowhere gives the name of its
// target. A directory that is made of a file is found by the caller.
func (t tree) follow(name string) (string, error) {
	rest := strings.Split(clean(name), "/")
	at, links := ".", 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		n := t[next]
		if n.kind != isLink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("/%s: more than %d symbolic links in the image", name, maxLinks)
		}
		if path.IsAbs(n.link) {
			at = "."
		}
		rest = append(strings.Split(n.link, "/"), rest...)
	}
	return at, nil
}

// positionReader counts the bytes that were read.
type positionReader struct {
	r        io.Reader
	position int64
}

func (r *positionReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.position += int64(n)
	return n, err
}

// clean turns a path of an image into the form that tree uses.
func clean(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}
