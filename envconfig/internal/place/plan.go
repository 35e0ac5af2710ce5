package place

import (
	"errors"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Kind is the kind of a change of a target.
type Kind string

// The kinds of change. Journals hold these words.
const (
	Create  Kind = "create"
	Replace Kind = "replace"
	Remove  Kind = "remove"
)

// Op is one change of the tree.
type Op struct {
	Kind Kind
	// Path of the target.
	Path string
	// Seq numbers the op, and with it the names of its temporary files.
	Seq int
	// Spare is the directory of the temporary files of a target that is written in place; empty
	// for all others.
	Spare string

	file int // index of the wanted file
}

// fresh is the name of the new content until it is renamed to Path; saved is the name of the old
// content until the end of the transaction.
func (o *Op) fresh() string { return o.temporary(".new") }
func (o *Op) saved() string { return o.temporary(".old") }

func (o *Op) temporary(ending string) string {
	if o.Spare != "" {
		return path.Join(o.Spare, TempPrefix+strconv.Itoa(o.Seq)+ending)
	}
	return o.Path[:strings.LastIndexByte(o.Path, '/')+1] + TempPrefix + strconv.Itoa(o.Seq) + ending
}

// Plan is the difference between the wanted files and the targets. It is immutable after [Diff].
type Plan struct {
	// Ops are the changes: the files to create and to replace in the order of the wanted files,
	// then those to remove.
	Ops []Op
	// Kept counts the wanted files that stand at their targets already.
	Kept int

	files []File
	// missing are the directories that have to be made, parents first.
	missing []string
	// emptied are directories made by earlier transactions that may be empty afterwards, parents
	// first.
	emptied []string
}

// Diff compares the wanted files, which are sorted by path and have no path twice, with the
// targets. stale are the paths of files to remove; made are the directories that earlier
// transactions have made, parents first, which a removal may leave empty. All problems are reported
// at once; they match [ErrTarget] or [ErrPermission] or are plain I/O errors.
func Diff(t *Tree, files []File, stale, made []string) (*Plan, error) {
	p := &Plan{files: files}
	if err := p.compare(t); err != nil {
		return nil, err
	}
	for _, name := range stale {
		p.Ops = append(p.Ops, Op{Kind: Remove, Path: name})
	}
	for i := range p.Ops {
		p.Ops[i].Seq = i
	}
	if len(stale) > 0 {
		p.emptied = slices.Clone(made)
	}
	if err := p.findMissing(t); err != nil {
		return nil, err
	}
	return p, nil
}

// atOnce is the number of files from which on a second goroutine pays.
const atOnce = 256

// compare adds the ops for the wanted files.
func (p *Plan) compare(t *Tree) error {
	half := len(p.files)
	var ops []Op
	var err error
	var other sync.WaitGroup
	if half >= atOnce && runtime.GOMAXPROCS(0) > 1 {
		half /= 2
		other.Go(func() {
			own := NewTree(t.root) // a Tree is for one goroutine
			defer own.Forget()
			ops, err = compare(own, p.files, half, len(p.files))
		})
	}
	first, firstErr := compare(t, p.files, 0, half)
	other.Wait()
	p.Ops = append(first, ops...)
	p.Kept = len(p.files) - len(p.Ops)
	return errors.Join(firstErr, err)
}

// compare returns the ops for files[from:to].
func compare(t *Tree, files []File, from, to int) (ops []Op, err error) {
	var problems []error
	for i := from; i < to; i++ {
		f := &files[i]
		kind, err := t.Compare(f)
		switch {
		case err != nil:
			problems = append(problems, TargetError("/"+f.Path, err))
		case kind == "":
		default:
			if ops == nil {
				ops = make([]Op, 0, to-i) // mostly all files differ, or none
			}
			ops = append(ops, Op{Kind: kind, Path: f.Path, file: i})
		}
	}
	return ops, errors.Join(problems...)
}

// findMissing lists the directories that do not exist yet.
func (p *Plan) findMissing(t *Tree) error {
	seen := map[string]bool{}
	for _, o := range p.Ops {
		for dir := path.Dir(o.fresh()); dir != "." && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			if _, err := t.Dir(dir); errors.Is(err, fs.ErrNotExist) {
				p.missing = append(p.missing, dir)
			} else if err != nil {
				return TargetError("/"+dir, err)
			}
		}
	}
	slices.Sort(p.missing)
	return nil
}

// Made returns the directories that transactions have made, sorted: the directories of before that
// still exist, and the directories that p makes.
func (p *Plan) Made(t *Tree, before []string) []string {
	dirs := slices.Clone(p.missing)
	for _, dir := range before {
		if _, err := t.Dir(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}
