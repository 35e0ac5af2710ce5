package untar

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// Limits bound the unpacked content of an archive.
type Limits struct {
	// Bytes is the size of all files, holes included. The default is 2 GiB.
	Bytes int64
	// Entries are files, directories and links. The default is 500,000.
	Entries int
}

const (
	defaultBytes   = 2 << 30
	defaultEntries = 500_000
)

// Archive unpacks a tar archive, plain or compressed with gzip or zstd, below dir, which it makes
// if it is missing. It takes files (sparse ones, too), directories, symbolic and hard links, each
// name once, as complete only when the end-of-archive marker has been read, two blocks of zeros
// (POSIX.1, pax), and nothing but zeros follows. After an error dir holds a part. The error matches
// ErrFormat, ErrTooLarge or ErrInvalid where the archive is at fault, and wraps the error of r.
func Archive(dir string, r io.Reader, limits Limits) (err error) {
	if limits.Bytes <= 0 {
		limits.Bytes = defaultBytes
	}
	if limits.Entries <= 0 {
		limits.Entries = defaultEntries
	}
	plain, done, err := decompress(r)
	if err != nil {
		return err
	}
	defer done()
	w, err := open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	a := &archive{limits: limits, counted: &counter{r: plain}, writer: w}
	a.tar = tar.NewReader(a.counted)
	return blame(a.unpack())
}

// decompress returns the tar archive inside of r.
func decompress(r io.Reader) (plain io.Reader, done func(), err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(blockSize)
	if err != nil && err != io.EOF {
		return nil, nil, blame(readError{err})
	}
	if len(head) == 0 {
		return nil, nil, fmt.Errorf("nothing was sent: want a tar archive: %w", ErrInvalid)
	}
	for _, f := range formats {
		if !bytes.HasPrefix(head, []byte(f.magic)) {
			continue
		}
		if f.open == nil {
			return nil, nil, fmt.Errorf("this is %s: want a tar archive, plain or compressed "+
				"with gzip or zstd: %w", f.name, ErrFormat)
		}
		plain, done, err := f.open(b)
		if err != nil {
			err = fmt.Errorf("%s: %w: %w", f.name, err, ErrInvalid)
		}
		return plain, done, err
	}
	return b, func() {}, nil
}

// formats are the forms of compression, recognised by their first bytes.
var formats = []struct {
	magic, name string
	open        func(r io.Reader) (io.Reader, func(), error)
}{
	{"\x1f\x8b", "gzip", func(r io.Reader) (io.Reader, func(), error) {
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	}},
	{"\x28\xb5\x2f\xfd", "zstd", func(r io.Reader) (io.Reader, func(), error) {
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}},
	{"BZh", "bzip2", nil},
	{"\xfd7zXZ\x00", "xz", nil},
	{"PK\x03\x04", "a zip archive", nil},
	{"PK\x05\x06", "a zip archive", nil},
	{"7z\xbc\xaf\x27\x1c", "a 7z archive", nil},
}

const blockSize = 512 // of a tar archive

// maxPath bounds the path of an entry: below any directory of a server the whole path stays shorter
// than PATH_MAX (4096, limits.h).
const maxPath = 1024

// archive is one that is being unpacked.
type archive struct {
	limits  Limits
	counted *counter
	tar     *tar.Reader
	writer  *writer

	entries, files int
	bytes          int64
}

func (a *archive) unpack() error {
	for {
		before := a.counted.n
		header, err := a.tar.Next()
		if err == io.EOF {
			return a.end(a.counted.n - before)
		}
		short := err != nil && a.counted.n < blockSize && a.counted.err == io.EOF
		if a.entries == 0 && (short || errors.Is(err, tar.ErrHeader)) {
			return fmt.Errorf("this is no tar archive (%w): want one, plain or compressed with "+
				"gzip or zstd: %w", err, ErrFormat)
		}
		if err != nil {
			return readError{fmt.Errorf("after %d entries: %w", a.entries, err)}
		}
		if err := a.add(header); err != nil {
			return entryError(header, err)
		}
	}
}

// end checks that the archive is whole: last is how many bytes were read when the end was met.
func (a *archive) end(last int64) error {
	// The padding of the entry before is shorter than a block; the marker has two.
	if last < 2*blockSize {
		return fmt.Errorf("after %d entries it ends without the end-of-archive marker: was the "+
			"upload cut off?", a.entries)
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := a.counted.Read(buffer)
		if !zero(buffer[:n]) {
			return fmt.Errorf("after the end-of-archive marker more follows: send one archive")
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return readError{err}
		}
		if a.files == 0 { // nothing is to come, however long it is
			break
		}
	}
	if a.files == 0 {
		return fmt.Errorf("the archive holds no file")
	}
	return nil
}

func (a *archive) add(header *tar.Header) error {
	// git archive writes one: it is about others, no entry itself
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if a.entries++; a.entries > a.limits.Entries {
		return fmt.Errorf("more than %d entries: %w", a.limits.Entries, ErrTooLarge)
	}
	if a.bytes += header.Size; header.Size < 0 || a.bytes < 0 || a.bytes > a.limits.Bytes {
		return fmt.Errorf("it makes the files more than %d bytes: %w", a.limits.Bytes, ErrTooLarge)
	}
	name := clean(header.Name)
	if header.Typeflag != tar.TypeDir {
		a.files++
	}
	switch {
	case name == "." && header.Typeflag == tar.TypeDir:
		return nil
	case name == ".":
		return errors.New("a file needs a name")
	case name == ".." || strings.HasPrefix(name, "../"):
		return errors.New("it stands outside of the archive's root")
	case len(name) > maxPath:
		return fmt.Errorf("its path has %d bytes: want at most %d", len(name), maxPath)
	}
	switch header.Typeflag {
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return errors.New("devices and pipes are not taken: leave it out")
	}
	return a.writer.write(name, header, a.tar)
}

// counter counts the bytes that are read and keeps the error that ended the reading.
type counter struct {
	r   io.Reader
	n   int64
	err error
}

func (c *counter) Read(data []byte) (int, error) {
	n, err := c.r.Read(data)
	c.n, c.err = c.n+int64(n), err
	return n, err
}

// blame adds ErrInvalid to an error of the archive; one of this machine stays as it is.
func blame(err error) error {
	switch {
	case err == nil || errors.Is(err, ErrFormat) || errors.Is(err, ErrTooLarge):
		return err
	case errors.As(err, new(readError)):
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	for _, fault := range []error{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.ENFILE,
		syscall.ENOMEM, syscall.EACCES,
	} {
		if errors.Is(err, fault) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", err, ErrInvalid)
}
