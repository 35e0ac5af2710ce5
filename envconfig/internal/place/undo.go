package place

import (
	"errors"
	"io/fs"
	"path"
	"slices"
)

// undo restores every target to its state before the transaction, last change first, and removes
// the journal. It may be called any number of times.
func (j *journal) undo(t *Tree, step func(string)) error {
	undoOp := undoStaged
	if j.phase == phaseCommit {
		undoOp = undoCommitted
	}
	t.Forget()
	for i := range slices.Backward(j.Ops) {
		o := &j.Ops[i]
		step("undo " + o.Path)
		if err := undoOp(t, o); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return TargetError("/"+o.Path, err)
		}
	}
	for _, dir := range slices.Backward(j.Dirs) {
		t.Forget()
		_ = t.Remove(path.Clean(dir)) // not empty: another program has put something there
	}
	step("forget")
	return j.remove(t)
}

// undoStaged removes the new file. The target has not changed yet.
func undoStaged(t *Tree, o *Op) error {
	if o.Kind == Remove {
		return nil
	}
	if o.Spare != "" {
		if err := t.Remove(o.saved()); err != nil {
			return err
		}
	}
	return t.Remove(o.fresh())
}

// undoCommitted brings the old file back to the target, or removes the file that the transaction
// has created there, and removes the new file.
func undoCommitted(t *Tree, o *Op) error {
	if o.Spare != "" {
		return undoInPlace(t, o)
	}
	fresh, err := t.Exists(o.fresh())
	if err != nil {
		return err
	}
	saved, err := t.Exists(o.saved())
	if err != nil {
		return err
	}
	switch {
	case o.Kind == Create && !fresh:
		if err := t.Remove(o.Path); err != nil {
			return err
		}
	case saved:
		// Renaming one of two names of the same file onto the other does nothing, so the second
		// name goes separately.
		if err := t.Rename(o.saved(), o.Path); err != nil {
			return err
		}
	}
	if err := t.Remove(o.saved()); err != nil {
		return err
	}
	return undoStaged(t, o)
}

// clean removes the remains of a transaction in the phase done: old files, emptied directories and
// the journal.
func (j *journal) clean(t *Tree, step func(string)) error {
	for i := range j.Ops {
		if o := &j.Ops[i]; o.Kind != Create {
			step("clean " + o.Path)
			if err := t.Remove(o.saved()); err != nil {
				return TargetError("/"+o.Path, err)
			}
			if o.Spare != "" {
				if err := t.Remove(o.fresh()); err != nil {
					return TargetError("/"+o.Path, err)
				}
			}
		}
	}
	for _, dir := range slices.Backward(j.Emptied) {
		// an open handle of a directory that is gone would make the next operation fail
		t.Forget()
		_ = t.Remove(dir) // a directory that holds something else stays
	}
	step("forget")
	return j.remove(t)
}
