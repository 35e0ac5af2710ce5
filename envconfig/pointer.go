package envconfig

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

// links are the places of the target tree where pointer mode has links baked into the image: the
// directory of each rule "directory/**", and every other file with that action. Sorted.
func (m *Manifest) links() []string {
	if m.head != nil {
		return m.head.Links
	}
	var directories []string
	for _, r := range m.Spec.Paths {
		directory, ok := strings.CutSuffix(r.Match, "/**")
		if ok && r.Action == Pointer && !strings.ContainsAny(directory, `*?[\`) {
			directories = append(directories, directory)
		}
	}
	var links []string
	for _, env := range m.Environments {
		for i := range env.Files {
			f := &env.Files[i]
			if f.Action == Pointer {
				links = append(links, cmp.Or(outermost(directories, f.Path), f.Path))
			}
		}
	}
	slices.Sort(links)
	return slices.Compact(links)
}

// outermost returns the shortest of the directories that holds name, or "".
func outermost(directories []string, name string) string {
	best := ""
	for _, directory := range directories {
		if strings.HasPrefix(name, directory+"/") && (best == "" || len(directory) < len(best)) {
			best = directory
		}
	}
	return best
}

// Bake makes the links that the action pointer needs, when the image is built: in the target tree
// one for each directory or file, leading through <state>/current, and in each environment's
// directory one for each file that only _base has. It may be called again. The error matches
// [ErrTarget] when something else is in a link's place. It returns the links' paths. Write the
// manifest after it.
func (a *Activator) Bake() ([]string, error) {
	rootName, sourceName := cmp.Or(a.Root, DefaultRoot), cmp.Or(a.Source, DefaultSource)
	source, err := openSource(sourceName)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	m, err := Scan(source.FS())
	if err != nil {
		return nil, err
	}
	l := newLayout(rootName, sourceName, cmp.Or(a.State, DefaultState), m)
	if len(l.links) == 0 {
		return nil, nil
	}
	if l.state == "" || l.source == "" {
		return nil, invalid("pointer", "the action pointer needs the source and the state "+
			"directory "+
			"below the root")
	}
	root, err := os.OpenRoot(rootName)
	if err != nil {
		return nil, place.TargetError("root", err)
	}
	defer root.Close()
	for _, name := range m.Names() {
		for _, f := range m.Environments[name].Files {
			own := path.Join(envsDir, name, f.Path)
			if f.Action != Pointer || f.Source == own {
				continue
			}
			if err := bakeLink(source, own, relative(own, f.Source)); err != nil {
				return nil, err
			}
		}
	}
	for _, link := range l.links {
		if err := bakeLink(root, link, relative(link, path.Join(l.current(), link))); err != nil {
			return nil, err
		}
	}
	return l.links, nil
}

func bakeLink(root *os.Root, name, text string) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return place.TargetError("/"+name, err)
	}
	if err := root.Symlink(text, name); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrExist) {
		return place.TargetError("/"+name, err)
	}
	return checkLink(root, name, text)
}

// checkLink checks that a baked link has the target text.
func checkLink(root *os.Root, name, text string) error {
	got, err := root.Readlink(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("/%s: the link for the action pointer is not in the image: "+
			"run envconfig manifest --bake when it is built: %w", name, ErrTarget)
	case err != nil:
		return fmt.Errorf("/%s: the image has something else there than the link for the action "+
			"pointer: "+
			"remove it before envconfig manifest --bake: %w", name, ErrTarget)
	case got != text:
		return fmt.Errorf("/%s: is a link to %q where %q is expected: %w", name, got, text,
			ErrTarget)
	}
	return nil
}

// checkLinks makes sure that the image was baked for this layout before the pointer is turned.
func (l layout) checkLinks(root *os.Root) error {
	for _, link := range l.links {
		if err := checkLink(root, link, relative(link, path.Join(l.current(), link))); err != nil {
			return err
		}
	}
	return nil
}
