// Package untar unpacks untrusted tar archives: an upload ([Archive]) and the layers of an image
// ([Image]).
//
// Both write below a directory and nothing outside of it, for all names and links that an archive
// may hold. An entry that they cannot write as the archive describes it is an error, never left
// out: an entry of an unknown type, one that stands outside, an archive that ends too early.
// Directories get their modes last, so that a user other than root can fill directories that are
// closed to writing.
package untar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/sluice-deploy/sluice/internal/names"
)

// ErrInvalid is returned for an archive that is damaged, incomplete or empty, or holds an entry
// that cannot be written. A fault of this machine, such as a full disk (syscall.ENOSPC), is not
// ErrInvalid.
var ErrInvalid = errors.New("invalid")

// ErrFormat is returned by Archive for input that is no tar archive, or one in a compression other
// than gzip and zstd.
var ErrFormat = errors.New("unsupported format")

// ErrTooLarge is returned by Archive for an archive that unpacks to more than its limits.
var ErrTooLarge = errors.New("too large")

// writer writes entries below root.
type writer struct {
	root   *os.Root
	dirs   map[string]*tar.Header // directories, by name: they get owner and mode at the end
	buffer []byte                 // of fill
	// parent is the directory of the last entry, open, and parentName its name; nil before the first
	// entry. Most entries stand beside the one before: then no path is walked again.
	parent     *os.Root
	parentName string
}

func open(dir string) (*writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &writer{root: root, dirs: map[string]*tar.Header{}, buffer: make([]byte, 64*page)}, nil
}

// in returns the directory, open, and makes it if it is missing. It is open until the next call of
// in or forget.
func (w *writer) in(dir string) (*os.Root, error) {
	if w.parent != nil && w.parentName == dir {
		return w.parent, nil
	}
	if err := w.root.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	parent, err := w.root.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	w.forget()
	w.parent, w.parentName = parent, dir
	return parent, nil
}

// forget closes the directory of the last entry. Call it when that may no longer be the directory
// of its name.
func (w *writer) forget() {
	if w.parent != nil {
		_ = w.parent.Close() // nothing was written by it
		w.parent = nil
	}
}

// close gives the directories their owners and modes.
func (w *writer) close() error {
	w.forget()
	var errs []error
	for name, header := range w.dirs {
		d, err := w.root.Open(name)
		// a later layer has removed or replaced it
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err == nil {
			err = errors.Join(own(d, header), d.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, w.root.Close())...)
}

// write writes one entry under the name, on whose place nothing stands, except for a directory that
// is to be one. It makes the directories above.
func (w *writer) write(name string, header *tar.Header, content io.Reader) error {
	parent, err := w.in(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	switch header.Typeflag {
	case tar.TypeDir:
		w.dirs[name] = header
		if err := parent.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		info, err := parent.Lstat(base)
		if err == nil && !info.IsDir() {
			err = errors.New("something else of this name stands before it")
		}
		return err
	case tar.TypeSymlink:
		return parent.Symlink(header.Linkname, base)
	case tar.TypeLink:
		return w.root.Link(clean(header.Linkname), name)
	case tar.TypeReg, tar.TypeGNUSparse:
		f, err := parent.OpenFile(base, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		err = w.fill(f, content, sparse(header))
		return errors.Join(err, own(f, header), f.Close())
	}
	return fmt.Errorf("entries of type %q are not known here", header.Typeflag)
}

// sparse reports whether the file has holes that the archive leaves out.
func sparse(header *tar.Header) bool {
	if header.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// page is the size of the blocks of zeros that fill leaves out.
const page = 4096

// fill writes the content. Where it may have holes, pages of zeros are left out.
func (w *writer) fill(f *os.File, content io.Reader, holes bool) error {
	buffer := w.buffer
	size := int64(0)
	for {
		n, err := io.ReadFull(content, buffer)
		for at := 0; at < n; {
			length := n - at
			if holes {
				length = min(page, length)
			}
			if part := buffer[at : at+length]; !holes || !zero(part) {
				if _, err := f.WriteAt(part, size); err != nil {
					return err
				}
			}
			at, size = at+length, size+int64(length)
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			// ReadFull returns io.ErrUnexpectedEOF for a short buffer and for an archive that is
			// cut off. The cut archive returns it again.
			if _, err := content.Read(buffer[:1]); err != io.EOF {
				return readError{err}
			}
			if holes {
				return f.Truncate(size)
			}
			return nil
		default:
			return readError{err}
		}
	}
}

func zero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}

// readError is an error of the archive, not of the disk.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// own sets owner and mode on the open file, regardless of the umask.
func own(f *os.File, header *tar.Header) error {
	if os.Geteuid() == 0 {
		if err := f.Chown(header.Uid, header.Gid); err != nil {
			return err
		}
	}
	return f.Chmod(fs.FileMode(header.Mode).Perm())
}

// clean is the name relative to the root. One that leads outside begins with "..".
func clean(name string) string { return path.Clean(strings.TrimLeft(name, "/")) }

// entryError says which entry could not be written.
func entryError(header *tar.Header, err error) error {
	return fmt.Errorf("entry %s: %w", names.Quote(header.Name), err)
}
