package bundle

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Read takes a snapshot of all files below fsys. Symbolic links are resolved when they stay in it; other files that are
// not regular are refused.
func Read(fsys fs.FS, limits Limits) (*Bundle, error) {
	b := &Builder{Limits: limits}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
			return err
		case d.Type() == fs.ModeSymlink:
			target, err := fs.ReadLink(fsys, name)
			if err != nil {
				return err
			}
			return b.Link(name, target)
		case !d.Type().IsRegular():
			return fmt.Errorf("file %q: %s, want regular files, links and folders only: %w", name, d.Type(), ErrInvalid)
		}
		f, err := fsys.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return b.Add(name, info.Mode(), f)
	})
	if err != nil {
		return nil, err
	}
	return b.Bundle()
}

// ReadTar reads a bundle from a tar archive, compressed with gzip or not. Only what is below folder is taken; empty means
// all. Links are resolved when they stay below folder; devices and the like are refused. Reading ends soon after the limits.
func ReadTar(r io.Reader, folder string, limits Limits) (*Bundle, error) {
	b := &Builder{Limits: limits, Folder: folder}
	limits = limits.WithDefaults()
	buffered := bufio.NewReader(r)
	r = buffered
	if magic, _ := buffered.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("archive: %w: %w", err, ErrInvalid)
		}
		r = z
	}
	// Twice, since what is outside of the folder is read too; and the headers.
	all := &io.LimitedReader{R: r, N: 2*limits.Bytes + int64(limits.Files)*4096 + 1<<20}
	archive := tar.NewReader(all)
	for {
		h, err := archive.Next()
		if err == nil {
			err = b.entry(h, archive)
		} else if errors.Is(err, io.EOF) {
			// The checksum of gzip comes behind the end of the archive.
			if _, rest := io.Copy(io.Discard, all); rest != nil {
				err = rest
			}
		}
		switch {
		case err == io.EOF && all.N > 0:
			return b.Bundle()
		case err != nil && all.N <= 0:
			return nil, fmt.Errorf("archive: larger than %d files and %d bytes allow: %w", limits.Files, limits.Bytes, ErrInvalid)
		case errors.Is(err, ErrInvalid):
			return nil, fmt.Errorf("archive: %w", err)
		case err != nil:
			return nil, fmt.Errorf("archive: %w: %w", err, ErrInvalid)
		}
	}
}

func (b *Builder) entry(h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(h.Name, "./")
	switch h.Typeflag {
	case tar.TypeReg:
		return b.Add(name, h.FileInfo().Mode(), r)
	case tar.TypeSymlink:
		return b.Link(name, h.Linkname)
	case tar.TypeLink: // to a name that came before
		inner, _ := b.inside(h.Linkname)
		f, ok := b.files[inner]
		if _, taken := b.inside(name); ok && taken {
			return b.Add(name, f.Mode, strings.NewReader(f.Text))
		} else if taken {
			return fmt.Errorf("file %q: a link to %q, which is not there before it: %w", h.Name, h.Linkname, ErrInvalid)
		}
		return nil
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return nil
	}
	if _, ok := b.inside(name); !ok {
		return nil
	}
	return fmt.Errorf("file %q: type %q, want regular files, links and folders only: %w", h.Name, h.Typeflag, ErrInvalid)
}
