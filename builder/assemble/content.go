package assemble

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sluice-deploy/sluice/builder"
)

// baseFiles reads files of a base image. A layer is spooled when the first file of it is asked for.
// It serves one build, one call after the other.
type baseFiles struct {
	image v1.Image
	dir   string // for spooled layers
	raw   map[int]string
}

// open opens the content of a file of the base image.
func (b *baseFiles) open(n node) (io.ReadCloser, error) {
	if _, ok := b.raw[n.layer]; !ok {
		if err := b.spool(n.layer); err != nil {
			return nil, fmt.Errorf("layer %d of the base image: %w", n.layer+1, err)
		}
	}
	f, err := os.Open(b.raw[n.layer])
	if err != nil {
		return nil, err
	}
	return struct {
		*io.SectionReader
		io.Closer
	}{io.NewSectionReader(f, n.offset, n.size), f}, nil
}

// spool writes the uncompressed layer to a file.
func (b *baseFiles) spool(number int) error {
	layers, err := b.image.Layers()
	if err != nil {
		return err
	}
	r, err := layers[number].Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.CreateTemp(b.dir, "base-*.tar")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	if b.raw == nil {
		b.raw = map[int]string{}
	}
	b.raw[number] = filepath.Clean(f.Name())
	return f.Close()
}

// open opens the content of a file of the image as it is so far.
func (s *stage) open(n node) (io.ReadCloser, error) {
	switch {
	case n.device:
		return nil, fmt.Errorf("it is no regular file: %w", builder.ErrUnsupported)
	case n.made != nil:
		return n.made.open()
	}
	return s.baseFiles.open(n)
}

// maxAccounts bounds /etc/passwd and /etc/group of a base image, in bytes.
const maxAccounts = 4 << 20

// readFile returns the content of a small file of the image, and nil when there is none.
func (s *stage) readFile(name string) ([]byte, error) {
	at, err := s.tree.follow(name)
	if err != nil {
		return nil, err
	}
	n, ok := s.tree[at]
	if !ok || n.kind != isFile || n.device {
		return nil, nil
	}
	if n.size > maxAccounts {
		return nil, fmt.Errorf("%s of the image has %d bytes, want %d at most: %w", name, n.size,
			maxAccounts, builder.ErrUnsupported)
	}
	r, err := s.open(n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// imageFS shows the files of an image as COPY --from reads them. Its names have no link in them: it
// follows none.
type imageFS struct {
	stage *stage
	below map[string][]string // names in a directory, sorted
}

var _ fs.ReadDirFS = (*imageFS)(nil)
var _ fs.ReadLinkFS = (*imageFS)(nil)

func newImageFS(s *stage) *imageFS {
	f := &imageFS{stage: s, below: map[string][]string{}}
	for name := range s.tree {
		if name != "." {
			f.below[path.Dir(name)] = append(f.below[path.Dir(name)], path.Base(name))
		}
	}
	for _, names := range f.below {
		slices.Sort(names)
	}
	return f
}

func (f *imageFS) node(op, name string) (node, error) {
	if name == "." {
		return node{kind: isDir, mode: 0o755}, nil
	}
	n, ok := f.stage.tree[name]
	if !ok {
		return node{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return n, nil
}

// Open implements fs.FS.
func (f *imageFS) Open(name string) (fs.File, error) {
	n, err := f.node("open", name)
	if err != nil {
		return nil, err
	}
	r, err := f.stage.open(n)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return imageFile{ReadCloser: r, info: nodeInfo{path.Base(name), n}}, nil
}

// Lstat implements fs.ReadLinkFS.
func (f *imageFS) Lstat(name string) (fs.FileInfo, error) {
	n, err := f.node("lstat", name)
	return nodeInfo{path.Base(name), n}, err
}

// ReadLink implements fs.ReadLinkFS.
func (f *imageFS) ReadLink(name string) (string, error) {
	n, err := f.node("readlink", name)
	return n.link, err
}

// ReadDir implements fs.ReadDirFS.
func (f *imageFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if _, err := f.node("readdir", name); err != nil {
		return nil, err
	}
	entries := make([]fs.DirEntry, 0, len(f.below[name]))
	for _, base := range f.below[name] {
		entries = append(entries, fs.FileInfoToDirEntry(
			nodeInfo{base, f.stage.tree[path.Join(name, base)]}))
	}
	return entries, nil
}

type imageFile struct {
	io.ReadCloser
	info nodeInfo
}

func (f imageFile) Stat() (fs.FileInfo, error) { return f.info, nil }

// nodeInfo is a node as fs.FileInfo; Sys returns the node.
type nodeInfo struct {
	name string
	node node
}

func (i nodeInfo) Name() string       { return i.name }
func (i nodeInfo) Size() int64        { return i.node.size }
func (i nodeInfo) ModTime() time.Time { return time.Time{} }
func (i nodeInfo) IsDir() bool        { return i.node.kind == isDir }
func (i nodeInfo) Sys() any           { return i.node }

// Mode has the type and the permissions; the other bits are in the node.
func (i nodeInfo) Mode() fs.FileMode {
	mode := fs.FileMode(i.node.mode & 0o777)
	switch {
	case i.node.kind == isDir:
		return mode | fs.ModeDir
	case i.node.kind == isLink:
		return mode | fs.ModeSymlink
	case i.node.device:
		return mode | fs.ModeDevice
	}
	return mode
}
