package place

import (
	"bytes"
	"io"
	"io/fs"
	"strings"
)

// ReadFile reads a regular file of at most limit bytes. The error matches [ErrInvalid] when the
// file is longer or something else has the name: to open a pipe would wait for a writer.
func ReadFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	var b bytes.Buffer
	err := readInto(&b, fsys, name, limit)
	return b.Bytes(), err
}

// ReadText is [ReadFile] for content that is used as a string; the content is not copied.
func ReadText(fsys fs.FS, name string, limit int64) (string, error) {
	var b strings.Builder
	err := readInto(&b, fsys, name, limit)
	return b.String(), err
}

// growing is a writer that can reserve space for the bytes to be written.
type growing interface {
	io.Writer
	Grow(n int)
}

func readInto(to growing, fsys fs.FS, name string, limit int64) error {
	f, size, err := OpenFile(fsys, name)
	if err != nil {
		return err
	}
	defer f.Close()
	to.Grow(int(min(size, limit))) // a hint: the files of /proc have the size 0
	n, err := CopyN(to, f, limit+1)
	if err == nil && n > limit {
		err = invalid(name, "longer than %d bytes", limit)
	}
	return err
}

// OpenFile opens a regular file and returns its size in bytes. The error matches [ErrInvalid] when
// something else has the name.
func OpenFile(fsys fs.FS, name string) (f fs.File, size int64, err error) {
	info, err := fs.Stat(fsys, name)
	if err == nil {
		err = mustBeFile(info.Mode(), name)
	}
	if err != nil {
		return nil, 0, err
	}
	f, err = fsys.Open(name)
	return f, info.Size(), err
}

// CopyN copies until the end of from, and limit bytes at most. Unlike [io.CopyN] it is no error
// when there are fewer.
func CopyN(to io.Writer, from io.Reader, limit int64) (int64, error) {
	type plain struct{ io.Writer } // hides ReadFrom, which would not use the buffer
	h := NewHasher()
	defer h.Release()
	return io.CopyBuffer(plain{to}, io.LimitReader(from, limit), h.buffer[:16<<10])
}

// mustBeFile returns an error that matches [ErrInvalid] unless mode is that of a regular file.
func mustBeFile(mode fs.FileMode, name string) error {
	if mode.IsRegular() {
		return nil
	}
	return &fs.PathError{Op: "open", Path: name, Err: notFileError(TypeName(mode.Type()))}
}

// notFileError is the type of the thing that is where a file should be.
type notFileError string

func (e notFileError) Error() string        { return "is a " + string(e) + ", not a file" }
func (e notFileError) Is(target error) bool { return target == ErrInvalid }

// TypeName returns the word for a file type in error messages.
func TypeName(t fs.FileMode) string {
	switch {
	case t.IsDir():
		return "folder"
	case t&fs.ModeNamedPipe != 0:
		return "pipe"
	case t&fs.ModeSocket != 0:
		return "socket"
	case t&fs.ModeDevice != 0:
		return "device"
	case t&fs.ModeSymlink != 0:
		return "link"
	case t.IsRegular():
		return "file"
	}
	return "special file"
}
