package place

import (
	"errors"
	"io"
	"io/fs"
	"unsafe"
)

// ReadFile reads a regular file of at most limit bytes. The error matches [ErrInvalid] when the
// file is longer or something else has the name: to open a pipe would wait for a writer.
func ReadFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	return readFile(func(name string) (io.ReadCloser, int64, error) {
		return OpenFile(fsys, name)
	}, name, limit)
}

// opener opens a regular file and returns its size in bytes.
type opener func(name string) (f io.ReadCloser, size int64, err error)

func readFile(open opener, name string, limit int64) ([]byte, error) {
	f, size, err := open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := ReadOn(nil, f, size, limit+1)
	if err == nil && int64(len(b)) > limit {
		err = invalid(name, "longer than %d bytes", limit)
	}
	return b, err
}

// ReadText is [ReadFile] for content that is used as a string; the content is not copied.
func ReadText(fsys fs.FS, name string, limit int64) (string, error) {
	b, err := ReadFile(fsys, name, limit)
	return asText(b), err
}

// asText returns b as a string without a copy. Nothing else has b.
func asText(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// OpenFile opens a regular file and returns its size in bytes. The error matches [ErrInvalid] when
// something else has the name.
func OpenFile(fsys fs.FS, name string) (f io.ReadCloser, size int64, err error) {
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

// ReadOn appends to b the bytes of from until its end, and reads no further than limit bytes of b
// in all. size is the number of bytes that are expected in all, or 0; that many are made room for
// at once.
func ReadOn(b []byte, from io.Reader, size, limit int64) ([]byte, error) {
	for int64(len(b)) < limit {
		if len(b) == cap(b) {
			room := max(int(min(size, limit))+1, 2*len(b), 512) // and one more, to see the end
			b = append(make([]byte, 0, room), b...)
		}
		n, err := from.Read(b[len(b):min(cap(b), int(limit))])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
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
		return "directory"
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
