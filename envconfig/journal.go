package envconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
)

type phase string

const (
	phaseStage  phase = "stage"
	phaseCommit phase = "commit"
	phaseDone   phase = "done"
)

// journal is what it takes to undo or finish an activation that did not come to its end.
type journal struct {
	Ops []op
	// Dirs are folders that the activation makes, Emptied those that it may leave empty; parents before children.
	Dirs    []string
	Emptied []string

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
	j := &journal{Ops: p.ops, Dirs: p.missing, Emptied: p.emptied, dir: dir, phase: phaseStage}
	if err := t.replace(j.name(phaseStage), j.json()); err != nil {
		return nil, targetError("/"+dir, err)
	}
	return j, nil
}

// opSize is what an op with a short path takes up in a journal.
const opSize = 80

// json is what readJournal reads.
func (j *journal) json() []byte {
	b := make([]byte, 0, 256+opSize*len(j.Ops))
	b = appendList(append(b, `{"ops":`...), len(j.Ops), func(b []byte, i int) []byte {
		o := &j.Ops[i]
		b = appendText(append(b, `{"kind":`...), string(o.Kind))
		b = appendText(append(b, `,"path":`...), o.Path)
		b = strconv.AppendInt(append(b, `,"seq":`...), int64(o.Seq), 10)
		return append(b, '}')
	})
	b = appendTexts(append(b, `,"dirs":`...), j.Dirs)
	b = appendTexts(append(b, `,"emptied":`...), j.Emptied)
	return append(b, "}\n"...)
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
	t.forget()
	for _, dir := range slices.Backward(j.Emptied) {
		_ = t.remove(dir) // a folder that holds something else stays
	}
	step("forget")
	return j.remove(t)
}

// recover undoes or finishes what earlier activations left when they were killed. It returns the journals of those that
// were finished, since they may not have come to write their record.
func (a *Activator) recover(t *tree, m *Manifest, l layout) (finished []*journal, err error) {
	for _, dir := range m.targetDirs(l) {
		if _, err := t.dir(dir); err != nil {
			continue // not there, or not to be reached: the plan reports it where it matters
		}
		draft := path.Join(dir, tempPrefix+"draft")
		if found, _ := t.exists(draft); found {
			if err := t.remove(draft); err != nil {
				return nil, targetError("/"+draft, err)
			}
		}
		for _, ph := range []phase{phaseStage, phaseCommit, phaseDone} {
			j, err := readJournal(t, dir, ph)
			if err != nil {
				return nil, err
			}
			if j == nil {
				continue
			}
			if ph == phaseDone {
				finished = append(finished, j)
				err = j.clean(t, a.at)
			} else {
				err = j.undo(t, a.at)
			}
			if err != nil {
				return nil, fmt.Errorf("recover from an interrupted start: %w", err)
			}
		}
	}
	return finished, nil
}

func readJournal(t *tree, dir string, ph phase) (*journal, error) {
	j := &journal{dir: dir, phase: ph}
	d, err := t.dir(dir)
	if err != nil {
		return nil, err
	}
	text, err := readText(d.FS(), path.Base(j.name(ph)), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, targetError("/"+j.name(ph), err)
	}
	in := &jsonReader{data: text}
	in.object(func(key string) {
		switch key {
		case "ops":
			in.list(func() { j.Ops = append(j.Ops, in.op()) })
		case "dirs":
			j.Dirs = in.texts()
		case "emptied":
			j.Emptied = in.texts()
		default:
			in.skip()
		}
	})
	if err := in.end(); err != nil {
		return nil, invalid("/"+j.name(ph), "%w", err)
	}
	for _, o := range j.Ops {
		if problem := pathProblem(o.Path); problem != "" {
			return nil, invalid("/"+j.name(ph), "path %s %s", quote(o.Path), problem)
		}
	}
	for _, dir := range slices.Concat(j.Dirs, j.Emptied) {
		if problem := pathProblem(dir); problem != "" {
			return nil, invalid("/"+j.name(ph), "folder %s %s", quote(dir), problem)
		}
	}
	return j, nil
}

func (r *jsonReader) op() (o op) {
	r.object(func(key string) {
		switch key {
		case "kind":
			o.Kind = opKind(r.text())
		case "path":
			o.Path = r.text()
		case "seq":
			o.Seq = int(r.number())
		default:
			r.skip()
		}
	})
	return o
}

// targetDirs are all folders that targets of any environment may stand in, and those above them, sorted.
func (m *Manifest) targetDirs(l layout) []string {
	seen := map[string]bool{".": true}
	add := func(name string) {
		for dir := path.Dir(name); !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
		}
	}
	for _, env := range m.Environments {
		for i := range env.Files {
			if env.Files[i].Action != Pointer {
				add(env.Files[i].Path)
			}
		}
	}
	if len(m.links()) > 0 {
		add(l.current())
	}
	return slices.Sorted(maps.Keys(seen))
}

// first is the target that comes first of all environments' targets; what belongs to all of them stands beside it.
func (m *Manifest) first(l layout) string {
	first := ""
	if len(m.links()) > 0 {
		first = l.current()
	}
	for _, env := range m.Environments {
		for i := range env.Files {
			if f := &env.Files[i]; f.Action != Pointer && (first == "" || f.Path < first) {
				first = f.Path
			}
		}
	}
	return first
}
