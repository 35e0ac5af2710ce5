package place

import (
	"context"
	"path"
	"time"
)

// Lock waits until no other process works on the targets and returns the function that releases the
// lock. first is the path of the first of all targets that any of the processes may change: its
// directory and every directory above it are locked, from the root down. A directory that does not
// exist or cannot be read ends the chain. A cancelled ctx returns its cause; Lock asks ctx.Err and
// does not use ctx.Done. The locks stay when the Tree forgets its directories.
func Lock(ctx context.Context, t *Tree, first string) (unlock func(), err error) {
	if ctx.Err() != nil { // not Done, which the entrypoint's context does not have
		return nil, context.Cause(ctx)
	}
	var held []handle
	unlock = func() {
		for _, f := range held {
			f.Close()
		}
	}
	for _, dir := range chain(path.Dir(first)) {
		d, err := t.Dir(dir)
		if err != nil {
			break
		}
		f, err := d.again()
		if err != nil {
			break // a directory that may be searched but not read: the ones above it are locked
		}
		held = append(held, f)
		if err := waitLock(ctx, f); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// chain returns dir and all directories above it, outermost first.
func chain(dir string) []string {
	if dir == "." {
		return []string{"."}
	}
	return append(chain(path.Dir(dir)), dir)
}

// lockPoll is the pause between two attempts to take a lock that another process holds.
const lockPoll = 5 * time.Millisecond

func waitLock(ctx context.Context, f handle) error {
	for !tryLock(f) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		time.Sleep(lockPoll)
	}
	return nil
}
