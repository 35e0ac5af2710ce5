package envconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
	"github.com/sluice-deploy/sluice/internal/names"
)

const (
	envsDir = "envs"
	baseDir = "_base"
)

// Scan reads the source directory fsys, which holds envs/ and optionally envconfig.json, and
// returns its manifest. The error matches [ErrInvalid] when the directory breaks a rule: a name
// that cannot be an environment, a symbolic link that leaves envs/, a device, pipe or socket, two
// paths that differ in case only, a path that is a file and a directory at once. Entries of envs/
// itself whose names begin with a dot are passed over.
//
// Give it [os.Root.FS] rather than [os.DirFS], so that nothing outside of the directory can be
// reached.
func Scan(fsys fs.FS) (*Manifest, error) {
	m := &Manifest{Environments: map[string]*Environment{}}
	if err := m.readSpec(fsys); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(fsys, envsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("scan: no directory %s in the source directory: %w", envsDir,
			ErrIncomplete)
	}
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	sets := map[string][]File{}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if err := names.Environment(name); err != nil && name != baseDir {
			return nil, invalid("scan envs/"+name, "%w", err)
		}
		if !e.IsDir() && !(place.IsFarm(entries) && leadsToDir(fsys, envsDir, e)) {
			return nil, invalid("scan envs/"+name, "is not a directory")
		}
		if sets[name], err = m.scanSet(fsys, envsDir+"/"+name); err != nil {
			return nil, fmt.Errorf("scan: %w", err)
		}
	}
	for name, files := range sets {
		if name != baseDir {
			m.Environments[name] = &Environment{Name: name, Files: overlay(sets[baseDir], files)}
		}
	}
	m.Required = m.required()
	return m, m.validate()
}

// Load returns the manifest of the source directory fsys: manifest.json when there is one, else the
// manifest of [Scan].
func Load(fsys fs.FS) (*Manifest, error) {
	text, err := place.ReadText(fsys, ManifestName, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return Scan(fsys)
	}
	if err != nil {
		return nil, err
	}
	return parseManifest(text)
}

func (m *Manifest) readSpec(fsys fs.FS) error {
	data, err := place.ReadFile(fsys, SpecName, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	m.Spec, err = ParseSpec(data)
	return err
}

func (m *Manifest) required() []string {
	var paths []string
	if len(m.Spec.Required) > 0 {
		paths = slices.Clone(m.Spec.Required)
	} else {
		for _, env := range m.Environments {
			paths = append(paths, env.Paths()...)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// scanSet lists the files below dir, sorted by path.
func (m *Manifest) scanSet(fsys fs.FS, dir string) ([]File, error) {
	var files []File
	err := walk(fsys, dir, func(name string, d fs.DirEntry) error {
		target := strings.TrimPrefix(name, dir+"/")
		if problem := place.PathProblem(target); problem != "" {
			return invalid(dir, "path %q %s", target, problem)
		}
		if err := checkType(fsys, name, d); err != nil {
			return err
		}
		f := File{Path: target, Source: name}
		if err := f.read(fsys); err != nil {
			return err
		}
		own := f.Mode
		m.Spec.apply(&f)
		if f.Mode != own && (f.Action == Link || f.Action == Pointer) {
			return invalid(SpecName, "%q has the mode %04o, but with the action %s it is that of "+
				"%s, %04o: give that one the mode", target, f.Mode, f.Action, name, own)
		}
		if err := m.conceal(fsys, &f); err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	return files, err
}

// walk calls visit for each entry below dir that is no directory. Of a volume of Kubernetes, whose
// files are links through ..data to a directory that is replaced as a whole, it visits the files by
// their own names.
func walk(fsys fs.FS, dir string, visit func(name string, d fs.DirEntry) error) error {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return err
	}
	farm := place.IsFarm(entries)
	for _, e := range entries {
		name := dir + "/" + e.Name()
		switch {
		case farm && strings.HasPrefix(e.Name(), ".."):
			continue // the volume's own; no key of a ConfigMap begins so
		case e.IsDir(), farm && leadsToDir(fsys, dir, e):
			err = walk(fsys, name, visit)
		default:
			err = visit(name, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leadsToDir reports whether an entry of a volume is the link to a directory of its files.
func leadsToDir(fsys fs.FS, dir string, e fs.DirEntry) bool {
	name := dir + "/" + e.Name()
	if e.Type() != fs.ModeSymlink {
		return false
	}
	if text, err := fs.ReadLink(fsys, name); err != nil || text != place.FarmData+"/"+e.Name() {
		return false
	}
	info, err := fs.Stat(fsys, name)
	return err == nil && info.IsDir()
}

// checkType accepts regular files, and links to regular files that stay below envs/.
func checkType(fsys fs.FS, name string, d fs.DirEntry) error {
	switch {
	case d.Type().IsRegular():
		return nil
	case d.Type() != fs.ModeSymlink:
		return invalid(name, "is a %s; only files, directories and links to files can be activated",
			place.TypeName(d.Type()))
	}
	for at, hops := name, 0; hops < 40; hops++ {
		to, err := fs.ReadLink(fsys, at)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		at = path.Join(path.Dir(at), to)
		if path.IsAbs(to) || !strings.HasPrefix(at, envsDir+"/") {
			return invalid(name, "is a link to %q, which leaves %s/", to, envsDir)
		}
		info, err := fs.Lstat(fsys, at)
		if err != nil {
			return invalid(name, "is a link to %q: %w", to, err)
		}
		if info.Mode().IsRegular() {
			return nil
		}
		if info.Mode().Type() != fs.ModeSymlink {
			return invalid(name, "is a link to the %s %q; only links to files can be activated",
				place.TypeName(info.Mode().Type()), to)
		}
	}
	return invalid(name, "is a link that leads round in a circle")
}

// read fills in the fields that depend on the content of the source.
func (f *File) read(fsys fs.FS) error {
	src, err := fsys.Open(f.Source)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	h := place.NewHasher()
	defer h.Release()
	if f.Size, err = h.ReadAll(src, nil); err != nil {
		return err
	}
	f.Mode, f.SHA256 = info.Mode().Perm(), h.Hex()
	return nil
}

// conceal takes the permissions of others from a rendered file that draws on a file, which most
// likely is a secret.
func (m *Manifest) conceal(fsys fs.FS, f *File) error {
	if f.Action != Fill {
		return nil
	}
	template, err := place.ReadFile(fsys, f.Source, maxRendered)
	if err == nil && !f.modeGiven && m.Spec.Render.usesFiles(string(template)) {
		f.Mode &^= 0o007
	}
	return err
}

// overlay is base with the files of env in the place of those with the same path.
func overlay(base, env []File) []File {
	files := slices.Clone(env)
	for _, f := range base {
		if _, ok := slices.BinarySearchFunc(env, f.Path, func(e File, p string) int {
			return strings.Compare(e.Path, p)
		}); !ok {
			files = append(files, f)
		}
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	return files
}
