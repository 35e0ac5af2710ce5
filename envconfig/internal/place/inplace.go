package place

import (
	"errors"
	"io"
	"io/fs"
	"path"
)

// WriteInPlace has the plan write into the files that are mounts of their own, such as a single
// file that a container's runtime has bind-mounted, since they cannot be renamed over: their old
// content is copied first, to their own directory or, where that cannot be written, to the
// directory spare, which is "" for none. A mount that has the wanted content already is kept. Modes
// and owners stay those of the mount. Call it before [Plan.Blocked].
//
// Content written in place is restored as all else is, after an error at once and after a crash by
// the next [Recover]; but until then a reader may see a part of the new content. A file that is no
// mount any more by then is left as it is.
//
// Without /proc/self/fdinfo, or on an operating system other than Linux, no file is taken for a
// mount.
func (p *Plan) WriteInPlace(t *Tree, spare string) error {
	ops := p.Ops[:0]
	for _, o := range p.Ops {
		if o.Kind == Replace && p.files[o.file].Link == "" && t.Mounted(o.Path) {
			same, err := t.holds(o.Path, p.files[o.file].SHA256)
			if err != nil {
				return TargetError("/"+o.Path, err)
			}
			if same {
				p.Kept++
				continue
			}
			o.Spare = path.Dir(o.Path)
			if spare != "" && !t.canWrite(o.Spare) {
				o.Spare = spare
			}
		}
		o.Seq = len(ops)
		ops = append(ops, o)
	}
	p.Ops, p.missing = ops, nil
	return p.findMissing(t)
}

// Mounted reports whether a file is a mount of its own, as [Plan.WriteInPlace] takes it.
func (t *Tree) Mounted(name string) bool {
	d, base, err := t.Split(name)
	return err == nil && d.mounted(base)
}

func (t *Tree) holds(name, sha256 string) (bool, error) {
	d, base, err := t.Split(name)
	if err != nil {
		return false, err
	}
	same, err := d.Holds(base, sha256, -1)
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	return same, err
}

func (t *Tree) canWrite(dir string) bool {
	d, err := t.Dir(dir)
	return err == nil && d.access(".") == nil
}

// saveCopy copies the old content of a target that is written in place.
func (x *Transaction) saveCopy(o *Op) error {
	from, err := x.Targets.Open(o.Path)
	if err != nil {
		return TargetError("/"+o.Path, err)
	}
	err = x.Targets.Create(o.saved(), 0o600, func(to io.Writer) error { return copyAll(to, from) })
	if err := errors.Join(err, from.Close()); err != nil {
		return TargetError("/"+path.Dir(o.saved()), err)
	}
	return nil
}

// overwrite gives the file to the content of the file from, and does not change more of it.
func (t *Tree) overwrite(to, from string) error {
	source, err := t.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	d, base, err := t.Split(to)
	if err != nil {
		return err
	}
	f, err := d.openWrite(base)
	if err != nil {
		return err
	}
	size := int64(0)
	err = copyAll(writerFunc(func(p []byte) (int, error) {
		n, err := f.Write(p)
		size += int64(n)
		return n, err
	}), source)
	if err == nil {
		err = f.Truncate(size)
	}
	return errors.Join(err, f.Close())
}

type writerFunc func([]byte) (int, error)

// Write calls the function.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// copyAll copies through the buffer of a Hasher.
func copyAll(to io.Writer, from io.Reader) error {
	h := NewHasher()
	defer h.Release()
	_, err := h.ReadAll(from, func(p []byte) error { _, err := to.Write(p); return err })
	return err
}

// undoInPlace restores the old content of a target that is written in place. The copy is whole in
// the phase commit, and goes when it has been restored.
func undoInPlace(t *Tree, o *Op) error {
	saved, err := t.Exists(o.saved())
	if err != nil {
		return err
	}
	if saved && t.Mounted(o.Path) {
		if err := t.overwrite(o.Path, o.saved()); err != nil {
			return err
		}
	}
	if err := t.Remove(o.saved()); err != nil {
		return err
	}
	return t.Remove(o.fresh())
}
