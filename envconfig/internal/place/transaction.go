package place

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
)

// Contents gives a [Transaction] the content of the wanted files.
type Contents interface {
	// Open opens the content of the wanted file with that index. The transaction closes it.
	Open(i int) (io.ReadCloser, error)
	// Mismatch returns the error for a content that does not have the SHA-256 of the wanted file
	// with that index.
	Mismatch(i int) error
}

// Transaction carries out a [Plan] as a whole or not at all. The package comment has the protocol.
type Transaction struct {
	// Targets is the tree that the plan was made for. Required.
	Targets *Tree
	// Contents gives the content of regular files. Required unless the plan has links and removals
	// only.
	Contents Contents
	// Durable synchronises the file systems of the targets before the old files are removed, by one
	// syncfs(2) for each, so that the change outlives a loss of power. The default is false. On
	// operating systems other than Linux it does nothing.
	Durable bool
	// Step is called with the name of each step before it is done; tests end the process there. The
	// default is none.
	Step func(name string)

	journal *journal
	bytes   int64
}

// Bytes returns the number of bytes written to targets.
func (x *Transaction) Bytes() int64 { return x.bytes }

// Run does everything up to the point where nothing is undone any more. After an error all targets
// are as they were before; where the undoing itself fails, the error says so, too, and the next
// [Recover] tries again. A cancelled ctx is an error, its cause. The caller holds the lock.
func (x *Transaction) Run(ctx context.Context, p *Plan) error {
	if x.Step == nil {
		x.Step = noStep
	}
	if len(p.Ops) == 0 {
		return context.Cause(ctx)
	}
	err := x.stage(ctx, p)
	if err == nil {
		err = x.commit(ctx, p)
	}
	if err == nil || x.journal == nil {
		return err
	}
	if undoErr := x.journal.undo(x.Targets, x.Step); undoErr != nil {
		return errors.Join(err, fmt.Errorf("undo: %w; the next start tries again", undoErr))
	}
	return err
}

// Finish removes the old files and the journal. It changes no target, so its errors come after the
// fact.
func (x *Transaction) Finish() error {
	if x.journal == nil {
		return nil
	}
	return x.journal.clean(x.Targets, x.Step)
}

func (x *Transaction) stage(ctx context.Context, p *Plan) error {
	x.Step("journal")
	var err error
	if x.journal, err = startJournal(x.Targets, p); err != nil {
		return err
	}
	for _, dir := range p.missing {
		x.Step("mkdir " + dir)
		if err := x.Targets.mkdir(dir); err != nil {
			return TargetError("/"+dir, err)
		}
	}
	for i := range p.Ops {
		o := &p.Ops[i]
		if o.Kind == Remove {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		x.Step("stage " + o.Path)
		if err := x.stageFile(ctx, o, &p.files[o.file]); err != nil {
			return err
		}
		if o.Spare != "" {
			x.Step("copy " + o.Path)
			if err := x.saveCopy(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// stageFile puts the wanted file beside the target.
func (x *Transaction) stageFile(ctx context.Context, o *Op, f *File) error {
	if f.Link != "" {
		if err := x.Targets.symlink(o.fresh(), f.Link); err != nil {
			return TargetError("/"+o.Path, err)
		}
		if _, err := x.Targets.root.Stat(o.fresh()); err != nil {
			return fmt.Errorf("/%s: a link there does not lead to %s, because a directory on the "+
				"way "+
				"is a link itself: use the action copy: %w: %w", o.Path, f.Link, err, ErrTarget)
		}
		return nil
	}
	content, err := x.Contents.Open(o.file)
	if err != nil {
		return err
	}
	return errors.Join(x.write(ctx, o, f, &sized{content, f.Size}), content.Close())
}

// write copies the content and holds it to the SHA-256 of f.
func (x *Transaction) write(ctx context.Context, o *Op, f *File, content io.Reader) error {
	h := NewHasher()
	defer h.Release()
	err := x.Targets.Create(o.fresh(), f.Mode, func(w io.Writer) error {
		n, err := h.ReadAll(content, func(p []byte) error {
			if ctx.Err() != nil { // a file may be large
				return context.Cause(ctx)
			}
			_, err := w.Write(p)
			return err
		})
		x.bytes += n
		return err
	})
	if err != nil {
		return TargetError("/"+o.Path, err)
	}
	if !h.Is(f.SHA256) {
		return x.Contents.Mismatch(o.file)
	}
	return nil
}

func (x *Transaction) commit(ctx context.Context, p *Plan) error {
	x.Step("commit")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if x.Durable { // the copies of what is written in place
		if err := x.sync(p, func(o *Op) bool { return o.Spare != "" }); err != nil {
			return err
		}
	}
	if err := x.journal.advance(x.Targets, phaseCommit); err != nil {
		return err
	}
	for i := range p.Ops {
		o := &p.Ops[i]
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := x.swap(o); err != nil {
			return TargetError("/"+o.Path, err)
		}
	}
	if x.Durable {
		x.Step("sync")
		if err := x.sync(p, func(*Op) bool { return true }); err != nil {
			return err
		}
	}
	x.Step("done")
	return x.journal.advance(x.Targets, phaseDone)
}

// sync comes before the phase done: until then recovery after a loss of power finds the journal and
// undoes. It passes over the ops that are not of the kind.
func (x *Transaction) sync(p *Plan, kind func(*Op) bool) error {
	synced := map[uint64]bool{}
	for i := range p.Ops {
		o := &p.Ops[i]
		if !kind(o) {
			continue
		}
		d, err := x.Targets.Dir(path.Dir(o.fresh()))
		if err == nil {
			err = d.sync(".", synced)
		}
		if err == nil && o.Spare != "" { // a mount is on a file system of its own
			if d, base, splitErr := x.Targets.Split(o.Path); splitErr == nil {
				err = d.sync(base, synced)
			}
		}
		if err != nil {
			return TargetError("/"+o.Path, err)
		}
	}
	return nil
}

// swap puts the new file in the target's place and keeps the old one under another name.
func (x *Transaction) swap(o *Op) error {
	if o.Spare != "" {
		x.Step("write " + o.Path)
		return x.Targets.overwrite(o.Path, o.fresh())
	}
	if o.Kind != Create {
		x.Step("save " + o.Path)
		if err := x.save(o); err != nil {
			return err
		}
	}
	if o.Kind == Remove {
		x.Step("remove " + o.Path)
		return x.Targets.Remove(o.Path)
	}
	x.Step("rename " + o.Path)
	return x.Targets.Rename(o.fresh(), o.Path)
}

// save gives the old file a second name. Where links cannot be made, on a file system without them
// or for a file of another user, it renames the old file, and for a moment the target does not
// exist.
func (x *Transaction) save(o *Op) error {
	if err := x.Targets.Remove(o.saved()); err != nil {
		return err
	}
	if x.Targets.link(o.Path, o.saved()) == nil {
		return nil
	}
	return x.Targets.Rename(o.Path, o.saved())
}
