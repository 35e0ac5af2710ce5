package envconfig

import (
	"path"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

// The view of an environment is a directory of the state directory that stands for the
// environment's own directory where that does not do: below a baked link of the action pointer the
// environment has a file with another action, which has to be written. The view has the
// directories that lead to such files, the files themselves, and for everything beside them a link
// to the source. So a directory with a rendered secret in it can be reached through a baked link
// on a read-only root, and other environments' files are not in it.

// viewsDir holds the views, by environment.
const viewsDir = "view"

// view returns the directory of the environment's view.
func (l layout) view(env string) string { return path.Join(l.state, viewsDir, env) }

// inView reports whether the file stands in the view and not at its own path.
func (l layout) inView(f *File) bool {
	return f.Action != Pointer && outermost(l.links, f.Path) != ""
}

// hasView reports whether the environment has a view.
func (l layout) hasView(env *Environment) bool {
	for i := range env.Files {
		if l.inView(&env.Files[i]) {
			return true
		}
	}
	return false
}

// target returns the path at which the file of the environment stands.
func (l layout) target(env string, f *File) string {
	if l.inView(f) {
		return path.Join(l.view(env), f.Path)
	}
	return f.Path
}

// viewLinks returns the links of the environment's view, not sorted; none where it has no view.
func (l layout) viewLinks(env *Environment) []place.File {
	dirs := map[string]bool{} // of the view, as paths of the targets in it
	for i := range env.Files {
		if f := &env.Files[i]; l.inView(f) {
			for dir := path.Dir(f.Path); !dirs[dir]; dir = path.Dir(dir) {
				dirs[dir] = true
			}
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	dirs["."] = true
	var links []place.File
	seen := map[string]bool{}
	for i := range env.Files {
		f := &env.Files[i]
		if f.Action != Pointer {
			continue
		}
		entry := f.Path // the outermost part of the path that is no directory of the view
		for rest := f.Path; ; {
			slash := strings.LastIndexByte(rest, '/')
			if slash < 0 {
				break
			}
			if rest = rest[:slash]; !dirs[rest] {
				entry = rest
			}
		}
		if seen[entry] {
			continue
		}
		seen[entry] = true
		name := path.Join(l.view(env.Name), entry)
		to := path.Join(l.source, envsDir, env.Name, entry)
		if entry == f.Path {
			to = path.Join(l.source, f.Source)
		}
		links = append(links, place.File{Path: name, Link: relative(name, to)})
	}
	return links
}
