package place

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// FarmData is the link by which Kubernetes switches all files of a ConfigMap, Secret or other
// projected volume at once: each file of the volume is a link to FarmData/NAME, and FarmData one to
// the directory that has them (k8s.io/kubernetes/pkg/volume/util/atomic_writer.go).
const FarmData = "..data"

// IsFarm reports whether a directory with these entries is of such a volume.
func IsFarm(entries []fs.DirEntry) bool {
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return e.Name() == FarmData && e.Type() == fs.ModeSymlink
	})
}

// isOfFarm reports whether the link base of d, which says text, is a file of such a volume.
func isOfFarm(d *Dir, base, text string) bool {
	if text != FarmData+"/"+base {
		return false
	}
	mode, _, err := d.Look(FarmData)
	return err == nil && mode.Type() == fs.ModeSymlink
}

// compareFarm compares f with the file of a volume that stands at its target. Such a file cannot be
// replaced, and its mode is the volume's; it may have the wanted content.
func (t *Tree) compareFarm(f *File) (Kind, error) {
	file, err := t.Open(f.Path)
	if err == nil {
		var same bool
		if same, err = Holds(file, f.SHA256, -1); same && err == nil {
			return "", nil
		}
	}
	if errors.Is(err, fs.ErrPermission) || err == nil {
		err = fmt.Errorf("is of a ConfigMap or Secret volume, which cannot be written, and has "+
			"another "+
			"content: mount the volume below %s of the source directory, or leave the file out "+
			"there: %w",
			"envs/", ErrTarget)
	}
	return "", err
}

// FarmFile reports whether the target is a file of a volume of Kubernetes, see [FarmData].
func (t *Tree) FarmFile(name string) bool {
	d, base, err := t.Split(name)
	if err != nil {
		return false
	}
	text, err := d.Readlink(base)
	return err == nil && strings.HasPrefix(text, FarmData) && isOfFarm(d, base, text)
}
