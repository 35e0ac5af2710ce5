package place

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// maxOpen bounds the directories that a Tree holds open, well below the usual limit of 1024
// descriptors.
const maxOpen = 128

// Tree reaches files below a root through their directories, each opened once. All access goes
// through [os.Root], so no link leads out of the root, however links change at the same time. Paths
// are as [PathProblem] allows them. A Tree is for one goroutine; several Trees may share a root.
type Tree struct {
	root *os.Root
	open map[string]*Dir
	// absent holds the directories that were found not to exist, so that each is looked for once
	// and not for every file.
	absent map[string]error
}

// NewTree returns a Tree of the files below root. The root stays the caller's unless [Tree.Close]
// is called.
func NewTree(root *os.Root) *Tree { return &Tree{root: root} }

// OpenRoot is [os.OpenRoot], but does not wait for a writer where name is a pipe.
func OpenRoot(name string) (*os.Root, error) { return os.OpenRoot(DirName(name)) }

// DirName returns a name of the directory that no other kind of file has: opening a pipe would wait
// for a writer.
func DirName(name string) string { return name + "/." }

// newFile is a file that was just made.
type newFile interface {
	io.WriteCloser
	Chmod(fs.FileMode) error
}

// oldFile is a file that is written in place.
type oldFile interface {
	io.WriteCloser
	Truncate(size int64) error
}

// Dir returns the open directory. It belongs to the Tree, which may close it in the next call.
func (t *Tree) Dir(name string) (*Dir, error) {
	if d := t.open[name]; d != nil {
		return d, nil
	}
	if err := t.absent[name]; err != nil {
		return nil, err
	}
	d, err := t.openDir(name)
	if err != nil {
		err = &fs.PathError{Op: "open", Path: name, Err: Cause(err)}
		if errors.Is(err, fs.ErrNotExist) {
			if t.absent == nil {
				t.absent = map[string]error{}
			}
			t.absent[name] = err
		}
		return nil, err
	}
	if len(t.open) >= maxOpen {
		t.Forget()
	}
	if t.open == nil {
		t.open = map[string]*Dir{}
	}
	t.open[name] = d
	return d, nil
}

// Split returns the open directory of a path, as [Tree.Dir] does, and the path's last element.
func (t *Tree) Split(name string) (*Dir, string, error) {
	dir, base := ".", name
	if slash := strings.LastIndexByte(name, '/'); slash >= 0 {
		dir, base = name[:slash], name[slash+1:]
	}
	d, err := t.Dir(dir)
	return d, base, err
}

// Root returns the root.
func (t *Tree) Root() *os.Root { return t.root }

// Forget closes all directories but the root, and forgets which ones did not exist.
func (t *Tree) Forget() {
	clear(t.absent)
	for _, d := range t.open {
		d.close()
	}
	clear(t.open)
}

// Close closes all directories and the root.
func (t *Tree) Close() {
	t.Forget()
	t.root.Close()
}

// Lstat describes a file or link; a link is not followed.
func (t *Tree) Lstat(name string) (fs.FileInfo, error) {
	d, base, err := t.Split(name)
	if err != nil {
		return nil, err
	}
	return d.Lstat(base)
}

// Exists reports whether the name is taken, by an entry of any kind.
func (t *Tree) Exists(name string) (bool, error) {
	d, base, err := t.Split(name)
	if err == nil {
		_, _, err = d.Look(base)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Rename renames a file within its directory.
func (t *Tree) Rename(from, to string) error {
	d, base, err := t.Split(from)
	if err != nil {
		return err
	}
	return d.rename(base, path.Base(to))
}

// link gives a file a second name within its directory.
func (t *Tree) link(from, to string) error {
	d, base, err := t.Split(from)
	if err != nil {
		return err
	}
	return d.link(base, path.Base(to))
}

// Remove removes a file or an empty directory. It is no error when there is none.
func (t *Tree) Remove(name string) error {
	d, base, err := t.Split(name)
	if err == nil {
		err = d.remove(base)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Create makes a new file with exactly that mode and lets fill write its content. A file that has
// the name is removed first.
func (t *Tree) Create(name string, mode fs.FileMode, fill func(io.Writer) error) (err error) {
	d, base, err := t.Split(name)
	if err != nil {
		return err
	}
	f, err := d.openNew(base)
	if errors.Is(err, fs.ErrExist) {
		if err = d.remove(base); err == nil {
			f, err = d.openNew(base)
		}
	}
	if err != nil {
		return err
	}
	if err = fill(f); err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}

// Open opens a regular file, or a link to one that is below the root.
func (t *Tree) Open(name string) (io.ReadCloser, error) {
	if d, base, err := t.Split(name); err == nil {
		if f, err := d.openRead(base); err == nil {
			return f, nil
		}
	}
	// From the root, since a link may lead out of the directory.
	f, err := t.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = mustBeFile(info.Mode(), name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// OpenFile opens a regular file, or a link to one that is below the root, and returns its size in
// bytes. The error matches [ErrInvalid] when something else has the name.
func (t *Tree) OpenFile(name string) (f io.ReadCloser, size int64, err error) {
	if d, base, err := t.Split(name); err == nil {
		if mode, size, err := d.Look(base); err == nil && mode.IsRegular() {
			if f, err := d.openRead(base); err == nil {
				return f, size, nil
			}
		}
	}
	return OpenFile(t.root.FS(), name)
}

// ReadText is [ReadText] for a file of the tree.
func (t *Tree) ReadText(name string, limit int64) (string, error) {
	b, err := readFile(t.OpenFile, name, limit)
	return asText(b), err
}

// symlink makes a link to text. A file that has the name is removed first.
func (t *Tree) symlink(name, text string) error {
	d, base, err := t.Split(name)
	if err != nil {
		return err
	}
	err = d.symlink(text, base)
	if errors.Is(err, fs.ErrExist) {
		if err = d.remove(base); err == nil {
			err = d.symlink(text, base)
		}
	}
	return err
}

// nearest returns the directory name or, where that does not exist, the nearest existing one above
// it.
func (t *Tree) nearest(name string) (string, error) {
	for {
		_, err := t.Dir(name)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || name == "." {
			return name, err
		}
		name = path.Dir(name)
	}
}

// mkdir makes a directory that everyone may read and search, independent of the umask.
func (t *Tree) mkdir(dir string) error {
	parent, base, err := t.Split(dir)
	if err != nil {
		return err
	}
	err = parent.mkdir(base)
	clear(t.absent)
	return err
}

// Replace writes data to a small file that is replaced as a whole and that only this user may read.
func (t *Tree) Replace(name string, data []byte) error {
	draft := path.Join(path.Dir(name), draftName)
	err := t.Create(draft, 0o600, func(w io.Writer) error { _, err := w.Write(data); return err })
	if err == nil {
		err = t.Rename(draft, name)
	}
	if err != nil {
		_ = t.Remove(draft)
	}
	return err
}
