package envconfig

import (
	"maps"
	"path"
	"path/filepath"
	"slices"
)

// layout says where the files of a manifest stand below the root.
type layout struct {
	// source and state are the directories; empty when they are not below the root.
	source, state string
	// links are the baked ones, see [Manifest.links].
	links []string
}

func newLayout(root, source, state string, m *Manifest) layout {
	return layout{source: below(root, source), state: below(root, state), links: m.links()}
}

func below(root, name string) string {
	absRoot, err1 := filepath.Abs(root)
	absName, err2 := filepath.Abs(name)
	if err1 != nil || err2 != nil {
		return ""
	}
	rel, err := filepath.Rel(absRoot, absName)
	if err != nil || !filepath.IsLocal(rel) {
		return ""
	}
	return filepath.ToSlash(rel)
}

// current is the one link that pointer mode makes.
func (l layout) current() string { return path.Join(l.state, "current") }

// first returns the target that comes first of all environments' targets. The lock, and the record
// where the state directory cannot be written, belong to all environments and stand beside it.
func (l layout) first(m *Manifest) string {
	first := ""
	if len(l.links) > 0 {
		first = l.current()
	}
	for _, env := range m.Environments {
		for i := range env.Files {
			f := &env.Files[i]
			if f.Action == Pointer || first != "" && f.Path >= first {
				continue
			}
			if !l.inView(f) { // the view's files come after the link current
				first = f.Path
			}
		}
	}
	return first
}

// beside returns the path of the record where the state directory cannot be written.
func (l layout) beside(m *Manifest) string { return path.Join(path.Dir(l.first(m)), besideName) }

// targetDirs returns all directories that targets of any environment may stand in, the state
// directory, to which those are copied that are written in place, and all above them, sorted.
func (l layout) targetDirs(m *Manifest) []string {
	seen := map[string]bool{".": true}
	add := func(name string) {
		for dir := path.Dir(name); !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
		}
	}
	for _, env := range m.Environments {
		for i := range env.Files {
			if f := &env.Files[i]; f.Action != Pointer {
				add(l.target(env.Name, f))
			}
		}
		for _, link := range l.viewLinks(env) {
			add(link.Path)
		}
	}
	if l.state != "" {
		add(l.current())
	}
	return slices.Sorted(maps.Keys(seen))
}

// relative returns the text of a link at from that leads to to; both are below the root.
func relative(from, to string) string {
	rel, err := filepath.Rel(path.Dir("/"+from), "/"+to)
	if err != nil {
		return "/" + to // both are absolute and clean: cannot be
	}
	return filepath.ToSlash(rel)
}
