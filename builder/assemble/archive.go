package assemble

import (
	"archive/tar"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/klauspost/compress/zstd"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
)

// compressions are the first bytes of compressed archives. A nil open is one that is not read here.
var compressions = []struct {
	name  string
	magic []byte
	open  func(io.Reader) (io.ReadCloser, error)
}{
	{"gzip", []byte{0x1f, 0x8b}, func(r io.Reader) (io.ReadCloser, error) {
		return gzip.NewReader(r)
	}},
	{"bzip2", []byte("BZh"), func(r io.Reader) (io.ReadCloser, error) {
		return io.NopCloser(bzip2.NewReader(r)), nil
	}},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}},
	{"xz", []byte{0xfd, '7', 'z', 'X', 'Z', 0}, nil},
}

// decompress returns the content of a file that one of compressions made, else the file.
func decompress(r io.Reader) (io.ReadCloser, error) {
	head := make([]byte, 6)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	for _, c := range compressions {
		if !bytes.HasPrefix(head[:n], c.magic) {
			continue
		}
		if c.open == nil {
			return nil, fmt.Errorf("ADD would unpack it, and %s is not read here: pack it with "+
				"gzip or zstd, or COPY it as it is: %w", c.name, builder.ErrUnsupported)
		}
		return c.open(r)
	}
	return io.NopCloser(r), nil
}

// unpack places the entries of an archive below dest, as ADD does: with their modes, and with their
// owners unless --chown says another. An entry replaces the path at its name, a directory a
// directory alone. unpacked is false for a file that is no archive.
func (p placing) unpack(file, dest string) (unpacked bool, err error) {
	archive, err := p.from.files.FS.Open(file)
	if err != nil {
		return false, err
	}
	defer archive.Close()
	plain, err := decompress(archive)
	if errors.Is(err, builder.ErrUnsupported) {
		return false, fmt.Errorf("%s: %w", names.Quote(file), err)
	}
	if err != nil {
		return false, nil
	}
	defer plain.Close()
	spool, err := os.CreateTemp(p.stage.dir, "archive-*.tar")
	if err != nil {
		return false, err
	}
	defer spool.Close()
	r := &positionReader{r: io.TeeReader(reader{p.stage.ctx, plain}, spool)}
	tr := tar.NewReader(r)
	h, err := tr.Next()
	if err != nil {
		return false, nil
	}
	top, err := p.makeDir(dest, p.owner)
	if err != nil {
		return false, err
	}
	for ; err == nil; h, err = tr.Next() {
		if err := p.unpackEntry(spool.Name(), r.position, top, h); err != nil {
			return false, fmt.Errorf("archive %s: entry %s: %w", names.Quote(file),
				names.Quote(h.Name), err)
		}
	}
	if !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("archive %s: %w: %w", names.Quote(file), err, builder.ErrInvalid)
	}
	return true, spool.Close()
}

// unpackEntry places one entry, whose content is in the spooled file at the offset.
func (p placing) unpackEntry(spool string, offset int64, top string, h *tar.Header) error {
	name := path.Clean(h.Name)
	if name == ".." || len(name) > 2 && name[:3] == "../" {
		return fmt.Errorf("leaves the directory that the archive is unpacked in: %w",
			builder.ErrInvalid)
	}
	e := entry{kind: isFile, mode: h.Mode & 0o7777, owner: owner{h.Uid, h.Gid}, size: h.Size}
	if p.chown {
		e.owner = p.owner
	}
	e.open = func() (io.ReadCloser, error) {
		f, err := os.Open(spool)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(f, offset, e.size), f}, nil
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeDir:
		e = entry{kind: isDir, mode: e.mode, owner: e.owner}
		if path.Clean("/"+h.Name) == "/" {
			return nil // the directory that the archive is unpacked in stays as it is
		}
	case tar.TypeSymlink:
		e = entry{kind: isLink, mode: 0o777, owner: e.owner, link: h.Linkname}
	case tar.TypeLink:
		n, ok := p.tree[path.Join(top, clean(h.Linkname))]
		if !ok || n.kind != isFile {
			return fmt.Errorf("is a hard link to %s, which is no file before it: %w",
				names.Quote(h.Linkname), builder.ErrInvalid)
		}
		e.size = n.size
		e.open = func() (io.ReadCloser, error) { return p.stage.open(n) }
	case tar.TypeReg:
	default:
		return fmt.Errorf("is of type %q: only files, directories and links are unpacked: %w",
			h.Typeflag, builder.ErrUnsupported)
	}
	return p.replace(path.Join("/", top, name), e)
}
