//go:build linux

package testbed

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

var shares struct {
	sync.Mutex
	all map[string]*shareState
}

type shareState struct {
	*Owner
	users int
}

// Share returns an owner that several test binaries hold at once, and holds it until the test has
// ended. The first test binary makes its server, by start, while the others wait; it ends when its
// last holder leaves, or, if that was killed, at the next start of a test binary. The processes of
// start have to outlive this test binary: StartShared, Owner.MakeDir, Owner.Record.
func Share(t testing.TB, name string, start func(o *Owner) error) *Owner {
	t.Helper()
	Own(t) // the dead are cleaned first
	shares.Lock()
	defer shares.Unlock()
	s := shares.all[name]
	if s == nil {
		o, err := join(name, start)
		if err != nil {
			t.Fatal(err)
		}
		if shares.all == nil {
			shares.all = map[string]*shareState{}
		}
		s = &shareState{Owner: o}
		shares.all[name] = s
	}
	s.users++
	t.Cleanup(func() {
		shares.Lock()
		defer shares.Unlock()
		if s.users--; s.users == 0 {
			delete(shares.all, name)
			if err := s.leave(); err != nil {
				t.Error(err)
			}
		}
	})
	return s.Owner
}

// startedFile is in the directory of a shared owner once start has succeeded.
const startedFile = "started"

func join(name string, start func(o *Owner) error) (*Owner, error) {
	o, err := hold(name)
	if err != nil {
		return nil, err
	}
	// One at a time looks whether it has to start, in a file that is cleaned as an owner is.
	gate, err := lockPath(filepath.Join(bedDir(), name+".start"), unix.LOCK_EX,
		func(path string) error {
			f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		})
	if err != nil {
		return nil, errors.Join(err, o.leave())
	}
	defer gate.Close()
	started := filepath.Join(o.Dir, startedFile)
	if _, err := os.Stat(started); err == nil {
		return o, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, o.leave())
	}
	// Another test binary may have been killed in its start, while others hold a share.
	err = empty(o.Dir)
	if err == nil {
		err = start(o)
	}
	if err == nil {
		err = os.WriteFile(started, nil, 0o644)
	}
	if err != nil {
		return nil, errors.Join(err, empty(o.Dir), o.leave())
	}
	return o, nil
}

// hold takes a share in the lock of an owner.
func hold(name string) (*Owner, error) {
	bed, err := lockBed()
	if err != nil {
		return nil, err
	}
	defer bed.Close()
	if err := cleanDead(); err != nil {
		return nil, err
	}
	dir := filepath.Join(bedDir(), name)
	lock, err := lockPath(dir, unix.LOCK_SH|unix.LOCK_NB, makeDir)
	return &Owner{Dir: dir, lock: lock}, err
}

// leave gives the share back, and removes the owner when no share is left.
func (o *Owner) leave() error {
	bed, err := lockBed()
	if err != nil {
		return err
	}
	defer bed.Close()
	o.unlock()
	return errors.Join(cleanDead(), removeBed())
}
