package nginxsync

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Bundle is one snapshot of a production tree. It does not change.
type Bundle struct {
	Files  map[string]BundleFile // by slash-separated name
	Digest string                // of names, modes and contents; made by NewBundle
}

// BundleFile is one file of a bundle.
type BundleFile struct {
	Mode fs.FileMode // permission bits
	Text string
}

// BundleSource says what the production tree is. It is pulled: the caller keeps the digest that it has and asks for another.
type BundleSource interface {
	// Fetch blocks until the production tree's digest differs from after, and returns the tree. An after of "" returns the
	// current tree as soon as there is one. The error is the context's cause when ctx ends; any other error is worth
	// another try later.
	Fetch(ctx context.Context, after string) (*Bundle, error)
}

// ErrBundle is in the chain of errors about a bundle that is refused.
var ErrBundle = errors.New("bundle refused")

// BundleLimits bound what is accepted. The zero value is ready to use.
type BundleLimits struct {
	Files int   // The default is 20,000.
	Bytes int64 // of all contents together. The default is 256 MiB.
}

func (l BundleLimits) withDefaults() BundleLimits {
	if l.Files <= 0 {
		l.Files = 20_000
	}
	if l.Bytes <= 0 {
		l.Bytes = 256 << 20
	}
	return l
}

// NewBundle checks the names and takes the digest.
func NewBundle(files map[string]BundleFile, limits BundleLimits) (*Bundle, error) {
	limits = limits.withDefaults()
	if len(files) > limits.Files {
		return nil, fmt.Errorf("%d files, limit is %d: %w", len(files), limits.Files, ErrBundle)
	}
	h := sha256.New()
	var size int64
	for _, name := range sortedKeys(files) {
		if why := badName(name); why != "" {
			return nil, fmt.Errorf("file %q: %s: %w", name, why, ErrBundle)
		}
		f := files[name]
		if size += int64(len(f.Text)); size > limits.Bytes {
			return nil, fmt.Errorf("more than %d bytes: %w", limits.Bytes, ErrBundle)
		}
		fmt.Fprintf(h, "%q %o %d\n", name, f.Mode.Perm(), len(f.Text))
		io.WriteString(h, f.Text)
	}
	return &Bundle{Files: files, Digest: hex.EncodeToString(h.Sum(nil))}, nil
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
	return textFS(texts)
}

// FolderSource is a BundleSource that looks at a folder from time to time. A change is believed when two looks in a row see
// the same, so that a writer who is at work is left to finish.
type FolderSource struct {
	FS     fs.FS         // os.DirFS of the folder
	Every  time.Duration // between two looks. The default is two seconds.
	Settle time.Duration // between the two looks that must see the same. The default is half a second.
	Limits BundleLimits
}

var _ BundleSource = (*FolderSource)(nil)

// Fetch implements BundleSource. A symbolic link is refused: it would reach out of the folder.
func (s *FolderSource) Fetch(ctx context.Context, after string) (*Bundle, error) {
	every, settle := cmp.Or(s.Every, 2*time.Second), cmp.Or(s.Settle, 500*time.Millisecond)
	seen := ""
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b, err := ReadBundle(s.FS, s.Limits)
		if err != nil || b.Digest != after && b.Digest == seen {
			return b, err
		}
		wait := every
		if b.Digest != after {
			seen, wait = b.Digest, settle
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// ReadBundle takes a snapshot of all files below fsys.
func ReadBundle(fsys fs.FS, limits BundleLimits) (*Bundle, error) {
	limits = limits.withDefaults()
	files := map[string]BundleFile{}
	left := limits.Bytes
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("file %q: %s, want regular files and folders only: %w", name, d.Type(), ErrBundle)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if left -= info.Size(); left < 0 || len(files) >= limits.Files {
			return fmt.Errorf("more than %d files or %d bytes: %w", limits.Files, limits.Bytes, ErrBundle)
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		files[name] = BundleFile{Mode: info.Mode().Perm(), Text: string(text)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return NewBundle(files, limits)
}

// assets are the files of the bundle that are no part of the configuration's text, such as password files and pages,
// without private keys: those stay in production.
func (b *Bundle) assets(config map[string]string) map[string]BundleFile {
	assets := map[string]BundleFile{}
	for name, f := range b.Files {
		if _, ok := config[name]; !ok && !secret(name, f.Text) {
			assets[name] = f
		}
	}
	return assets
}

func secret(name, text string) bool {
	return slices.Contains([]string{".key", ".p12", ".pfx", ".jks"}, path.Ext(name)) || strings.Contains(text, "PRIVATE KEY-----")
}
