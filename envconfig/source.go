package envconfig

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

// openSource opens the source directory.
func openSource(name string) (*os.Root, error) {
	root, err := place.OpenRoot(name)
	if err == nil {
		return root, nil
	}
	err = &fs.PathError{Op: "open", Path: name, Err: place.Cause(err)}
	if errors.Is(err, fs.ErrNotExist) || place.IsNotDir(err) {
		return nil, fmt.Errorf("source directory: %w: %w", err, ErrIncomplete)
	}
	return nil, fmt.Errorf("source directory: %w", err)
}

// sourceFileError is an error about one file of the source directory.
func sourceFileError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), place.IsNotDir(err):
		return fmt.Errorf("%s: %w: %w", name, err, ErrIncomplete)
	case errors.Is(err, fs.ErrPermission):
		return unreadableError{name, err}
	}
	return fmt.Errorf("%s: %w", name, err)
}

// unreadableError is the error for a source that this user may not read. It matches ErrPermission.
type unreadableError struct {
	name string
	err  error
}

func (e unreadableError) Error() string {
	return fmt.Sprintf("%s: uid %d may not read it: %v", e.name, os.Geteuid(), place.Cause(e.err))
}
func (e unreadableError) Is(target error) bool { return target == ErrPermission }
func (e unreadableError) Unwrap() error        { return e.err }

// requireSource returns an error when a source that a link leads to does not exist.
func requireSource(sources *place.Tree, name string) error {
	d, base, err := sources.Split(name)
	if err == nil {
		_, _, err = d.Look(base)
	}
	return missingSource(name, err)
}

// requireFiles returns an error when the directory that pointer mode leads to does not exist or is
// empty.
func requireFiles(source *os.Root, name string) error {
	dir, err := source.Open(place.DirName(name))
	if err == nil {
		_, err = dir.Readdirnames(1)
		dir.Close()
	}
	if errors.Is(err, io.EOF) {
		err = fs.ErrNotExist
	}
	return missingSource(name, err)
}

// missingSource passes over a source that this user may not look for: whether the service may read
// it is another matter.
func missingSource(name string, err error) error {
	if err == nil || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return sourceFileError(name, err)
}

// renderFile fills in the template of f and returns the placeholders that have no value.
func renderFile(
	m *Manifest, f *File, source *os.Root, from values,
) (content []byte, missing []string, err error) {
	template, err := place.ReadFile(source.FS(), f.Source, maxRendered)
	if err != nil {
		return nil, nil, sourceFileError(f.Source, err)
	}
	if sum := sha256.Sum256(template); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, nil, mismatch(f.Source)
	}
	content, missing = m.Spec.Render.fill(string(template), from)
	return content, missing, nil
}

func mismatch(source string) error {
	return invalid(source,
		"its content is not what the manifest says: write the manifest anew with envconfig manifest")
}

// everything is the file system that secrets and witnesses are read from. Where it is the whole
// machine's, links that begin with a slash are followed, which os.Root never does: in many images
// /var/run is such a link.
func everything(root *os.Root) fs.FS {
	if root.Name() == "/" {
		return os.DirFS("/")
	}
	return root.FS()
}
