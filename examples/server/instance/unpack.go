package instance

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// unpack pulls the image, whose bytes are checked against its digest, and writes its file system below root.
func unpack(ctx context.Context, image, root string) (*v1.Config, error) {
	ref, err := name.NewDigest(image)
	if err != nil {
		return nil, fmt.Errorf("image %q: expected a reference by digest: %w", image, err)
	}
	pulled, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", image, err)
	}
	config, err := pulled.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", image, err)
	}
	files := mutate.Extract(pulled)
	defer files.Close()
	if err := untar(files, root); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", image, err)
	}
	return &config.Config, nil
}

// untar writes everything below dir and nothing outside of it, whatever names and links the archive holds (os.Root).
// Devices and pipes are passed over; owners are kept where the caller may set them.
func untar(r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := writeEntry(root, header, archive); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

func writeEntry(root *os.Root, header *tar.Header, content io.Reader) error {
	file := path.Clean(strings.TrimLeft(header.Name, "/"))
	if file == "." {
		return nil
	}
	if err := root.MkdirAll(path.Dir(file), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(header.Mode).Perm()
	switch header.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(file, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, file)
	case tar.TypeLink:
		return root.Link(strings.TrimLeft(header.Linkname, "/"), file)
	case tar.TypeReg:
		f, err := root.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, own(f, header, mode), f.Close())
	default:
		return nil
	}
	d, err := root.Open(file)
	if err != nil {
		return err
	}
	return errors.Join(own(d, header, mode), d.Close())
}

// own sets owner and mode on the open file, in this order: a change of the owner clears the set-user-id bit.
func own(f *os.File, header *tar.Header, mode fs.FileMode) error {
	if os.Geteuid() == 0 {
		if err := f.Chown(header.Uid, header.Gid); err != nil {
			return err
		}
	}
	return f.Chmod(mode)
}
