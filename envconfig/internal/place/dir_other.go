//go:build !linux

package place

import (
	"io"
	"io/fs"
	"os"
)

// Dir is an open directory of a [Tree].
type Dir struct {
	tree *Tree
	slow *os.Root
}

func (t *Tree) openDir(name string) (*Dir, error) {
	if name == "." {
		return &Dir{t, t.root}, nil
	}
	root, err := t.root.OpenRoot(DirName(name))
	if err != nil {
		return nil, err
	}
	return &Dir{t, root}, nil
}

func (d *Dir) close() {
	if d.slow != d.tree.root {
		d.slow.Close()
	}
}

// root returns the os.Root of the directory.
func (d *Dir) root() (*os.Root, error) { return d.slow, nil }

// Look returns the mode and the size of the entry with the name; a link is not followed.
func (d *Dir) Look(name string) (fs.FileMode, int64, error) {
	info, err := d.Lstat(name)
	if err != nil {
		return 0, 0, err
	}
	return info.Mode(), info.Size(), nil
}
func (d *Dir) openRead(name string) (io.ReadCloser, error) { return d.slow.Open(name) }
func (d *Dir) access(string) error                         { return nil }
func (d *Dir) mounted(string) bool                         { return false }
func (d *Dir) sync(string, map[uint64]bool) error          { return nil }
func (d *Dir) again() (handle, error)                      { return d.slow.Open(".") }
func (d *Dir) rename(from, to string) error                { return d.slow.Rename(from, to) }
func (d *Dir) openNew(name string) (newFile, error) {
	return d.slow.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}
func (d *Dir) openWrite(name string) (oldFile, error) {
	return d.slow.OpenFile(name, os.O_WRONLY, 0)
}
