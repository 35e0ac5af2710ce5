package envconfig

import (
	"cmp"
	"crypto/sha256"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
	"github.com/sluice-deploy/sluice/internal/names"
)

// validate holds a manifest to the rules that make an activation safe; it may come from any writer.
func (m *Manifest) validate() error {
	for _, name := range m.Names() {
		if err := checkStored(name); err != nil {
			return invalid(ManifestName, "%w", err)
		}
		if err := m.Environments[name].validate(); err != nil {
			return err
		}
	}
	for _, p := range m.Required {
		if problem := place.PathProblem(p); problem != "" {
			return invalid(ManifestName, "required path %s %s", names.Quote(p), problem)
		}
	}
	return m.Spec.validate()
}

func (e *Environment) validate() error {
	wrong := func(format string, args ...any) error {
		return invalid("environment "+e.Name, format, args...)
	}
	if !slices.IsSortedFunc(e.Files, func(a, b File) int {
		return strings.Compare(a.Path, b.Path)
	}) {
		return wrong("files are not sorted by path")
	}
	folded := make([]string, len(e.Files))
	for i := range e.Files {
		f := &e.Files[i]
		if problem := cmp.Or(place.PathProblem(f.Path), f.problem()); problem != "" {
			return wrong("path %q %s", f.Path, problem)
		}
		folded[i] = strings.ToLower(f.Path)
	}
	slices.Sort(folded) // mostly they are sorted already
	named := func(low string) (paths []any) {
		for i := range e.Files {
			if strings.ToLower(e.Files[i].Path) == low {
				paths = append(paths, e.Files[i].Path)
			}
		}
		return paths
	}
	for i := 1; i < len(folded); i++ {
		if folded[i] == folded[i-1] {
			return wrong("paths %q and %q differ in nothing but case", named(folded[i])[:2]...)
		}
	}
	before := "."
	for i := range e.Files {
		f := &e.Files[i]
		if path.Dir(f.Path) == before {
			continue
		}
		before = path.Dir(f.Path)
		for dir := before; dir != "."; dir = path.Dir(dir) {
			low := strings.ToLower(dir)
			if _, ok := slices.BinarySearch(folded, low); ok {
				return wrong("path %q is a file and also a directory of %q", named(low)[0], f.Path)
			}
		}
	}
	return nil
}

func (f *File) problem() string {
	switch {
	case !isSum(f.SHA256):
		return "has no proper sha256"
	case f.Size < 0:
		return "has a negative size"
	case f.Mode&^fs.ModePerm != 0:
		return "has a mode beyond the nine permission bits"
	case place.PathProblem(f.Source) != "" || !strings.HasPrefix(f.Source, envsDir+"/"):
		return "has a source outside of envs/"
	}
	return f.Action.problem()
}

func isSum(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 2*sha256.Size
}
