package unpack

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
)

// File writes the entries of a file: tar, plain or compressed with gzip or zstd, or zip. It
// looks at the content, not at the name.
func File(ctx context.Context, w *tree.Writer, f *os.File) error {
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06")) {
		return unzip(ctx, w, f)
	}
	return Tar(ctx, w, io.MultiReader(bytes.NewReader(head[:n]),
		io.NewSectionReader(f, int64(n), 1<<62)), false)
}

// maxWindow is how much memory zstd may take.
const maxWindow = 128 << 20

// Tar writes the entries of a tar file that is plain or compressed with gzip or zstd. Layer refuses
// the names that layers of images give to deleted files.
func Tar(ctx context.Context, w *tree.Writer, r io.Reader, layer bool) error {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		gz, err := gzip.NewReader(in)
		if err != nil {
			return errors.Join(err, tree.ErrRefused)
		}
		return compressed(plain(ctx, w, gz, layer))
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxMemory(maxWindow),
			zstd.WithDecoderConcurrency(1))
		if err != nil {
			return errors.Join(err, tree.ErrRefused)
		}
		defer z.Close()
		return compressed(plain(ctx, w, z, layer))
	case len(head) == 512 && (bytes.HasPrefix(head[257:], []byte("ustar")) ||
		bytes.Count(head, []byte{0}) == 512):
		return plain(ctx, w, in, layer)
	}
	return fmt.Errorf("it is no tar file, plain or compressed with gzip or zstd, and no zip: %w",
		tree.ErrRefused)
}

// compressed is tree.ErrRefused for an error of a decompressor.
func compressed(err error) error {
	for _, of := range []error{gzip.ErrHeader, gzip.ErrChecksum, zstd.ErrWindowSizeExceeded,
		zstd.ErrDecoderSizeExceeded, zstd.ErrMagicMismatch, zstd.ErrCRCMismatch,
		zstd.ErrReservedBlockType, zstd.ErrUnexpectedBlockSize} {
		if errors.Is(err, of) {
			return errors.Join(err, tree.ErrRefused)
		}
	}
	return err
}

func unzip(ctx context.Context, w *tree.Writer, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return errors.Join(err, tree.ErrRefused)
	}
	limits := w.Limits()
	var size uint64
	for _, e := range z.File {
		if size += e.UncompressedSize64; size > uint64(limits.Bytes) ||
			e.UncompressedSize64 > uint64(limits.Bytes) || len(z.File) > limits.Files {
			return tree.Refuse(e.Name, "is too large: the zip has more than %d bytes or %d files",
				limits.Bytes, limits.Files)
		}
	}
	for _, e := range z.File {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := zipped(w, e); err != nil {
			if errors.Is(err, zip.ErrFormat) || errors.Is(err, zip.ErrAlgorithm) ||
				errors.Is(err, zip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.Join(err, tree.ErrRefused)
			}
			return err
		}
	}
	return nil
}

func zipped(w *tree.Writer, e *zip.File) error {
	const encrypted = 1
	name, err := tree.Clean(e.Name)
	switch {
	case err != nil:
		return err
	case name == "":
		return nil
	case strings.Contains(name, `\`):
		return tree.Refuse(e.Name, `has a "\": write the zip with "/" between directories`)
	case e.Flags&encrypted != 0:
		return tree.Refuse(e.Name, "is encrypted")
	}
	mode := e.Mode()
	if mode.Type() == 0 && mode.Perm() == 0 {
		mode = 0o644 // of a system without modes
	}
	switch mode.Type() {
	case fs.ModeDir:
		if mode.Perm() == 0 {
			mode = 0o755
		}
		return w.Dir(name, mode)
	case 0, fs.ModeSymlink:
	default:
		return tree.Refuse(e.Name, "is a device, a pipe or a socket")
	}
	content, err := e.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	if mode.Type() == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(content, 4097))
		if err != nil {
			return err
		}
		return w.Symlink(name, string(target))
	}
	if err := w.File(name, mode, int64(e.UncompressedSize64), content); err != nil {
		return err
	}
	_, err = content.Read(make([]byte, 1)) // the checksum is looked at behind the last byte
	if errors.Is(err, io.EOF) {
		return nil
	}
	return errors.Join(err, tree.Refuse(e.Name, "has more bytes than it says"))
}
