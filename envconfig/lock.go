package envconfig

import (
	"context"
	"errors"
	"path"
	"syscall"
	"time"
)

// lock makes starts that share a target tree take turns. It locks the folder of the first target and every folder above
// it, from the root down, so that starts which see the tree from different roots still meet, and none waits for another
// in a circle. The locks are on the folders themselves: no file is made, and a killed process holds none.
func lock(ctx context.Context, t *tree, first string) (unlock func(), err error) {
	var held []handle
	unlock = func() {
		for _, f := range held {
			f.Close()
		}
	}
	for _, dir := range chain(path.Dir(first)) {
		d, err := t.dir(dir)
		if err != nil {
			break
		}
		f, err := d.again()
		if err != nil {
			break // a folder that may be searched but not read: the ones above it are locked
		}
		held = append(held, f)
		if err := waitLock(ctx, f); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// chain is dir and all folders above it, outermost first.
func chain(dir string) []string {
	if dir == "." {
		return []string{"."}
	}
	return append(chain(path.Dir(dir)), dir)
}

// lockPoll is how long a start waits before it asks again for a lock that another one holds.
const lockPoll = 5 * time.Millisecond

// handle is an open folder.
type handle interface {
	Fd() uintptr
	Close() error
}

func waitLock(ctx context.Context, f handle) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil // held, or a file system without locks, where starts must not share
		}
		if ctx.Err() != nil { // not Done, which the entrypoint's context does not have
			return context.Cause(ctx)
		}
		time.Sleep(lockPoll)
	}
}
