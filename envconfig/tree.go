package envconfig

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// maxOpen bounds the folders that a tree holds open, well below the usual limit of 1024 descriptors.
const maxOpen = 128

// tree reaches files below a root through their folders, each opened once. All access goes through [os.Root], so that no
// link, however it changes meanwhile, leads out of the root.
type tree struct {
	root *os.Root
	open map[string]*folder
	// absent are folders that were found not to exist, so that each is looked for once and not once for every file.
	absent map[string]error
}

// everything is what secrets and witnesses are read from. Where it is the whole file system, links that begin with a slash are
// followed, which os.Root never does: in many an image /var/run is one.
func everything(root *os.Root) fs.FS {
	if root.Name() == "/" {
		return os.DirFS("/")
	}
	return root.FS()
}

// newFile is a file that was just made.
type newFile interface {
	io.WriteCloser
	Chmod(fs.FileMode) error
}

// asFolder is a name of the folder that no other kind of file has: to open a pipe waits for somebody who writes.
func asFolder(name string) string { return name + "/." }

// dir returns the open folder; it stays open until the next call.
func (t *tree) dir(name string) (*folder, error) {
	if d := t.open[name]; d != nil {
		return d, nil
	}
	if err := t.absent[name]; err != nil {
		return nil, err
	}
	root := t.root
	if name != "." {
		var err error
		if root, err = t.root.OpenRoot(asFolder(name)); err != nil {
			err = &fs.PathError{Op: "open", Path: name, Err: cause(err)}
			if errors.Is(err, fs.ErrNotExist) {
				if t.absent == nil {
					t.absent = map[string]error{}
				}
				t.absent[name] = err
			}
			return nil, err
		}
	}
	d, err := newFolder(root)
	if err != nil {
		return nil, err
	}
	if len(t.open) >= maxOpen {
		t.forget()
	}
	if t.open == nil {
		t.open = map[string]*folder{}
	}
	t.open[name] = d
	return d, nil
}

// split returns the open folder of a path and its last element. The path is a clean one, as pathProblem has it.
func (t *tree) split(name string) (*folder, string, error) {
	dir, base := ".", name
	if slash := strings.LastIndexByte(name, '/'); slash >= 0 {
		dir, base = name[:slash], name[slash+1:]
	}
	d, err := t.dir(dir)
	return d, base, err
}

// forget closes all folders but the root, and looks anew for those that were not there.
func (t *tree) forget() {
	clear(t.absent)
	for _, d := range t.open {
		d.close()
		if d.Root != t.root {
			d.Root.Close()
		}
	}
	clear(t.open)
}

func (t *tree) close() {
	t.forget()
	t.root.Close()
}

func (t *tree) lstat(name string) (fs.FileInfo, error) {
	d, base, err := t.split(name)
	if err != nil {
		return nil, err
	}
	return d.Lstat(base)
}

func (t *tree) exists(name string) (bool, error) {
	_, err := t.lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// rename moves a file within its folder.
func (t *tree) rename(from, to string) error {
	d, base, err := t.split(from)
	if err != nil {
		return err
	}
	return d.rename(base, path.Base(to))
}

// link gives a file a second name within its folder.
func (t *tree) link(from, to string) error {
	d, base, err := t.split(from)
	if err != nil {
		return err
	}
	return d.Link(base, path.Base(to))
}

// remove takes a file or an empty folder away; it is no error when there is none.
func (t *tree) remove(name string) error {
	d, base, err := t.split(name)
	if err == nil {
		err = d.Remove(base)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// create makes a new file with exactly that mode and lets fill write its content. Whatever had that name is replaced.
func (t *tree) create(name string, mode fs.FileMode, fill func(io.Writer) error) (err error) {
	d, base, err := t.split(name)
	if err != nil {
		return err
	}
	f, err := d.openNew(base)
	if errors.Is(err, fs.ErrExist) {
		if err = d.Remove(base); err == nil {
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

// read opens a file, which may be a link to another that is below the root.
func (t *tree) read(name string) (io.ReadCloser, error) {
	if d, base, err := t.split(name); err == nil {
		if f, err := d.openRead(base); err == nil {
			return f, nil
		}
	}
	f, err := t.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // from the root, a link may lead out of the folder
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

// symlink makes a link that says text. Whatever had that name is replaced.
func (t *tree) symlink(name, text string) error {
	d, base, err := t.split(name)
	if err != nil {
		return err
	}
	err = d.Symlink(text, base)
	if errors.Is(err, fs.ErrExist) {
		if err = d.Remove(base); err == nil {
			err = d.Symlink(text, base)
		}
	}
	return err
}

// sized reads a regular file that should have size bytes. A read that brings the last of them and had room for more has come
// to the end, which saves the read that would say so: of a small file it is every other one.
type sized struct {
	io.ReadCloser
	left int64
}

// Read reads as [io.Reader] says.
func (f *sized) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.left -= int64(n); err == nil && f.left == 0 && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// holds reports whether a regular file of the folder, which has that size, has content with that SHA-256.
func (d *folder) holds(name, sha256 string, size int64) (bool, error) {
	f, err := d.openRead(name)
	if err != nil {
		return false, err
	}
	return holds(f, sha256, size)
}

// holds reads and closes a file. The size is as in sized; -1 if it is not known.
func holds(f io.ReadCloser, sha256 string, size int64) (bool, error) {
	h := takeHasher()
	defer hashers.Put(h)
	_, err := h.readAll(&sized{f, size}, nil)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	return h.isSum(sha256), nil
}

// nearest is the folder name, or the nearest one above it that exists.
func (t *tree) nearest(name string) (string, error) {
	for {
		_, err := t.dir(name)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || name == "." {
			return name, err
		}
		name = path.Dir(name)
	}
}

// targetError says which target an error is about and gives it the sentinel that fits.
func targetError(name string, err error) error {
	kind := error(nil)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		kind = ErrPermission
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s: %w: it is a mount of its own and cannot be replaced; mount the folder instead, or take it out of envs/: %w", name, ErrTarget, err)
	case isNoFolder(err):
		return fmt.Errorf("%s: %w: a file is where a folder has to be: %w", name, ErrTarget, err)
	case errors.Is(err, syscall.EISDIR), errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist),
		errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG), isEscape(err):
		kind = ErrTarget
	default:
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s: %w: %w", name, kind, err)
}

// isEscape reports whether os.Root refused a path because a link on its way leaves the root.
func isEscape(err error) bool { return refuses(err, "path escapes from parent") }

// isNoFolder reports whether something else is where a folder has to be.
func isNoFolder(err error) bool {
	return errors.Is(err, syscall.ENOTDIR) || refuses(err, syscall.ENOTDIR.Error())
}

// refuses reports whether os.Root has refused a path with that text, which is all that it says.
func refuses(err error, text string) bool {
	var p *fs.PathError
	return errors.As(err, &p) && p.Err.Error() == text
}
