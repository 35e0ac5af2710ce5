package assemble

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sluice-deploy/sluice/builder"
)

// entry is one file, directory or link of a layer.
type entry struct {
	kind  kind
	mode  int64
	owner owner
	link  string
	size  int64
	open  func() (io.ReadCloser, error)
}

// changes collects the changes of one instruction to the image's files, by name.
type changes struct {
	tree    tree
	entries map[string]entry
}

// makeDir makes the directory name and the missing directories above it, and returns its name
// without links.
func (c *changes) makeDir(name string, o owner) (string, error) {
	var made []string
	at, err := c.tree.resolve(name, func(dir string) error {
		made = append(made, dir)
		return nil
	})
	for _, dir := range made {
		c.set(dir, entry{kind: isDir, mode: 0o755, owner: o})
	}
	return at, err
}

// set notes that the layer has e at name.
func (c *changes) set(name string, e entry) {
	c.entries[name] = e
	c.tree[name] = node{kind: e.kind, link: e.link, mode: e.mode, owner: e.owner, size: e.size,
		made: &e}
}

// put places e at name. A link in the directories above it is followed, and missing directories are
// made for the owner parents; the entry at name itself is replaced, a directory only by a directory.
func (c *changes) put(name string, e entry, parents owner) error {
	if base := path.Base(name); strings.HasPrefix(base, whiteoutPrefix) {
		return fmt.Errorf("%s: layers keep names that start with %s for deleted files: rename it",
			name, whiteoutPrefix)
	}
	dir, err := c.makeDir(path.Dir(clean(name)), parents)
	if err != nil {
		return err
	}
	at := path.Join(dir, path.Base(name))
	old, ok := c.tree[at]
	switch {
	case ok && e.kind == isDir && old.kind == isLink:
		return fmt.Errorf("/%s is a symbolic link in the image, to %s, and a directory in the build "+
			"context: copy the directory's content to the target of the link", at, old.link)
	case ok && e.kind == isDir && old.kind != isDir:
		return fmt.Errorf("/%s is a file in the image, and a directory in the build context", at)
	case ok && e.kind != isDir && old.kind == isDir:
		return fmt.Errorf("/%s is a directory in the image, and a file in the build context", at)
	}
	c.set(at, e)
	return nil
}

// replace places e at name, and removes the old entry unless both are directories. A link in the
// directories above it is followed.
func (c *changes) replace(name string, e entry) error {
	if base := path.Base(name); strings.HasPrefix(base, whiteoutPrefix) {
		return fmt.Errorf("%s: layers keep names that start with %s for deleted files: rename it: %w",
			name, whiteoutPrefix, builder.ErrInvalid)
	}
	dir, err := c.makeDir(path.Dir(clean(name)), owner{})
	if err != nil {
		return err
	}
	at := path.Join(dir, path.Base(name))
	if old, ok := c.tree[at]; ok && old.kind == isDir && e.kind != isDir {
		c.tree.removeBelow(at)
		maps.DeleteFunc(c.entries, func(name string, _ entry) bool {
			return strings.HasPrefix(name, at+"/")
		})
	}
	c.set(at, e)
	return nil
}

// write spools the changes as a tar in which only names, content, modes and owners count: the same
// changes give the same bytes on any machine.
func (c *changes) write(ctx context.Context, dir string, epoch time.Time) (_ *layer, err error) {
	f, err := os.CreateTemp(dir, "layer-*.tar")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<16)
	tw := tar.NewWriter(buf)
	if err := c.writeTo(ctx, tw, epoch); err != nil {
		return nil, err
	}
	if err := errors.Join(tw.Close(), buf.Flush()); err != nil {
		return nil, err
	}
	return &layer{raw: f.Name(), diffID: hashOf(sum)}, nil
}

// writeTo writes the entries by name, which puts a directory before its content.
func (c *changes) writeTo(ctx context.Context, tw *tar.Writer, epoch time.Time) error {
	for _, name := range slices.Sorted(maps.Keys(c.entries)) {
		if err := writeEntry(ctx, tw, name, c.entries[name], epoch); err != nil {
			return err
		}
	}
	return nil
}

func writeEntry(ctx context.Context, tw *tar.Writer, name string, e entry, epoch time.Time) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	h := &tar.Header{Name: name, Mode: e.mode, Uid: e.owner.uid, Gid: e.owner.gid, ModTime: epoch,
		Size: e.size}
	switch e.kind {
	case isDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case isLink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
	default:
		h.Typeflag = tar.TypeReg
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if e.open == nil {
		return nil
	}
	r, err := e.open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(tw, reader{ctx, io.LimitReader(r, e.size+1)})
	if err == nil && n < e.size {
		err = fmt.Errorf("has %d bytes, had %d a moment ago", n, e.size)
	}
	if errors.Is(err, tar.ErrWriteTooLong) {
		err = fmt.Errorf("has grown over the %d bytes it had a moment ago", e.size)
	}
	if err != nil {
		return fmt.Errorf("read the file for /%s: %w", name, err)
	}
	return nil
}

// reader ends with the context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// layer is a spooled layer. It is compressed when its bytes are asked for, or a digest that
// was not kept.
type layer struct {
	raw       string // file that holds the tar
	diffID    v1.Hash
	mediaType types.MediaType
	known     *digests

	mu     sync.Mutex
	packed string   // file that holds the compressed tar, "" before it is needed
	id     packedAs // of packed
}

var _ v1.Layer = (*layer)(nil)

// packedAs names the compressed form of a layer.
type packedAs struct {
	digest v1.Hash
	size   int64
}

// digests keeps the digests of compressed layers, so that an unchanged layer is never compressed
// again.
type digests struct {
	mu sync.Mutex
	of map[v1.Hash]packedAs
}

// maxDigests bounds digests; at 150 bytes each they stay under 2 MB.
const maxDigests = 10_000

func (d *digests) get(diffID v1.Hash) (packedAs, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.of[diffID]
	return p, ok
}

func (d *digests) put(diffID v1.Hash, p packedAs) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil || len(d.of) >= maxDigests {
		d.of = map[v1.Hash]packedAs{}
	}
	d.of[diffID] = p
}

func (l *layer) DiffID() (v1.Hash, error)             { return l.diffID, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return l.mediaType, nil }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.raw) }

func (l *layer) Digest() (v1.Hash, error) {
	p, err := l.identity()
	return p.digest, err
}

func (l *layer) Size() (int64, error) {
	p, err := l.identity()
	return p.size, err
}

func (l *layer) Compressed() (io.ReadCloser, error) {
	if err := l.pack(); err != nil {
		return nil, err
	}
	return os.Open(l.packed)
}

func (l *layer) identity() (packedAs, error) {
	if p, ok := l.known.get(l.diffID); ok {
		return p, nil
	}
	err := l.pack()
	return l.id, err
}

// pack compresses the layer once. BestSpeed costs a tenth in size and saves most of the time of a
// build.
func (l *layer) pack() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.packed != "" {
		return nil
	}
	in, err := os.Open(l.raw)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(l.raw + ".gz")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := sha256.New()
	size := counter{}
	zw, err := gzip.NewWriterLevel(io.MultiWriter(out, sum, &size), gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(zw, in); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return err
	}
	l.packed, l.id = out.Name(), packedAs{digest: hashOf(sum), size: size.n}
	l.known.put(l.diffID, l.id)
	return nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func hashOf(sum hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum.Sum(nil))}
}
