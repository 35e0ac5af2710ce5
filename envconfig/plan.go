package envconfig

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

type opKind string

const (
	opCreate  opKind = "create"
	opReplace opKind = "replace"
	opRemove  opKind = "remove"
)

// op is one change of the target tree.
type op struct {
	Kind opKind
	Path string
	// Seq numbers the op, and with it the names of its temporary files.
	Seq int

	want *want
}

// fresh is where the new content stands until it is renamed to Path; saved is where the old content is kept meanwhile.
func (o *op) fresh() string { return o.beside(".new") }
func (o *op) saved() string { return o.beside(".old") }

func (o *op) beside(ending string) string {
	return o.Path[:strings.LastIndexByte(o.Path, '/')+1] + tempPrefix + strconv.Itoa(o.Seq) + ending
}

// plan is what it takes to make an environment active.
type plan struct {
	ops  []op
	kept int
	// missing are the folders that have to be made, parents first.
	missing []string
	// emptied are folders made by earlier activations that may be empty afterwards, parents first.
	emptied []string
}

// makePlan compares what is wanted with what stands at the targets.
func makePlan(t *tree, m *Manifest, wanted []want, before *record) (*plan, error) {
	p := &plan{}
	if err := p.compare(t, wanted); err != nil {
		return nil, err
	}
	stale := staleFiles(t, m, wanted, before)
	for _, name := range stale {
		p.ops = append(p.ops, op{Kind: opRemove, Path: name})
	}
	for i := range p.ops {
		p.ops[i].Seq = i
	}
	if before != nil && len(stale) > 0 {
		p.emptied = slices.Clone(before.Dirs)
	}
	return p, p.findMissing(t)
}

// atOnce is how many files make a second goroutine worth its while.
const atOnce = 256

// compare adds what has to be done for the files that are wanted. All problems are reported at once.
func (p *plan) compare(t *tree, wanted []want) error {
	half := len(wanted)
	var ops []op
	var err error
	var other sync.WaitGroup
	if half >= atOnce && runtime.GOMAXPROCS(0) > 1 {
		half /= 2
		other.Go(func() {
			own := &tree{root: t.root} // a tree is for one goroutine
			defer own.forget()
			ops, err = compare(own, wanted[half:])
		})
	}
	first, firstErr := compare(t, wanted[:half])
	other.Wait()
	p.ops = append(first, ops...)
	p.kept = len(wanted) - len(p.ops)
	return errors.Join(firstErr, err)
}

func compare(t *tree, wanted []want) (ops []op, err error) {
	var problems []error
	for i := range wanted {
		w := &wanted[i]
		kind, err := w.compare(t)
		switch {
		case err != nil:
			problems = append(problems, targetError("/"+w.Path, err))
		case kind == "":
		default:
			if ops == nil {
				ops = make([]op, 0, len(wanted)-i) // mostly it is all of them, or none
			}
			ops = append(ops, op{Kind: kind, Path: w.Path, want: w})
		}
	}
	return ops, errors.Join(problems...)
}

// staleFiles are the targets that stand there because of another environment: those of the record, and, for the case
// that the record was lost, those whose content is exactly what another environment of the manifest puts there.
func staleFiles(t *tree, m *Manifest, wanted []want, before *record) []string {
	var stale []string
	if before != nil {
		for _, f := range before.Files {
			if isWanted(wanted, f.Path) {
				continue
			}
			if info, err := t.lstat(f.Path); err == nil && !info.IsDir() {
				stale = append(stale, f.Path)
			}
		}
	}
	for _, env := range m.Environments {
		for i := range env.Files {
			f := &env.Files[i]
			if cmp.Or(f.Action, Copy) != Copy || isWanted(wanted, f.Path) {
				continue
			}
			w := want{File: f}
			if kind, err := w.compare(t); err == nil && kind == "" {
				stale = append(stale, f.Path)
			}
		}
	}
	slices.Sort(stale)
	return slices.Compact(stale)
}

// isWanted reports whether one of wanted, which are sorted by path, has that path.
func isWanted(wanted []want, path string) bool {
	_, found := slices.BinarySearchFunc(wanted, path, func(w want, path string) int { return strings.Compare(w.Path, path) })
	return found
}

// findMissing lists the folders that do not exist yet.
func (p *plan) findMissing(t *tree) error {
	seen := map[string]bool{}
	for _, o := range p.ops {
		for dir := path.Dir(o.Path); dir != "." && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			if _, err := t.dir(dir); errors.Is(err, fs.ErrNotExist) {
				p.missing = append(p.missing, dir)
			} else if err != nil {
				return targetError("/"+dir, err)
			}
		}
	}
	slices.Sort(p.missing)
	return nil
}

// dirs are the folders that activations made: those of before that are still there, and those that p makes.
func (p *plan) dirs(t *tree, before *record) []string {
	dirs := slices.Clone(p.missing)
	if before != nil {
		for _, dir := range before.Dirs {
			if _, err := t.dir(dir); err == nil {
				dirs = append(dirs, dir)
			}
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// preflight reports all targets that this user cannot write, at once.
func (p *plan) preflight(t *tree) error {
	var bad []string
	seen := map[string]bool{}
	for _, o := range p.ops {
		dir, err := t.nearest(path.Dir(o.Path))
		if err != nil {
			return targetError("/"+path.Dir(o.Path), err)
		}
		if o.Kind != opCreate && heldBack(t, o.Path) {
			bad = append(bad, "/"+o.Path+" (of another user, in a folder with the sticky bit)")
		}
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if err := writable(t, dir); err != nil {
			bad = append(bad, err.Error())
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%w by uid %d: %s: give the folders to this user in the image, mount a writable volume there, or use the action pointer",
		ErrPermission, os.Geteuid(), strings.Join(bad, ", "))
}

// writable says why files cannot be made and renamed in dir.
func writable(t *tree, dir string) error {
	d, err := t.dir(dir)
	if err != nil {
		return err
	}
	if err := d.access(); err != nil {
		info, statErr := d.Stat(".")
		if statErr != nil {
			return fmt.Errorf("/%s (%w)", dir, err)
		}
		return fmt.Errorf("/%s (mode %04o%s, %w)", dir, info.Mode().Perm(), owner(info), err)
	}
	return nil
}

// heldBack reports whether the target is in a folder such as /tmp, where only its owner may replace it, and is another user's.
func heldBack(t *tree, name string) bool {
	user := os.Geteuid()
	d, base, err := t.split(name)
	if user == 0 || err != nil {
		return false
	}
	dir, err := d.Stat(".")
	if err != nil || dir.Mode()&fs.ModeSticky == 0 || uid(dir) == user {
		return false
	}
	file, err := d.Lstat(base)
	return err == nil && uid(file) != user
}

func uid(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

func owner(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf(", uid %d, gid %d", st.Uid, st.Gid)
	}
	return ""
}

func (p *plan) result() Result {
	r := Result{Kept: p.kept}
	for _, o := range p.ops {
		switch o.Kind {
		case opCreate:
			r.Created++
		case opReplace:
			r.Replaced++
		case opRemove:
			r.Removed++
		}
	}
	return r
}
