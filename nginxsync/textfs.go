package nginxsync

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// textFS is a read-only file system of texts. Folders are those that the names have.
type textFS map[string]string

var _ fs.ReadDirFS = textFS(nil)

// Open implements fs.FS. A folder can be asked for what it is, but not read: ReadDir does that.
func (t textFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if text, ok := t[name]; ok {
		return &textFile{Reader: strings.NewReader(text), textInfo: textInfo{path.Base(name), len(text), 0o644}, text: text}, nil
	}
	for other := range t {
		if name == "." || strings.HasPrefix(other, name+"/") {
			return &textFile{Reader: strings.NewReader(""), textInfo: textInfo{path.Base(name), 0, fs.ModeDir | 0o755}}, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadDir implements fs.ReadDirFS.
func (t textFS) ReadDir(name string) ([]fs.DirEntry, error) {
	prefix := name + "/"
	if name == "." {
		prefix = ""
	}
	found := map[string]textInfo{}
	for other, text := range t {
		rest, ok := strings.CutPrefix(other, prefix)
		if !ok {
			continue
		}
		if folder, _, below := strings.Cut(rest, "/"); below {
			found[folder] = textInfo{folder, 0, fs.ModeDir | 0o755}
		} else {
			found[rest] = textInfo{rest, len(text), 0o644}
		}
	}
	if len(found) == 0 && name != "." {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	entries := make([]fs.DirEntry, 0, len(found))
	for _, info := range found {
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

type textFile struct {
	*strings.Reader
	textInfo
	text string
}

// Text is the whole content, for conf.Parse.
func (f *textFile) Text() string { return f.text }

func (f *textFile) Stat() (fs.FileInfo, error) { return f.textInfo, nil }
func (f *textFile) Close() error               { return nil }

// Size is the one of the FileInfo; the Reader has one too.
func (f *textFile) Size() int64 { return f.textInfo.Size() }

type textInfo struct {
	name string
	size int
	mode fs.FileMode
}

func (i textInfo) Name() string       { return i.name }
func (i textInfo) Size() int64        { return int64(i.size) }
func (i textInfo) Mode() fs.FileMode  { return i.mode }
func (i textInfo) ModTime() time.Time { return time.Time{} }
func (i textInfo) IsDir() bool        { return i.mode.IsDir() }
func (i textInfo) Sys() any           { return nil }
