package untar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
)

// Layer opens the tar archive of one layer, uncompressed. Its reader returns an error, at its end
// at the latest, when the content does not match the layer's digest.
type Layer func() (io.ReadCloser, error)

// The names by which a layer hides entries of the layers below it (OCI image specification,
// "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// Image unpacks the layers of an image, the lowest first, below dir, which it makes if it is
// missing. Links of the image lead to places inside of it, absolute ones from dir on. Devices and
// pipes are passed over: the image's runtime provides /dev. An entry of any other unknown type is
// an error that matches ErrInvalid. After an error dir holds a part.
func Image(ctx context.Context, dir string, layers []Layer) (err error) {
	w, err := open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for n, layer := range layers {
		if err := (&layering{writer: w, made: map[string]bool{}}).unpack(ctx, layer); err != nil {
			return fmt.Errorf("layer %d of %d: %w", n+1, len(layers), err)
		}
	}
	return nil
}

// layering is one layer that is being unpacked over those below it.
type layering struct {
	*writer
	// entries that this layer has brought, with all directories above: its whiteouts do not hide
	// them
	made map[string]bool
	// resolved is the name without links of the directory unresolved, that of the last entry. It
	// holds until a link is made or anything is removed.
	unresolved, resolved string
}

func (l *layering) unpack(ctx context.Context, layer Layer) error {
	content, err := layer()
	if err != nil {
		return err
	}
	defer content.Close()
	for archive := tar.NewReader(content); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := l.add(header, archive); err != nil {
			return entryError(header, err)
		}
	}
	_, err = io.Copy(io.Discard, content) // the digest is checked at the end
	return err
}

func (l *layering) add(header *tar.Header, content io.Reader) error {
	name := path.Clean("/" + header.Name)[1:]
	switch header.Typeflag {
	case tar.TypeXGlobalHeader, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return nil
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	default:
		return fmt.Errorf("entries of type %q are not known here: %w", header.Typeflag, ErrInvalid)
	}
	if name == "" {
		return nil // the root, which is there
	}
	dir, err := l.dir(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if base == whiteoutOpaque {
		return l.clear(dir)
	}
	if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return l.hide(path.Join(dir, hidden))
	}
	name = path.Join(dir, base)
	if header.Typeflag == tar.TypeLink {
		linked := *header
		if linked.Linkname, err = l.resolveLast(header.Linkname); err != nil {
			return err
		}
		if linked.Linkname == name {
			return nil
		}
		header = &linked
	}
	if err := l.replace(name, header); err != nil {
		return err
	}
	if header.Typeflag == tar.TypeSymlink {
		l.unresolved = ""
	}
	for at := name; at != "." && !l.made[at]; at = path.Dir(at) {
		l.made[at] = true
	}
	return l.write(name, header, content)
}

// replace removes an entry that stands in the place of the new one. A directory that stays one
// keeps its content.
func (l *layering) replace(name string, header *tar.Header) error {
	parent, err := l.in(path.Dir(name))
	if err != nil {
		return err
	}
	info, err := parent.Lstat(path.Base(name))
	switch {
	case missing(err):
		return nil
	case err != nil:
		return err
	case info.IsDir() && header.Typeflag == tar.TypeDir:
		return nil
	}
	return l.remove(name)
}

func (l *layering) remove(name string) error {
	l.forget()
	l.unresolved = ""
	for dir := range l.dirs {
		if dir == name || strings.HasPrefix(dir, name+"/") {
			delete(l.dirs, dir)
		}
	}
	return l.root.RemoveAll(name)
}

// hide removes the entry that the layers below have brought under the name.
func (l *layering) hide(name string) error {
	if l.made[name] {
		return nil
	}
	if _, err := l.root.Lstat(name); missing(err) {
		return nil
	}
	return l.remove(name)
}

// clear removes the entries that the layers below have put into the directory.
func (l *layering) clear(dir string) error {
	entries, err := fs.ReadDir(l.root.FS(), dir)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		switch {
		case !l.made[name]:
			err = l.remove(name)
		case entry.IsDir():
			err = l.clear(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxLinks is how many symbolic links a name may lead through, as on Linux (path_resolution(7)).
const maxLinks = 40

// dir is resolve for the directory of an entry.
func (l *layering) dir(name string) (string, error) {
	if name != l.unresolved {
		resolved, err := l.resolve(name)
		if err != nil {
			return "", err
		}
		l.unresolved, l.resolved = name, resolved
	}
	return l.resolved, nil
}

// resolve follows the links in the name of a directory, as the image itself would see them, and
// returns a name without links.
func (l *layering) resolve(name string) (string, error) {
	at, links := ".", 0
	for rest := strings.Split(name, "/"); len(rest) > 0; {
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
		target, err := l.root.Readlink(next)
		if err != nil { // missing, or no link
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("more than %d symbolic links: %w", maxLinks, ErrInvalid)
		}
		if path.IsAbs(target) {
			at = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// resolveLast follows the links in the path to the name, but not the name itself when it is a link.
func (l *layering) resolveLast(name string) (string, error) {
	name = path.Clean("/" + name)[1:]
	dir, err := l.resolve(path.Dir(name))
	return path.Join(dir, path.Base(name)), err
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
