package envconfig

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// want is what has to stand at one target: a link, rendered content, or a copy of a source.
type want struct {
	*File // with the size and the sum of what was rendered

	link    string // what the link says; empty for a file
	content []byte // of a rendered file
}

// layout says where the source and the state folder are below the root; empty when they are not below it.
type layout struct{ source, state string }

func newLayout(root, source, state string) layout {
	return layout{source: below(root, source), state: below(root, state)}
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

// relative is the text of a link at from that leads to to; both are below the root.
func relative(from, to string) string {
	rel, err := filepath.Rel(path.Dir("/"+from), "/"+to)
	if err != nil {
		return "/" + to // both are absolute and clean: cannot be
	}
	return rel
}

// wants lists what the environment puts in place, sorted by path. All placeholders that cannot be filled in are reported
// at once.
func wants(m *Manifest, env *Environment, l layout, source *os.Root, from values) ([]want, error) {
	out := make([]want, 0, len(env.Files)+1)
	var missing []string
	sources := &tree{root: source}
	defer sources.forget()
	for i := range env.Files {
		f := &env.Files[i]
		w := want{File: f}
		switch f.Action {
		case Pointer:
			continue
		case Link:
			if l.source == "" {
				return nil, invalid(f.Path, "the action link needs the source folder below the root")
			}
			if err := sources.lacks(f.Source); err != nil {
				return nil, err
			}
			w.link = relative(f.Path, path.Join(l.source, f.Source))
		case Fill:
			content, lacks, err := renderFile(m, f, source, from)
			if err != nil {
				return nil, err
			}
			for _, name := range lacks {
				missing = append(missing, name+" for "+f.Path)
			}
			sum := sha256.Sum256(content)
			rendered := *f
			rendered.Size, rendered.SHA256 = int64(len(content)), hex.EncodeToString(sum[:])
			w.File, w.content = &rendered, content
		}
		out = append(out, w)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("render: %w: not set: %s", ErrInvalid, list(missing))
	}
	if len(m.links()) > 0 {
		if l.state == "" || l.source == "" {
			return nil, invalid("pointer", "the action pointer needs the source and the state folder below the root")
		}
		own := path.Join(envsDir, env.Name)
		if err := isEmpty(source, own); err != nil {
			return nil, err
		}
		out = append(out, want{File: &File{Path: l.current(), Action: Pointer}, link: relative(l.current(), path.Join(l.source, own))})
		slices.SortFunc(out, func(a, b want) int { return strings.Compare(a.Path, b.Path) })
	}
	return out, nil
}

// lacks is an error when a source that a link leads to is not there.
func (t *tree) lacks(name string) error {
	d, base, err := t.split(name)
	if err == nil {
		_, _, err = d.look(base)
	}
	return absent(name, err)
}

// isEmpty is an error when the folder that pointer mode leads to is not there, or has nothing in it.
func isEmpty(source *os.Root, name string) error {
	dir, err := source.Open(asFolder(name))
	if err == nil {
		_, err = dir.Readdirnames(1)
		dir.Close()
	}
	if errors.Is(err, io.EOF) {
		err = fs.ErrNotExist
	}
	return absent(name, err)
}

// absent passes over what this user may not look for: whether the service may read it is another matter.
func absent(name string, err error) error {
	if err == nil || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return sourceFileError(name, err)
}

func renderFile(m *Manifest, f *File, source *os.Root, from values) (content []byte, missing []string, err error) {
	template, err := readFile(source.FS(), f.Source, maxRendered)
	if err != nil {
		return nil, nil, sourceFileError(f.Source, err)
	}
	if sum := sha256.Sum256(template); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, nil, mismatch(f.Source)
	}
	content, missing = m.Spec.Render.fill(string(template), from)
	return content, missing, nil
}

func mismatch(source string) error {
	return invalid(source, "its content is not what the manifest says: write the manifest anew with envconfig manifest")
}

// compare says what has to be done for w: nothing, create or replace.
func (w *want) compare(t *tree) (opKind, error) {
	d, base, err := t.split(w.Path)
	var mode fs.FileMode
	var size int64
	if err == nil {
		mode, size, err = d.look(base)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return opCreate, nil
	case err != nil:
		return "", err
	case mode.Type() == fs.ModeSymlink:
		if text, err := d.Readlink(base); w.link == "" || err != nil || text != w.link {
			return opReplace, err // the link itself goes; what it points to is not touched
		}
		return "", nil
	case !mode.IsRegular():
		return "", fmt.Errorf("%w: a %s is in the way", ErrTarget, typeName(mode.Type()))
	case w.link != "" || size != w.Size || mode != w.Mode:
		return opReplace, nil
	}
	same, err := d.holds(base, w.SHA256, size)
	if errors.Is(err, fs.ErrPermission) {
		return opReplace, nil
	}
	if err != nil || same {
		return "", err
	}
	return opReplace, nil
}
