package place

import (
	"fmt"
	"path"
)

// Committed is an earlier transaction that had put its files in place when its process ended, so
// that the caller may not have written that down.
type Committed struct {
	// Files are the paths of the targets that it created or replaced.
	Files []string
	// Dirs are the directories that it made, parents first.
	Dirs []string
}

// Recover undoes or completes the transactions that were cut short, and returns the completed ones.
// dirs are all directories in which a journal may stand: those of all targets that any transaction
// may have, and those above. A directory that does not exist or cannot be reached is passed over.
// step is called with the name of each step before it is done; nil calls nothing. The caller holds
// the lock. The error matches [ErrInvalid] when a journal cannot be read.
func Recover(t *Tree, dirs []string, step func(name string)) ([]Committed, error) {
	if step == nil {
		step = noStep
	}
	var committed []Committed
	for _, dir := range dirs {
		if _, err := t.Dir(dir); err != nil {
			continue // Diff reports it where it matters
		}
		draft := path.Join(dir, draftName)
		if found, _ := t.Exists(draft); found {
			if err := t.Remove(draft); err != nil {
				return nil, TargetError("/"+draft, err)
			}
		}
		for _, p := range []phase{phaseStage, phaseCommit, phaseDone} {
			j, err := readJournal(t, dir, p)
			if err != nil {
				return nil, err
			}
			if j == nil {
				continue
			}
			if p == phaseDone {
				committed = append(committed, j.committed())
				err = j.clean(t, step)
			} else {
				err = j.undo(t, step)
			}
			if err != nil {
				return nil, fmt.Errorf("recover from an interrupted start: %w", err)
			}
		}
	}
	return committed, nil
}

func noStep(string) {}

func (j *journal) committed() Committed {
	c := Committed{Dirs: j.Dirs}
	for i := range j.Ops {
		if o := &j.Ops[i]; o.Kind != Remove {
			c.Files = append(c.Files, o.Path)
		}
	}
	return c
}
