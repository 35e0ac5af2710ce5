package platform

import (
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing/fstest"
)

// overlayFS shows the files of over at its root, and below and beside them those of base.
type overlayFS struct {
	base fs.FS
	over fstest.MapFS
}

var (
	_ fs.ReadDirFS  = overlayFS{}
	_ fs.ReadLinkFS = overlayFS{}
)

func (o overlayFS) at(name string) fs.FS {
	if _, found := o.over[name]; found {
		return o.over
	}
	return o.base
}

// Open opens a file of over, else of base.
func (o overlayFS) Open(name string) (fs.File, error) {
	f, err := o.at(name).Open(name)
	if err != nil || name != "." {
		return f, err
	}
	entries, err := o.ReadDir(name)
	return &rootDir{f, entries}, err
}

// Lstat does not follow a symbolic link.
func (o overlayFS) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(o.at(name), name) }

// ReadLink reads a symbolic link.
func (o overlayFS) ReadLink(name string) (string, error) { return fs.ReadLink(o.at(name), name) }

// ReadDir lists a directory; the root has the entries of both.
func (o overlayFS) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.base, name)
	if err != nil || name != "." {
		return entries, err
	}
	added, err := o.over.ReadDir(".")
	entries = slices.DeleteFunc(entries, func(entry fs.DirEntry) bool {
		return o.over[entry.Name()] != nil
	})
	entries = append(entries, added...)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		return strings.Compare(a.Name(), b.Name())
	})
	return entries, err
}

// rootDir is the open root of base with the entries of both.
type rootDir struct {
	fs.File
	rest []fs.DirEntry
}

func (d *rootDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.rest) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.rest) {
		n = len(d.rest)
	}
	entries := slices.Clone(d.rest[:n])
	d.rest = d.rest[n:]
	return entries, nil
}
