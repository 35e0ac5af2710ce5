package envconfig

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

// wanted is everything that an environment puts in place. Its two slices have the same length and
// order; it is the [place.Contents] of files.
type wanted struct {
	files   []place.File // sorted by path
	origins []origin
	sources *place.Tree
}

// origin says where the content of a file comes from.
type origin struct {
	file     *File    // in the manifest
	rendered rendered // content, of a file that is rendered
}

// newWanted lists the files that the environment puts in place. All placeholders that have no value
// are reported at once.
func newWanted(
	m *Manifest, env *Environment, l layout, source *os.Root, from values,
) (*wanted, error) {
	w := &wanted{
		files:   make([]place.File, 0, len(env.Files)+1),
		origins: make([]origin, 0, len(env.Files)+1),
		sources: place.NewTree(source),
	}
	var missing []string
	for i := range env.Files {
		f := &env.Files[i]
		file, o := target(f), origin{file: f}
		file.Path = l.target(env.Name, f)
		if problem := place.PathProblem(file.Path); problem != "" {
			return nil, invalid(f.Path, "its path below the state directory %s", problem)
		}
		switch f.Action {
		case Pointer:
			continue
		case Link:
			if l.source == "" {
				return nil,
					invalid(f.Path, "the action link needs the source directory below the root")
			}
			if err := requireSource(w.sources, f.Source); err != nil {
				return nil, err
			}
			file = place.File{Path: file.Path,
				Link: relative(file.Path, path.Join(l.source, f.Source))}
		case Fill:
			content, lacks, err := renderFile(m, f, source, from)
			if err != nil {
				return nil, err
			}
			for _, name := range lacks {
				missing = append(missing, name+" for "+f.Path)
			}
			sum := sha256.Sum256(content)
			file.Size, file.SHA256 = int64(len(content)), hex.EncodeToString(sum[:])
			o.rendered = content
		}
		w.files, w.origins = append(w.files, file), append(w.origins, o)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("render: not set: %s: %w", list(missing), ErrInvalid)
	}
	if len(l.links) > 0 {
		if err := w.addPointer(env, l, source); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// target returns the file that f puts at its target when it is copied as it is.
func target(f *File) place.File {
	return place.File{Path: f.Path, Mode: f.Mode, Size: f.Size, SHA256: f.SHA256}
}

// addPointer adds the one link of pointer mode and, where the environment has files below a baked
// link that are not reached through it alone, the links of its view.
func (w *wanted) addPointer(env *Environment, l layout, source *os.Root) error {
	if l.state == "" || l.source == "" {
		return invalid("pointer",
			"the action pointer needs the source and the state directory below the root")
	}
	own := path.Join(envsDir, env.Name)
	if err := requireFiles(source, own); err != nil {
		return err
	}
	links := l.viewLinks(env)
	to := path.Join(l.source, own)
	if l.hasView(env) {
		to = l.view(env.Name)
	}
	links = append(links, place.File{Path: l.current(), Link: relative(l.current(), to)})
	for _, link := range links {
		w.files = append(w.files, link)
		w.origins = append(w.origins, origin{file: &File{Path: link.Path, Action: Pointer}})
	}
	sort.Sort(w)
	return nil
}

// Len, Less and Swap sort the files by path as [sort.Interface] says.
func (w *wanted) Len() int           { return len(w.files) }
func (w *wanted) Less(i, j int) bool { return w.files[i].Path < w.files[j].Path }
func (w *wanted) Swap(i, j int) {
	w.files[i], w.files[j] = w.files[j], w.files[i]
	w.origins[i], w.origins[j] = w.origins[j], w.origins[i]
}

// find returns the index of the file with that path, or where it would be.
func (w *wanted) find(name string) (int, bool) {
	return slices.BinarySearchFunc(w.files, name, func(f place.File, name string) int {
		return strings.Compare(f.Path, name)
	})
}

// Open returns the content of the file with that index.
func (w *wanted) Open(i int) (io.ReadCloser, error) {
	o := w.origins[i]
	if o.file.Action == Fill {
		return &o.rendered, nil
	}
	f, err := w.sources.Open(o.file.Source)
	if err != nil {
		return nil, sourceFileError(o.file.Source, err)
	}
	return f, nil
}

// rendered is content in memory that is still to be read.
type rendered []byte

// Read reads as [io.Reader] says.
func (r *rendered) Read(p []byte) (int, error) {
	if len(*r) == 0 {
		return 0, io.EOF
	}
	n := copy(p, *r)
	*r = (*r)[n:]
	return n, nil
}

// Close does nothing.
func (r *rendered) Close() error { return nil }

// Mismatch returns the error for a source that has another content than the manifest says.
func (w *wanted) Mismatch(i int) error { return mismatch(w.origins[i].file.Source) }

// placed returns the record's entry for the file with that index.
func (w *wanted) placed(i int) placed {
	f, o := &w.files[i], w.origins[i].file
	return placed{Path: f.Path, SHA256: f.SHA256, Mode: o.Mode, Action: o.Action, Link: f.Link}
}

// stale returns the paths of the files that stand in the tree because of another environment,
// sorted: the files of the record and, in case the record was lost, the files whose content is
// exactly that of another environment of the manifest.
//
// A file of the record that is below a baked link now is of an image without the link: the path
// leads to the source.
func (w *wanted) stale(t *place.Tree, l layout, m *Manifest, before *record) []string {
	var stale []string
	if before != nil {
		for _, f := range before.Files {
			if _, found := w.find(f.Path); found || outermost(l.links, f.Path) != "" {
				continue
			}
			if info, err := t.Lstat(f.Path); err == nil && !info.IsDir() {
				stale = append(stale, f.Path)
			}
		}
	}
	for _, env := range m.Environments {
		for i := range env.Files {
			f := &env.Files[i]
			if f.Action != "" && f.Action != Copy {
				continue
			}
			there := target(f)
			there.Path = l.target(env.Name, f)
			if _, found := w.find(there.Path); found {
				continue
			}
			if kind, err := t.Compare(&there); err == nil && kind == "" {
				stale = append(stale, there.Path)
			}
		}
	}
	slices.Sort(stale)
	return slices.Compact(stale)
}
