package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// magics are the first bytes of files of other types that are offered in the place of a tar
// archive.
var magics = []struct{ magic, what string }{
	{"PK\x03\x04", "a zip archive"},
	{"PK\x05\x06", "an empty zip archive"},
	{"\xfd7zXZ\x00", "compressed with xz"},
	{"\x28\xb5\x2f\xfd", "compressed with zstd"},
	{"\x04\x22\x4d\x18", "compressed with lz4"},
	{"BZh", "compressed with bzip2"},
	{"LZIP", "compressed with lzip"},
	{"\x1f\x9d", "compressed with compress"},
	{"\x1f\x8b", "compressed with gzip once more"},
	{"7z\xbc\xaf\x27\x1c", "a 7z archive"},
	{"Rar!", "a RAR archive"},
	{"!<arch>", "an ar archive, or a Debian package"},
	{"070701", "a cpio archive"},
	{"\xed\xab\xee\xdb", "an RPM package"},
}

// block is the unit of a tar archive.
const block = 512

// checkType refuses input that does not begin as a tar archive does, with an error that names its
// type. It reads no more than one block ahead. An archive without files is let through.
func checkType(r *bufio.Reader) error {
	head, err := r.Peek(block)
	if err != nil && err != io.EOF {
		return err
	}
	if len(head) == 0 {
		return fmt.Errorf("empty, want a tar archive: %w", ErrInvalid)
	}
	if len(head) == block {
		if _, err := tar.NewReader(bytes.NewReader(head)).Next(); err != tar.ErrHeader {
			return nil // errors behind a good header are found by reading
		}
	}
	const want = "want a tar archive, plain or compressed with gzip"
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return fmt.Errorf("%s, %s: %w", m.what, want, ErrInvalid)
		}
	}
	text := bytes.ToLower(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n"))
	switch {
	case bytes.HasPrefix(text, []byte("<!doctype html")), bytes.HasPrefix(text, []byte("<html")),
		bytes.Contains(text, []byte("<head")), bytes.Contains(text, []byte("<body")):
		return fmt.Errorf("an HTML page, such as a login or an error, %s: %w", want, ErrInvalid)
	case bytes.HasPrefix(text, []byte("<")):
		return fmt.Errorf("an XML text, %s: %w", want, ErrInvalid)
	case bytes.HasPrefix(text, []byte("{")), bytes.HasPrefix(text, []byte("[")):
		return fmt.Errorf("a JSON text, %s: %w", want, ErrInvalid)
	case len(head) < block:
		return fmt.Errorf("ends after %d bytes, %s: %w", len(head), want, ErrInvalid)
	}
	return fmt.Errorf("of no known type, %s: %w", want, ErrInvalid)
}
