// Package untar unpacks a tar archive that nobody vouches for: an image's file system, an upload.
package untar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Into writes everything below dir, which is made if it is missing, and nothing outside of it, whatever names and links the archive holds (os.Root).
// Devices and pipes are passed over; owners are kept where the caller may set them.
func Into(dir string, r io.Reader) error {
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

// own sets owner and mode on the open file, whatever the umask.
func own(f *os.File, header *tar.Header, mode fs.FileMode) error {
	if os.Geteuid() == 0 {
		if err := f.Chown(header.Uid, header.Gid); err != nil {
			return err
		}
	}
	return f.Chmod(mode)
}
