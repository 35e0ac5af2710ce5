package envconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
)

type phase string

const (
	phaseStage  phase = "stage"
	phaseCommit phase = "commit"
	phaseDone   phase = "done"
)

// journal is what it takes to undo or finish an activation that did not come to its end.
type journal struct {
	Ops  []op     `json:"ops"`
	Dirs []string `json:"dirs"`

	dir   string
	phase phase
}

func (j *journal) name(p phase) string { return path.Join(j.dir, tempPrefix+"journal-"+string(p)) }

// startJournal writes the journal of p into the nearest folder of the first target that exists.
func startJournal(t *tree, p *plan) (*journal, error) {
	dir, err := t.nearest(path.Dir(p.ops[0].Path))
	if err != nil {
		return nil, targetError("/"+dir, err)
	}
	j := &journal{Ops: p.ops, Dirs: p.missing, dir: dir, phase: phaseStage}
	data, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	// Under its own name the journal must be whole, so it is written under another.
	draft := path.Join(dir, tempPrefix+"journal-draft")
	err = t.create(draft, 0o600, func(w io.Writer) error { _, err := w.Write(data); return err })
	if err == nil {
		err = t.rename(draft, j.name(phaseStage))
	}
	if err != nil {
		return nil, errors.Join(targetError("/"+draft, err), t.remove(draft))
	}
	return j, nil
}

// advance marks that the next phase has begun.
func (j *journal) advance(t *tree, next phase) error {
	if err := t.rename(j.name(j.phase), j.name(next)); err != nil {
		return targetError("/"+j.name(j.phase), err)
	}
	j.phase = next
	return nil
}

func (j *journal) remove(t *tree) error {
	if err := t.remove(j.name(j.phase)); err != nil {
		return targetError("/"+j.name(j.phase), err)
	}
	return nil
}

// clean takes away what a finished activation has left.
func (j *journal) clean(t *tree, step func(string)) error {
	for i := range j.Ops {
		if o := &j.Ops[i]; o.Kind != opCreate {
			step("clean " + o.Path)
			if err := t.remove(o.saved()); err != nil {
				return targetError("/"+o.Path, err)
			}
		}
	}
	step("forget")
	return j.remove(t)
}

// recover undoes or finishes what an earlier activation left when it was killed.
func (a *Activator) recover(t *tree, m *Manifest) error {
	for _, dir := range m.targetDirs() {
		if _, err := t.dir(dir); err != nil {
			continue // not there, or not to be reached: the plan reports it where it matters
		}
		if err := t.remove(path.Join(dir, tempPrefix+"journal-draft")); err != nil && !errors.Is(err, fs.ErrPermission) {
			return targetError("/"+dir, err)
		}
		for _, ph := range []phase{phaseStage, phaseCommit, phaseDone} {
			j, err := readJournal(t, dir, ph)
			if err != nil {
				return err
			}
			if j == nil {
				continue
			}
			if ph == phaseDone {
				err = j.clean(t, a.at)
			} else {
				err = j.undo(t, a.at)
			}
			if err != nil {
				return fmt.Errorf("recover from an interrupted start: %w", err)
			}
		}
	}
	return nil
}

func readJournal(t *tree, dir string, ph phase) (*journal, error) {
	j := &journal{dir: dir, phase: ph}
	d, err := t.dir(dir)
	if err != nil {
		return nil, err
	}
	data, err := readFile(d.FS(), path.Base(j.name(ph)), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, targetError("/"+j.name(ph), err)
	}
	if err := json.Unmarshal(data, j); err != nil {
		return nil, invalid("/"+j.name(ph), "%w", err)
	}
	for _, o := range j.Ops {
		if problem := pathProblem(o.Path); problem != "" {
			return nil, invalid("/"+j.name(ph), "path %s %s", quote(o.Path), problem)
		}
	}
	for _, dir := range j.Dirs {
		if problem := pathProblem(dir); problem != "" {
			return nil, invalid("/"+j.name(ph), "folder %s %s", quote(dir), problem)
		}
	}
	return j, nil
}

// targetDirs are all folders that targets of any environment may stand in, and those above them, sorted.
func (m *Manifest) targetDirs() []string {
	seen := map[string]bool{".": true}
	for _, env := range m.Environments {
		for i := range env.Files {
			for dir := path.Dir(env.Files[i].Path); !seen[dir]; dir = path.Dir(dir) {
				seen[dir] = true
			}
		}
	}
	dirs := make([]string, 0, len(seen))
	for dir := range seen {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	return dirs
}
