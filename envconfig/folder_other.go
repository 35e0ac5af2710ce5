//go:build !linux

package envconfig

import (
	"io"
	"io/fs"
	"os"
)

// folder is an open folder of a tree.
type folder struct{ *os.Root }

func newFolder(root *os.Root) (*folder, error) { return &folder{root}, nil }
func (d *folder) close()                       {}
func (d *folder) look(name string) (fs.FileMode, int64, error) {
	info, err := d.Lstat(name)
	if err != nil {
		return 0, 0, err
	}
	return info.Mode(), info.Size(), nil
}
func (d *folder) openRead(name string) (io.ReadCloser, error) { return d.Open(name) }
func (d *folder) access() error                               { return nil }
func (d *folder) sync(map[uint64]bool) error                  { return nil }
func (d *folder) again() (handle, error)                      { return d.Open(".") }
func (d *folder) rename(from, to string) error                { return d.Rename(from, to) }
func (d *folder) openNew(name string) (newFile, error) {
	return d.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}
