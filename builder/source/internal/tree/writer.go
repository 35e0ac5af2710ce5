// Package tree writes the files of a source below a directory and nothing outside of it.
package tree

import (
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

// ErrRefused says that the content is at fault, not the machine.
var ErrRefused = errors.New("refused")

// Limits are source.Limits without defaults.
type Limits struct {
	Bytes int64
	Files int
}

// Writer writes entries below a directory that was empty. A later entry of a name takes the place
// of an earlier one, as in tar. It is not safe for concurrent use.
type Writer struct {
	root   *os.Root
	limits Limits
	kinds  map[string]fs.FileMode // the type of each entry
	sizes  map[string]int64       // of files
	modes  map[string]fs.FileMode // of directories; they get them at the end
	bytes  int64
}

// NewWriter opens the directory.
func NewWriter(dir string, limits Limits) (*Writer, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Writer{root: root, limits: limits, kinds: map[string]fs.FileMode{},
		sizes: map[string]int64{}, modes: map[string]fs.FileMode{}}, nil
}

// Refuse is ErrRefused for an entry.
func Refuse(name, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", names.Quote(name), fmt.Sprintf(format, args...), ErrRefused)
}

// Clean checks the name of an entry and returns it without "./" and "/" at its ends; "" is the
// directory itself.
func Clean(name string) (string, error) {
	clean := strings.TrimRight(name, "/")
	for strings.HasPrefix(clean, "./") {
		clean = strings.TrimLeft(clean[2:], "/")
	}
	if clean == "." || clean == "" && strings.HasPrefix(name, ".") {
		return "", nil
	}
	switch {
	case clean == "" || strings.HasPrefix(clean, "/"):
		return "", Refuse(name, "begins with /: name it relative to the top of the source")
	case len(clean) > 4096 || strings.ContainsRune(clean, 0):
		return "", Refuse(name, "is too long or has a zero byte")
	}
	for part := range strings.SplitSeq(clean, "/") {
		switch {
		case part == ".." || part == "." || part == "":
			return "", Refuse(name, "has an element %q", part)
		case strings.EqualFold(part, ".git"):
			return "", Refuse(name, "has an element .git: leave repositories out of a source")
		}
	}
	return clean, nil
}

// put makes room for an entry of a type: its parents exist, and nothing of its name does.
func (w *Writer) put(name string, kind fs.FileMode, size int64) error {
	if size < 0 || size > w.limits.Bytes-w.bytes+w.sizes[name] {
		return Refuse(name, "is too large: the source has more than %d bytes", w.limits.Bytes)
	}
	if parent := path.Dir(name); parent != "." {
		if have, ok := w.kinds[parent]; !ok {
			if err := w.Dir(parent, 0o755); err != nil {
				return err
			}
		} else if have != fs.ModeDir {
			return Refuse(name, "stands below %s, which is no directory", names.Quote(parent))
		}
	}
	if have, ok := w.kinds[name]; !ok {
		if len(w.kinds) >= w.limits.Files {
			return Refuse(name, "is one too many: the source has more than %d files",
				w.limits.Files)
		}
	} else if have == fs.ModeDir || kind == fs.ModeDir {
		return Refuse(name, "stands twice, as a directory and as another entry")
	} else if err := w.root.Remove(name); err != nil {
		return err
	}
	w.bytes += size - w.sizes[name]
	w.kinds[name], w.sizes[name] = kind, size
	return nil
}

// Dir makes a directory, or gives one that is there its mode.
func (w *Writer) Dir(name string, mode fs.FileMode) error {
	if name == "" {
		return nil
	}
	if w.kinds[name] != fs.ModeDir {
		if err := w.put(name, fs.ModeDir, 0); err != nil {
			return err
		}
		if err := w.root.Mkdir(name, 0o700); err != nil {
			return taken(name, err)
		}
	}
	w.modes[name] = mode.Perm() | 0o700
	return nil
}

// taken is an error of making an entry: on a file system without case two names may be one.
func taken(name string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return Refuse(name, "is, for this builder's file system, the name of another file")
	}
	if errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.EINVAL) {
		return Refuse(name, "is no name for this builder's file system: %v", err)
	}
	return err
}

// File writes a file of exactly size bytes.
func (w *Writer) File(name string, mode fs.FileMode, size int64, content io.Reader) error {
	if err := w.put(name, 0, size); err != nil {
		return err
	}
	f, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return taken(name, err)
	}
	n, err := io.Copy(f, io.LimitReader(content, size))
	if err == nil && n < size {
		err = Refuse(name, "ends after %d of %d bytes", n, size)
	}
	if err == nil {
		err = f.Chmod(mode.Perm())
	}
	return errors.Join(err, f.Close())
}

// Symlink makes a symbolic link, whose target Close checks.
func (w *Writer) Symlink(name, target string) error {
	if err := CheckLink(name, target); err != nil {
		return err
	}
	if err := w.put(name, fs.ModeSymlink, 0); err != nil {
		return err
	}
	return taken(name, w.root.Symlink(target, name))
}

// CheckLink refuses the target of a symbolic link that leads out of the tree by its text.
func CheckLink(name, target string) error {
	switch to := path.Join(path.Dir(name), target); {
	case target == "" || len(target) > 4096 || strings.ContainsRune(target, 0):
		return Refuse(name, "is a link without a proper target")
	case strings.HasPrefix(target, "/") || to == ".." || strings.HasPrefix(to, "../"):
		return Refuse(name, "is a link to %s, out of the source: link within it",
			names.Quote(target))
	}
	return nil
}

// Hardlink makes a second name of a file.
func (w *Writer) Hardlink(name, target string) error {
	if kind, ok := w.kinds[target]; !ok || kind != 0 {
		return Refuse(name, "is a hard link to %s, which is no file before it",
			names.Quote(target))
	}
	if name == target {
		return nil
	}
	if err := w.put(name, 0, 0); err != nil {
		return err
	}
	return taken(name, w.root.Link(target, name))
}

// Close gives the directories their modes, refuses links that lead out of the tree by way of other
// links, and returns how many entries there are and how many bytes.
func (w *Writer) Close() (files int, bytes int64, err error) {
	var errs []error
	for name, kind := range w.kinds {
		if kind == fs.ModeSymlink {
			errs = append(errs, resolve(w.root, name))
		}
	}
	for name, mode := range w.modes {
		errs = append(errs, w.root.Chmod(name, mode))
	}
	errs = append(errs, w.root.Close())
	return len(w.kinds), w.bytes, errors.Join(errs...)
}

// Limits are the limits that NewWriter takes.
func (w *Writer) Limits() Limits { return w.limits }

// Abort closes w after an error.
func (w *Writer) Abort() { w.root.Close() }

// resolve refuses a link that leads out of root. One that leads to nothing is allowed.
func resolve(root *os.Root, name string) error {
	_, err := root.Stat(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return Refuse(name, "is a link that leads out of the source or in a circle")
}
