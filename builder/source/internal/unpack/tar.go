// Package unpack writes the entries of archives below a directory.
package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
)

// plain writes the entries of a tar file that is not compressed. Layer refuses the names that
// layers of images give to deleted files.
func plain(ctx context.Context, w *tree.Writer, r io.Reader, layer bool) error {
	for tr := tar.NewReader(r); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return archiveError(err)
		}
		if err := entry(w, h, tr, layer); err != nil {
			return archiveError(err)
		}
	}
}

// archiveError is tree.ErrRefused for an error of the archive's format.
func archiveError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.Join(err, tree.ErrRefused)
	}
	return err
}

func entry(w *tree.Writer, h *tar.Header, content io.Reader, layer bool) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := tree.Clean(h.Name)
	if err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode) & fs.ModePerm
	if layer && whiteout(name) {
		return tree.Refuse(name, "marks a file as deleted: make the artifact of one layer")
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return tree.Refuse(h.Name, "names the top of the source and is no directory")
		}
		return nil
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return w.Dir(name, mode)
	case tar.TypeReg, tar.TypeGNUSparse:
		return w.File(name, mode, h.Size, content)
	case tar.TypeSymlink:
		return w.Symlink(name, h.Linkname)
	case tar.TypeLink:
		target, err := tree.Clean(h.Linkname)
		if err != nil {
			return err
		}
		return w.Hardlink(name, target)
	}
	return tree.Refuse(name,
		"is a device, a pipe or of another type (%q): a build may have files, "+
			"directories and links", h.Typeflag)
}

// whiteout reports whether a name is one that layers of images give to deleted files.
func whiteout(name string) bool { return strings.HasPrefix(path.Base(name), ".wh.") }
