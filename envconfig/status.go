package envconfig

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"time"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

// Status describes the active environment. It holds no values.
type Status struct {
	// Environment is the active one.
	Environment string `json:"environment"`
	// Digest is that of the environment, Manifest that of the whole, both as they were at the
	// activation.
	Digest   string `json:"digest"`
	Manifest string `json:"manifest"`
	// UID is the user that activated it, and Activated is when.
	UID       int       `json:"uid"`
	Activated time.Time `json:"activated"`
	// Files counts the targets.
	Files int `json:"files"`
}

// Drift is a target that is not as it was put in place.
type Drift struct {
	// Path of the target, relative to the root.
	Path string
	// Reason names the difference, never the content.
	Reason string
}

// Status reads the record of the last activation. The error matches [ErrIncomplete] when there is
// none, or it may not be read by this user.
func (a *Activator) Status() (Status, error) {
	r, t, err := a.record()
	if err != nil {
		return Status{}, err
	}
	t.Close()
	return Status{r.Environment, r.Digest, r.Manifest, r.UID, r.Activated, len(r.Files)}, nil
}

// Verify holds every target to the record of the last activation and returns the ones that differ,
// sorted by path. With the actions pointer and link the links are held to it, and the files behind
// them are held to the manifest.
func (a *Activator) Verify() ([]Drift, error) {
	r, t, err := a.record()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	drift := []Drift{}
	links := false
	for _, f := range r.Files {
		if reason := f.drift(t); reason != "" {
			drift = append(drift, Drift{f.Path, reason})
		}
		links = links || f.Link != ""
	}
	if !links {
		return drift, nil
	}
	behind, err := a.verifyBehind(r.Environment)
	drift = append(drift, behind...)
	sort.SliceStable(drift, func(i, j int) bool { return drift[i].Path < drift[j].Path })
	return drift, err
}

// record returns the record of the active environment, and the open root.
func (a *Activator) record() (*record, *place.Tree, error) {
	m, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	rootName, state := cmp.Or(a.Root, DefaultRoot), cmp.Or(a.State, DefaultState)
	root, err := os.OpenRoot(rootName)
	if err != nil {
		return nil, nil, err
	}
	t := place.NewTree(root)
	l := newLayout(rootName, cmp.Or(a.Source, DefaultSource), state, m)
	r := readRecord(state, l.state, t, l.beside(m), nil)
	if r == nil {
		t.Close()
		return nil, nil, fmt.Errorf("record in %s: nothing was activated here, or not by this "+
			"user: %w", state, ErrIncomplete)
	}
	return r, t, nil
}

// drift returns the difference of the target from f, or "" if there is none.
func (f *placed) drift(t *place.Tree) string {
	d, base, err := t.Split(f.Path)
	var mode fs.FileMode
	if err == nil {
		mode, _, err = d.Look(base)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is gone"
	case err != nil:
		return place.Cause(err).Error()
	case f.Link != "":
		if text, err := d.Readlink(base); err != nil || text != f.Link {
			return "is not the link that was made"
		}
		return ""
	case !mode.IsRegular() && t.FarmFile(f.Path):
		file, err := t.Open(f.Path)
		if err != nil {
			return place.Cause(err).Error()
		}
		if same, err := place.Holds(file, f.SHA256, -1); err != nil || !same {
			return "has other content"
		}
		return ""
	case !mode.IsRegular():
		return "is a " + place.TypeName(mode.Type()) + " now"
	}
	switch same, err := d.Holds(base, f.SHA256, -1); {
	case err != nil:
		return place.Cause(err).Error()
	case !same:
		return "has other content"
	case mode != f.Mode && !t.Mounted(f.Path): // a file that is written in place keeps its mode
		return fmt.Sprintf("has the mode %04o, was put in place with %04o", mode.Perm(), f.Mode)
	}
	return ""
}

// verifyBehind holds the sources that the links lead to, and the baked links, to the manifest.
func (a *Activator) verifyBehind(environment string) ([]Drift, error) {
	source, err := openSource(cmp.Or(a.Source, DefaultSource))
	if err != nil {
		return nil, err
	}
	defer source.Close()
	m, err := Load(source.FS())
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(cmp.Or(a.Root, DefaultRoot))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	l := newLayout(cmp.Or(a.Root, DefaultRoot), cmp.Or(a.Source, DefaultSource),
		cmp.Or(a.State, DefaultState), m)
	var drift []Drift
	for _, link := range l.links {
		if checkLink(root, link, relative(link, path.Join(l.current(), link))) != nil {
			drift = append(drift, Drift{link, "is not the link that was baked into the image"})
		}
	}
	env := m.Environments[environment]
	if env == nil {
		return drift, nil
	}
	sources := place.NewTree(source)
	defer sources.Forget()
	for _, f := range env.Files {
		if f.Action != Pointer && f.Action != Link {
			continue
		}
		file, err := sources.Open(f.Source)
		same := false
		if err == nil {
			same, err = place.Holds(file, f.SHA256, -1)
		}
		if err != nil || !same {
			drift = append(drift, Drift{f.Path, "has other content than the manifest says"})
		}
	}
	return drift, nil
}

// WriteManifest replaces manifest.json in the source directory as a whole. Everyone may read it.
func WriteManifest(source *os.Root, m *Manifest) error {
	const draft = place.TempPrefix + ManifestName
	t := place.NewTree(source)
	defer t.Forget() // not Close: the root is the caller's
	err := t.Create(draft, 0o644, func(w io.Writer) error {
		_, err := w.Write(m.JSON())
		return err
	})
	if err == nil {
		err = t.Rename(draft, ManifestName)
	}
	if err != nil {
		return errors.Join(place.TargetError(ManifestName, err), t.Remove(draft))
	}
	return nil
}
