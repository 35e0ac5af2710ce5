package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// Reader reads trees from file systems and archives. The zero value is ready to use.
type Reader struct {
	Limits Limits
	// Roots say where the targets of links are in the tree. The default is that it stands for
	// /etc/nginx: a link to /etc/nginx/a is one to a.
	Roots conf.Roots
	// Subdir is the part of an archive that is taken, without a slash at its ends. Empty means all.
	Subdir string
	// Extra are further file systems, by the directory of the tree that each fills.
	Extra map[string]fs.FS
}

// Read takes a snapshot of all files below fsys, as Reader.Read does.
func Read(fsys fs.FS, limits Limits) (*Bundle, error) { return Reader{Limits: limits}.Read(fsys) }

// Read takes a snapshot of all files below fsys and Extra. Symbolic links are resolved when they
// stay in the roots; other files that are not regular are refused. The limits are held before the
// first file is opened.
func (r Reader) Read(fsys fs.FS) (*Bundle, error) {
	b, err := r.list(fsys)
	if err != nil {
		return nil, err
	}
	return b.Bundle()
}

// Digest returns the digest that Read's bundle would have, with no more memory than a list of
// names.
func (r Reader) Digest(fsys fs.FS) (string, error) {
	b, err := r.list(fsys)
	if err != nil {
		return "", err
	}
	return b.digest()
}

// list finds the files, their sizes and the links.
func (r Reader) list(fsys fs.FS) (*Builder, error) {
	b := &Builder{Limits: r.Limits, Roots: r.Roots}
	if err := b.walk(fsys, "."); err != nil {
		return nil, err
	}
	for _, at := range slices.Sorted(maps.Keys(r.Extra)) {
		if err := b.walk(r.Extra[at], at); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
	}
	return b, nil
}

func (b *Builder) walk(fsys fs.FS, at string) error {
	return fs.WalkDir(fsys, ".", func(from string, d fs.DirEntry, err error) error {
		name := path.Join(at, from)
		switch {
		case err != nil:
			return err
		case d.IsDir() && skipped(name):
			return fs.SkipDir
		case d.IsDir() || skipped(name):
			return nil
		case d.Type() == fs.ModeSymlink:
			target, err := fs.ReadLink(fsys, from)
			if err != nil {
				return err
			}
			return b.Link(name, target)
		case !d.Type().IsRegular():
			return fmt.Errorf("file %q: %s, want regular files, links and directories only: %w",
				name, d.Type(), ErrInvalid)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		c := content{mode: info.Mode().Perm(), size: info.Size(), open: func() (fs.File, error) {
			return fsys.Open(from)
		}}
		return b.put(name, c)
	})
}

// zeros counts the bytes that were read, and the zero bytes at their end.
type zeros struct {
	r           io.Reader
	total, tail int64
}

func (z *zeros) Read(p []byte) (int, error) {
	n, err := z.r.Read(p)
	rest := int64(n - len(bytes.TrimRight(p[:n], "\x00")))
	if rest == int64(n) {
		z.tail += rest
	} else {
		z.tail = rest
	}
	z.total += int64(n)
	return n, err
}

// Tar reads a bundle from a tar archive, compressed with gzip or not. Links are resolved when they
// stay in the roots; devices and the like are refused. So is input that is no tar archive, before
// more than its beginning is read, and an archive without the two blocks of zeros that end one: it
// was cut. Reading ends soon after the limits. An error of from is returned as it is.
func (r Reader) Tar(from io.Reader) (*Bundle, error) {
	failed := &failing{r: from}
	b, err := r.tar(bufio.NewReader(failed))
	if failed.err != nil {
		return nil, fmt.Errorf("archive: %w", failed.err)
	}
	return b, err
}

// failing remembers the error of a reader.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

func (r Reader) tar(packed *bufio.Reader) (*Bundle, error) {
	b := &Builder{Limits: r.Limits, Subdir: r.Subdir, Roots: r.Roots}
	limits := r.Limits.WithDefaults()
	plain := packed
	if magic, _ := packed.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(packed)
		if err != nil {
			return nil, fmt.Errorf("archive: %w: %w", err, ErrInvalid)
		}
		plain = bufio.NewReader(z)
	}
	if err := checkType(plain); err != nil {
		return nil, fmt.Errorf("archive: %w", invalid(err))
	}
	// Twice Bytes, since files outside of the directory are read too; and the headers.
	all := &io.LimitedReader{R: plain, N: 2*limits.Bytes + int64(limits.Files)*4096 + 1<<20}
	err := b.entries(&zeros{r: all})
	switch {
	case err == nil:
		return b.Bundle()
	case all.N <= 0:
		return nil, fmt.Errorf("archive: larger than %d files and %d bytes allow: %w", limits.Files,
			limits.Bytes, ErrInvalid)
	}
	return nil, fmt.Errorf("archive: %w", invalid(err))
}

func invalid(err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: %w", err, ErrInvalid)
}

// entries reads all of an archive: the end of input alone is not its end.
func (b *Builder) entries(all *zeros) error {
	archive := tar.NewReader(all)
	for {
		before := all.total
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && (all.total-before < 2*block || all.tail < 2*block):
			return fmt.Errorf("ends after %d files without the two blocks of zeros that end an "+
				"archive: it was cut: %w", len(b.files), ErrInvalid)
		case errors.Is(err, io.EOF):
			// The checksum of gzip comes behind the end of the archive.
			if _, err := io.Copy(io.Discard, all); err != nil {
				return err
			}
			if all.total-before > all.tail+block { // up to a block of it pads the last file
				return fmt.Errorf("has more behind its end, such as a second archive: %w",
					ErrInvalid)
			}
			return nil
		case err != nil:
			return err
		}
		if err := b.entry(h, archive); err != nil {
			return err
		}
		// To the end of the content, so that Next reads padding and headers only.
		if _, err := io.Copy(io.Discard, archive); err != nil {
			return err
		}
	}
}

func (b *Builder) entry(h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(h.Name, "./")
	switch h.Typeflag {
	case tar.TypeReg:
		return b.Add(name, h.FileInfo().Mode(), h.Size, r)
	case tar.TypeSymlink:
		return b.Link(name, h.Linkname)
	case tar.TypeLink: // to a name that came before
		inner, _ := b.inside(h.Linkname)
		f, ok := b.files[inner]
		if _, taken := b.inside(name); ok && taken {
			return b.Add(name, f.mode, f.size, strings.NewReader(f.text))
		} else if taken {
			return fmt.Errorf("file %q: a link to %q, which is not there before it: %w", h.Name,
				h.Linkname, ErrInvalid)
		}
		return nil
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return nil
	}
	if _, ok := b.inside(name); !ok {
		return nil
	}
	return fmt.Errorf("file %q: type %q, want regular files, links and directories only: %w",
		h.Name, h.Typeflag, ErrInvalid)
}
