package place

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"

	"github.com/sluice-deploy/sluice/envconfig/internal/fastjson"
)

// phase is how far a transaction has come; see the package comment.
type phase string

const (
	phaseStage  phase = "stage"
	phaseCommit phase = "commit"
	phaseDone   phase = "done"
)

// draftName is the name of a small file before it is renamed to its own.
const draftName = TempPrefix + "draft"

// maxJournal bounds the bytes read from a journal.
const maxJournal = 128 << 20

// journal holds the data that undo and clean need of a transaction that was cut short.
type journal struct {
	Ops []Op
	// Dirs are directories that the transaction makes, Emptied the directories that it may leave
	// empty; parents before children.
	Dirs    []string
	Emptied []string

	dir   string // where the journal stands
	phase phase
}

func (j *journal) name(p phase) string { return path.Join(j.dir, TempPrefix+"journal-"+string(p)) }

// startJournal writes the journal of p, which has at least one op, into the nearest existing
// directory of the first target.
func startJournal(t *Tree, p *Plan) (*journal, error) {
	dir, err := t.nearest(path.Dir(p.Ops[0].fresh()))
	if err != nil {
		return nil, TargetError("/"+dir, err)
	}
	j := &journal{Ops: p.Ops, Dirs: p.missing, Emptied: p.emptied, dir: dir, phase: phaseStage}
	if err := t.Replace(j.name(phaseStage), j.json()); err != nil {
		return nil, TargetError("/"+dir, err)
	}
	return j, nil
}

// advance marks that the next phase has begun.
func (j *journal) advance(t *Tree, next phase) error {
	if err := t.Rename(j.name(j.phase), j.name(next)); err != nil {
		return TargetError("/"+j.name(j.phase), err)
	}
	j.phase = next
	return nil
}

func (j *journal) remove(t *Tree) error {
	if err := t.Remove(j.name(j.phase)); err != nil {
		return TargetError("/"+j.name(j.phase), err)
	}
	return nil
}

// opSize is roughly the size in bytes of an op with a short path in a journal.
const opSize = 80

// json returns the form that readJournal reads.
func (j *journal) json() []byte {
	b := make([]byte, 0, 256+opSize*len(j.Ops))
	b = fastjson.AppendList(append(b, `{"ops":`...), len(j.Ops), func(b []byte, i int) []byte {
		o := &j.Ops[i]
		b = fastjson.AppendText(append(b, `{"kind":`...), string(o.Kind))
		b = fastjson.AppendText(append(b, `,"path":`...), o.Path)
		b = strconv.AppendInt(append(b, `,"seq":`...), int64(o.Seq), 10)
		if o.Spare != "" {
			b = fastjson.AppendText(append(b, `,"spare":`...), o.Spare)
		}
		return append(b, '}')
	})
	b = fastjson.AppendTexts(append(b, `,"dirs":`...), j.Dirs)
	b = fastjson.AppendTexts(append(b, `,"emptied":`...), j.Emptied)
	return append(b, "}\n"...)
}

// readJournal returns the journal of that phase in dir, or nil when there is none.
func readJournal(t *Tree, dir string, p phase) (*journal, error) {
	j := &journal{dir: dir, phase: p}
	d, err := t.Dir(dir)
	if err != nil {
		return nil, err
	}
	base := path.Base(j.name(p))
	if _, _, err := d.Look(base); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // as at nearly every start
	}
	text, err := d.ReadText(base, maxJournal)
	if err != nil {
		return nil, TargetError("/"+j.name(p), err)
	}
	in := fastjson.NewReader(text)
	in.Object(func(key string) {
		switch key {
		case "ops":
			in.List(func() { j.Ops = append(j.Ops, readOp(in)) })
		case "dirs":
			j.Dirs = in.Texts()
		case "emptied":
			j.Emptied = in.Texts()
		default:
			in.Skip()
		}
	})
	if err := in.End(); err != nil {
		return nil, invalid("/"+j.name(p), "%w", err)
	}
	return j, j.validate()
}

// readOp reads an op as journal.json writes it.
func readOp(in *fastjson.Reader) (o Op) {
	in.Object(func(key string) {
		switch key {
		case "kind":
			o.Kind = Kind(in.Text())
		case "path":
			o.Path = in.Text()
		case "seq":
			o.Seq = int(in.Number())
		case "spare":
			o.Spare = in.Text()
		default:
			in.Skip()
		}
	})
	return o
}

// validate refuses paths that no transaction has written: recovery removes and renames the files
// that a journal names.
func (j *journal) validate() error {
	for i := range j.Ops {
		if problem := PathProblem(j.Ops[i].Path); problem != "" {
			return invalid("/"+j.name(j.phase), "path %.64q %s", j.Ops[i].Path, problem)
		}
		if dir := j.Ops[i].Spare; dir != "" && dir != "." && PathProblem(dir) != "" {
			return invalid("/"+j.name(j.phase), "directory %.64q %s", dir, PathProblem(dir))
		}
	}
	for _, dir := range slices.Concat(j.Dirs, j.Emptied) {
		if problem := PathProblem(dir); problem != "" {
			return invalid("/"+j.name(j.phase), "directory %.64q %s", dir, problem)
		}
	}
	return nil
}
