package builder

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// RootFS shows the files of root as [Request.Context] has them. Unlike os.Root.FS it takes names that
// are not UTF-8, which old trees of code have; otherwise names follow fs.ValidPath. Root stays
// the caller's to close, after the build. The result is safe for concurrent use.
func RootFS(root *os.Root) fs.FS { return rootFS{root} }

type rootFS struct{ root *os.Root }

var _ fs.ReadDirFS = rootFS{}
var _ fs.ReadLinkFS = rootFS{}
var _ fs.StatFS = rootFS{}

// valid is fs.ValidPath without the question for UTF-8: no element is "", "." or "..".
func valid(op, name string) error {
	if name == "." ||
		name != "" && !slices.ContainsFunc(strings.Split(name, "/"), func(e string) bool {
			return e == "" || e == "." || e == ".."
		}) && path.Clean(name) == name {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
}

func (f rootFS) Open(name string) (fs.File, error) {
	if err := valid("open", name); err != nil {
		return nil, err
	}
	return f.root.Open(name)
}

func (f rootFS) Stat(name string) (fs.FileInfo, error) {
	if err := valid("stat", name); err != nil {
		return nil, err
	}
	return f.root.Stat(name)
}

func (f rootFS) Lstat(name string) (fs.FileInfo, error) {
	if err := valid("lstat", name); err != nil {
		return nil, err
	}
	return f.root.Lstat(name)
}

func (f rootFS) ReadLink(name string) (string, error) {
	if err := valid("readlink", name); err != nil {
		return "", err
	}
	return f.root.Readlink(name)
}

// ReadDir implements fs.ReadDirFS: the entries are sorted by name.
func (f rootFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := valid("readdir", name); err != nil {
		return nil, err
	}
	d, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	slices.SortFunc(
		entries,
		func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) },
	)
	return entries, err
}
