package bundle

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/internal/textfs"
)

// Bundle is one snapshot of a production tree. It does not change.
type Bundle struct {
	Files  map[string]File // by slash-separated name
	Digest string          // of names, modes and contents; made by New
}

// File is one file of a bundle.
type File struct {
	Mode fs.FileMode // permission bits
	Text string
}

// Source supplies the production tree. It is pulled: the caller keeps the digest that it has and
// asks for another. bundletest.Run holds an implementation to the contract. An implementation is
// safe for concurrent use.
type Source interface {
	// Fetch blocks until the production tree's digest differs from after, and returns the tree. An
	// after of "" returns the current tree as soon as there is one. The error is the context's
	// cause when ctx ends; any other error is worth another try later, and means that the
	// production tree is not known, never that it is gone: ErrInvalid is in the chain when there is
	// one that is refused.
	Fetch(ctx context.Context, after string) (*Bundle, error)
}

// ErrInvalid is in the chain of errors about a bundle that is refused.
var ErrInvalid = errors.New("invalid")

// Limits bound the size of a bundle. The zero value is ready to use.
type Limits struct {
	Files int   // The default is DefaultFiles.
	Bytes int64 // of all contents together. The default is DefaultBytes.
	// FileBytes bounds one file, and so the memory that one look uses at a time. The default is
	// DefaultFileBytes, or Bytes where that is less.
	FileBytes int64
}

// The default limits of a bundle.
const (
	DefaultFiles     = 20_000
	DefaultBytes     = 256 << 20
	DefaultFileBytes = 64 << 20
)

// Validate refuses negative limits with ErrInvalid.
func (l Limits) Validate() error {
	if l.Files < 0 || l.Bytes < 0 || l.FileBytes < 0 {
		return fmt.Errorf("%d files, %d bytes, %d of one file: want 0 (default %d, %d and %d) or "+
			"more: %w",
			l.Files, l.Bytes, l.FileBytes, DefaultFiles, DefaultBytes, DefaultFileBytes, ErrInvalid)
	}
	return nil
}

// WithDefaults returns the limits with the defaults in the place of zeros.
func (l Limits) WithDefaults() Limits {
	l.Files = cmp.Or(l.Files, DefaultFiles)
	l.Bytes = cmp.Or(l.Bytes, DefaultBytes)
	l.FileBytes = min(cmp.Or(l.FileBytes, DefaultFileBytes), l.Bytes)
	return l
}

// New checks the names and the sizes and takes the digest. A bundle without a file is refused: it
// stands for a source that lost its content, never for a production Nginx.
func New(files map[string]File, limits Limits) (*Bundle, error) {
	if err := limits.Validate(); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	limits = limits.WithDefaults()
	names := slices.Sorted(maps.Keys(files))
	if err := checkNames(names, func(name string) bool {
		_, ok := files[name]
		return ok
	}, limits); err != nil {
		return nil, err
	}
	h := sha256.New()
	var size int64
	for _, name := range names {
		f := files[name]
		if err := limits.room(name, int64(len(f.Text)), &size); err != nil {
			return nil, err
		}
		writeHead(h, name, f.Mode, int64(len(f.Text)))
		textfs.WriteTo(h, f.Text)
	}
	return &Bundle{Files: files, Digest: hex.EncodeToString(h.Sum(nil))}, nil
}

// writeHead writes the line before a file's content in the text whose hash is the digest.
func writeHead(h io.Writer, name string, mode fs.FileMode, size int64) {
	fmt.Fprintf(h, "%q %o %d\n", name, mode.Perm(), size)
}

// checkNames refuses a set of names that is empty, too large, or no set of files.
func checkNames(names []string, has func(string) bool, limits Limits) error {
	switch {
	case len(names) == 0:
		return fmt.Errorf("no files: %w", ErrInvalid)
	case len(names) > limits.Files:
		return fmt.Errorf("%d files, limit is %d: %w", len(names), limits.Files, ErrInvalid)
	}
	for _, name := range names {
		if why := badName(name); why != "" {
			return fmt.Errorf("file %q: %s: %w", name, why, ErrInvalid)
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if has(dir) {
				return fmt.Errorf("file %q: %q is a file and a directory: %w", name, dir,
					ErrInvalid)
			}
		}
	}
	return nil
}

// room refuses a file that is too large, alone or with those counted in total before it.
func (l Limits) room(name string, size int64, total *int64) error {
	if size > l.FileBytes {
		return fmt.Errorf("file %q: %d bytes, limit of one file is %d: %w", name, size, l.FileBytes,
			ErrInvalid)
	}
	if *total += size; *total > l.Bytes {
		return fmt.Errorf("file %q: more than %d bytes in all files up to it: %w", name, l.Bytes,
			ErrInvalid)
	}
	return nil
}

func badName(name string) string {
	switch {
	case !fs.ValidPath(name) || name == ".":
		return "want a relative path without . and .."
	case len(name) > 1024:
		return "the name is longer than 1024 bytes"
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "the name has control characters"
	}
	return ""
}

// FS is the bundle as a file system.
func (b *Bundle) FS() fs.FS {
	texts := make(map[string]string, len(b.Files))
	for name, f := range b.Files {
		texts[name] = f.Text
	}
	return textfs.FS(texts)
}
