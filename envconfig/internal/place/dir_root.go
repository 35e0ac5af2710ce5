package place

import (
	"errors"
	"io/fs"
)

// Lstat describes the entry with the name; a link is not followed.
func (d *Dir) Lstat(name string) (fs.FileInfo, error) {
	root, err := d.root()
	if err != nil {
		return nil, err
	}
	return root.Lstat(name)
}

// Readlink returns the text of a link.
func (d *Dir) Readlink(name string) (string, error) {
	root, err := d.root()
	if err != nil {
		return "", err
	}
	return root.Readlink(name)
}

// ReadText is [ReadText] for a file of the directory.
func (d *Dir) ReadText(name string, limit int64) (string, error) {
	root, err := d.root()
	if err != nil {
		return "", err
	}
	return ReadText(root.FS(), name, limit)
}

// stat describes the directory.
func (d *Dir) stat() (fs.FileInfo, error) {
	root, err := d.root()
	if err != nil {
		return nil, err
	}
	return root.Stat(".")
}

// remove removes a file or an empty directory.
func (d *Dir) remove(name string) error {
	root, err := d.root()
	if err != nil {
		return err
	}
	return root.Remove(name)
}

// link gives a file a second name.
func (d *Dir) link(from, to string) error {
	root, err := d.root()
	if err != nil {
		return err
	}
	return root.Link(from, to)
}

// symlink makes a link to text.
func (d *Dir) symlink(text, name string) error {
	root, err := d.root()
	if err != nil {
		return err
	}
	return root.Symlink(text, name)
}

// mkdir makes a directory that everyone may read and search, independent of the umask.
func (d *Dir) mkdir(name string) error {
	root, err := d.root()
	if err != nil {
		return err
	}
	if err := root.Mkdir(name, 0o700); err != nil {
		return err
	}
	made, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(made.Chmod(0o755), made.Close())
}
