package envconfig

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
)

// copyBuffer bounds the memory that a file takes on its way, whatever its size.
const copyBuffer = 64 << 10

// hasher is what it takes to read a file and tell its sum.
type hasher struct {
	hash.Hash
	sum    [sha256.Size]byte
	buffer [copyBuffer]byte
}

var hashers = sync.Pool{New: func() any { return &hasher{Hash: sha256.New()} }}

// takeHasher returns one to use and to put back into hashers.
func takeHasher() *hasher {
	h := hashers.Get().(*hasher)
	h.Reset()
	return h
}

// readAll reads until the end, and passes on what it reads to each, which may be nil.
func (h *hasher) readAll(from io.Reader, each func([]byte) error) (read int64, err error) {
	for {
		n, err := from.Read(h.buffer[:])
		_, _ = h.Write(h.buffer[:n]) // never fails
		if each != nil && n > 0 {
			if err := each(h.buffer[:n]); err != nil {
				return read, err
			}
		}
		read += int64(n)
		if errors.Is(err, io.EOF) {
			return read, nil
		}
		if err != nil {
			return read, err
		}
	}
}

// isSum compares what was read with a sum in hexadecimal.
func (h *hasher) isSum(want string) bool {
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], h.Sum(h.sum[:0]))
	return string(text[:]) == want
}

// transaction carries out a plan so that it is done as a whole or not at all.
//
// A journal beside the first target goes through three names: while it is "stage", new files are written beside their
// targets and no target has changed; while it is "commit", targets are replaced one by one; once it is "done", nothing is
// undone any more and only leftovers have to go. Each change of the name is one rename. A journal that is found at the next
// start tells how far the last one came.
type transaction struct {
	targets *tree
	source  *tree
	durable bool
	step    func(string)

	journal *journal
	bytes   int64
}

// run does everything up to the point where the old files could go.
func (x *transaction) run(ctx context.Context, p *plan) error {
	if len(p.ops) == 0 {
		return context.Cause(ctx)
	}
	err := x.stage(ctx, p)
	if err == nil {
		err = x.commit(ctx, p)
	}
	if err == nil || x.journal == nil {
		return err
	}
	if undoErr := x.journal.undo(x.targets, x.step); undoErr != nil {
		return errors.Join(err, fmt.Errorf("undo: %w; the next start tries again", undoErr))
	}
	return err
}

func (x *transaction) stage(ctx context.Context, p *plan) error {
	x.step("journal")
	var err error
	if x.journal, err = startJournal(x.targets, p); err != nil {
		return err
	}
	for _, dir := range p.missing {
		x.step("mkdir " + dir)
		if err := x.mkdir(dir); err != nil {
			return targetError("/"+dir, err)
		}
	}
	for i := range p.ops {
		o := &p.ops[i]
		if o.Kind == opRemove {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		x.step("stage " + o.Path)
		if err := x.stageFile(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (x *transaction) mkdir(dir string) error {
	parent, base, err := x.targets.split(dir)
	if err != nil {
		return err
	}
	if err := parent.Mkdir(base, 0o700); err != nil {
		return err
	}
	clear(x.targets.absent)
	d, err := parent.Open(base)
	if err != nil {
		return err
	}
	return errors.Join(d.Chmod(0o755), d.Close())
}

// stageFile puts what is wanted beside the target, and holds a copy to what the manifest says.
func (x *transaction) stageFile(ctx context.Context, o *op) error {
	w := o.want
	if w.link != "" {
		if err := x.targets.symlink(o.fresh(), w.link); err != nil {
			return targetError("/"+o.Path, err)
		}
		if _, err := x.targets.root.Stat(o.fresh()); err != nil {
			return fmt.Errorf("/%s: %w: a link there does not lead to %s, because a folder on the way is a link itself: use the action copy: %w",
				o.Path, ErrTarget, w.link, err)
		}
		return nil
	}
	if w.Action == Fill {
		return x.write(ctx, o, bytes.NewReader(w.content))
	}
	src, err := x.source.read(w.Source)
	if err != nil {
		return sourceFileError(w.Source, err)
	}
	return errors.Join(x.write(ctx, o, &sized{src, w.Size}), src.Close())
}

func (x *transaction) write(ctx context.Context, o *op, content io.Reader) error {
	h := takeHasher()
	defer hashers.Put(h)
	err := x.targets.create(o.fresh(), o.want.Mode, func(w io.Writer) error {
		n, err := h.readAll(content, func(p []byte) error {
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
		return targetError("/"+o.Path, err)
	}
	if !h.isSum(o.want.SHA256) {
		return mismatch(o.want.Source)
	}
	return nil
}

// sourceFileError is an error about one file of the source folder.
func sourceFileError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), isNoFolder(err):
		return fmt.Errorf("%s: %w: %w", name, ErrIncomplete, err)
	case errors.Is(err, fs.ErrPermission):
		return unreadableError{name, err}
	}
	return fmt.Errorf("%s: %w", name, err)
}

// unreadableError matches ErrPermission, whose text speaks of targets.
type unreadableError struct {
	name string
	err  error
}

func (e unreadableError) Error() string {
	return fmt.Sprintf("%s: uid %d may not read it: %v", e.name, os.Geteuid(), cause(e.err))
}
func (e unreadableError) Is(target error) bool { return target == ErrPermission }
func (e unreadableError) Unwrap() error        { return e.err }

func (x *transaction) commit(ctx context.Context, p *plan) error {
	x.step("commit")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := x.journal.advance(x.targets, phaseCommit); err != nil {
		return err
	}
	for i := range p.ops {
		o := &p.ops[i]
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := x.swap(o); err != nil {
			return targetError("/"+o.Path, err)
		}
	}
	if x.durable {
		x.step("sync")
		if err := x.sync(p); err != nil {
			return err
		}
	}
	x.step("done")
	return x.journal.advance(x.targets, phaseDone)
}

// sync comes before the old files are given up: until then a start after a loss of power finds the journal and undoes.
func (x *transaction) sync(p *plan) error {
	synced := map[uint64]bool{}
	for i := range p.ops {
		d, err := x.targets.dir(path.Dir(p.ops[i].Path))
		if err == nil {
			err = d.sync(synced)
		}
		if err != nil {
			return targetError("/"+p.ops[i].Path, err)
		}
	}
	return nil
}

// swap puts the new file in the target's place and keeps the old one under another name.
func (x *transaction) swap(o *op) error {
	if o.Kind != opCreate {
		x.step("save " + o.Path)
		if err := x.save(o); err != nil {
			return err
		}
	}
	if o.Kind == opRemove {
		x.step("remove " + o.Path)
		return x.targets.remove(o.Path)
	}
	x.step("rename " + o.Path)
	return x.targets.rename(o.fresh(), o.Path)
}

// save gives the old file a second name. Where links cannot be made, on a file system without them or for a file of
// another user, the old file is moved away, and for a moment there is none.
func (x *transaction) save(o *op) error {
	if err := x.targets.remove(o.saved()); err != nil {
		return err
	}
	if x.targets.link(o.Path, o.saved()) == nil {
		return nil
	}
	return x.targets.rename(o.Path, o.saved())
}

// finish takes the old files and the journal away. It changes no target, so that its errors come after the fact.
func (x *transaction) finish() error {
	if x.journal == nil {
		return nil
	}
	return x.journal.clean(x.targets, x.step)
}

// undoOp brings one target back to what it was. It may be called any number of times.
func undoOp(t *tree, o *op, committing bool) error {
	if committing {
		fresh, err := t.exists(o.fresh())
		if err != nil {
			return err
		}
		saved, err := t.exists(o.saved())
		if err != nil {
			return err
		}
		switch {
		case o.Kind == opCreate && !fresh:
			if err := t.remove(o.Path); err != nil {
				return err
			}
		case saved:
			// Renaming one of two names of the same file onto the other does nothing, so the second name goes separately.
			if err := t.rename(o.saved(), o.Path); err != nil {
				return err
			}
		}
		if err := t.remove(o.saved()); err != nil {
			return err
		}
	}
	if o.Kind == opRemove {
		return nil
	}
	return t.remove(o.fresh())
}

// undo brings every target back, last change first, and takes the journal away.
func (j *journal) undo(t *tree, step func(string)) error {
	t.forget()
	for i := range slices.Backward(j.Ops) {
		o := &j.Ops[i]
		step("undo " + o.Path)
		if err := undoOp(t, o, j.phase == phaseCommit); err != nil && !errors.Is(err, os.ErrNotExist) {
			return targetError("/"+o.Path, err)
		}
	}
	for _, dir := range slices.Backward(j.Dirs) {
		t.forget()
		_ = t.remove(path.Clean(dir)) // not empty: somebody else has put something there
	}
	step("forget")
	return j.remove(t)
}
