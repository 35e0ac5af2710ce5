// Package textfs is a read-only file system of texts in memory, for configuration trees that
// conf.Parse reads.
package textfs

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// FS is a read-only file system: the contents by slash-separated name. Its directories are the
// parents of the names.
type FS map[string]string

var _ fs.ReadDirFS = FS(nil)

// Open implements fs.FS. A directory answers Stat only: ReadDir lists it.
func (t FS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if text, ok := t[name]; ok {
		return &file{Reader: strings.NewReader(text), info: info{path.Base(name), len(text), 0o644},
			text: text}, nil
	}
	for other := range t {
		if name == "." || strings.HasPrefix(other, name+"/") {
			return &file{Reader: strings.NewReader(""), info: info{path.Base(name), 0,
				fs.ModeDir | 0o755}}, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadDir implements fs.ReadDirFS.
func (t FS) ReadDir(name string) ([]fs.DirEntry, error) {
	prefix := name + "/"
	if name == "." {
		prefix = ""
	}
	found := map[string]info{}
	for other, text := range t {
		rest, ok := strings.CutPrefix(other, prefix)
		if !ok {
			continue
		}
		if directory, _, below := strings.Cut(rest, "/"); below {
			found[directory] = info{directory, 0, fs.ModeDir | 0o755}
		} else {
			found[rest] = info{rest, len(text), 0o644}
		}
	}
	if len(found) == 0 && name != "." {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	entries := make([]fs.DirEntry, 0, len(found))
	for _, info := range found {
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		return strings.Compare(a.Name(), b.Name())
	})
	return entries, nil
}

type file struct {
	*strings.Reader
	info
	text string
}

// Text is the whole content, for conf.Parse.
func (f *file) Text() string { return f.text }

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }

// Size is the one of the FileInfo; the Reader has one too.
func (f *file) Size() int64 { return f.info.Size() }

type info struct {
	name string
	size int
	mode fs.FileMode
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(i.size) }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }

// WriteTo writes a text through a small buffer: io.WriteString would copy the whole of a large
// text. It is for hashes: errors of w are not reported.
func WriteTo(w io.Writer, text string) {
	var buffer [16 << 10]byte
	for len(text) > 0 {
		n := copy(buffer[:], text)
		w.Write(buffer[:n])
		text = text[n:]
	}
}
