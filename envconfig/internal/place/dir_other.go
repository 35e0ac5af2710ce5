//go:build !linux

package place

import (
	"io"
	"io/fs"
	"os"
)

// Dir is an open directory of a [Tree].
type Dir struct{ *os.Root }

func newDir(root *os.Root) (*Dir, error) { return &Dir{root}, nil }
func (d *Dir) close()                    {}

// Look returns the mode and the size of the entry with the name; a link is not followed.
func (d *Dir) Look(name string) (fs.FileMode, int64, error) {
	info, err := d.Lstat(name)
	if err != nil {
		return 0, 0, err
	}
	return info.Mode(), info.Size(), nil
}
func (d *Dir) openRead(name string) (io.ReadCloser, error) { return d.Open(name) }
func (d *Dir) access(string) error                         { return nil }
func (d *Dir) mounted(string) bool                         { return false }
func (d *Dir) sync(string, map[uint64]bool) error          { return nil }
func (d *Dir) again() (handle, error)                      { return d.Open(".") }
func (d *Dir) rename(from, to string) error                { return d.Rename(from, to) }
func (d *Dir) openNew(name string) (newFile, error) {
	return d.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}
func (d *Dir) openWrite(name string) (oldFile, error) { return d.OpenFile(name, os.O_WRONLY, 0) }
