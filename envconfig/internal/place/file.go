package place

import (
	"errors"
	"fmt"
	"io/fs"
)

// File is the wanted entry at one target: a symbolic link, or a regular file.
type File struct {
	// Path of the target, relative to the root, as [PathProblem] allows it.
	Path string
	// Link is the text of the symbolic link; empty for a regular file. For a link the fields below
	// have no meaning.
	Link string
	// Mode holds the permission bits; all others are zero.
	Mode fs.FileMode
	// Size of the content in bytes.
	Size int64
	// SHA256 of the content, in hexadecimal.
	SHA256 string
}

// Compare returns the change that brings f into its place, or "" where it stands there already. The
// error matches [ErrTarget] when something that is neither a regular file nor a link is in the way.
func (t *Tree) Compare(f *File) (Kind, error) {
	d, base, err := t.Split(f.Path)
	var mode fs.FileMode
	var size int64
	if err == nil {
		mode, size, err = d.Look(base)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Create, nil
	case err != nil:
		return "", err
	case mode.Type() == fs.ModeSymlink:
		text, err := d.Readlink(base)
		switch {
		case err == nil && f.Link == "" && isOfFarm(d, base, text):
			return t.compareFarm(f)
		case f.Link == "" || err != nil || text != f.Link:
			return Replace, err // the link itself is replaced; its target is not touched
		}
		return "", nil
	case !mode.IsRegular():
		return "", fmt.Errorf("a %s is in the way: %w", TypeName(mode.Type()), ErrTarget)
	case f.Link != "" || size != f.Size || mode != f.Mode:
		return Replace, nil
	}
	same, err := d.Holds(base, f.SHA256, size)
	if errors.Is(err, fs.ErrPermission) {
		return Replace, nil
	}
	if err != nil || same {
		return "", err
	}
	return Replace, nil
}
