//go:build linux

package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Owner is a directory with everything that a test binary has started and made. While the kernel
// holds a lock on the directory for a process, the owner lives; without one, the next test binary
// that starts removes the directory and every resource on its record. The directories themselves
// are locked, so there are no lock files. Its methods are safe for concurrent use.
type Owner struct {
	Dir  string // absolute path
	lock *os.File
}

// bedDir is the directory of the owners of this user. It is there only while one of them is.
func bedDir() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("sluice-testbed-%d", os.Geteuid()))
}

var mine struct {
	sync.Mutex
	*Owner // nil without users
	users  int
}

// Own returns the owner of this test binary and holds it until the test has ended.
func Own(t testing.TB) *Owner {
	t.Helper()
	mine.Lock()
	defer mine.Unlock()
	if mine.Owner == nil {
		o, err := newOwner(t)
		if err != nil {
			t.Fatal(err)
		}
		mine.Owner = o
	}
	mine.users++
	t.Cleanup(func() {
		mine.Lock()
		defer mine.Unlock()
		if mine.users--; mine.users == 0 {
			if err := mine.Owner.end(); err != nil {
				t.Error(err)
			}
			mine.Owner = nil
		}
	})
	return mine.Owner
}

func newOwner(t testing.TB) (*Owner, error) {
	bed, err := lockBed()
	if err != nil {
		return nil, err
	}
	defer bed.Close()
	if err := cleanDead(); err != nil {
		t.Logf("what a test binary that was killed has left behind is still there: %v", err)
	}
	self, err := readStat(os.Getpid())
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(bedDir(), fmt.Sprintf("%d-%d", self.pid, self.start))
	lock, err := lockPath(dir, unix.LOCK_EX, makeDir)
	if err != nil {
		return nil, err
	}
	return &Owner{Dir: dir, lock: lock}, nil
}

// end removes the owner with everything in it.
func (o *Owner) end() error {
	bed, err := lockBed()
	if err != nil {
		return err
	}
	defer bed.Close()
	err = remove(o.Dir)
	o.unlock() // whatever is left: who comes next tries again, be it this test binary
	return errors.Join(err, removeBed())
}

// unlock releases the lock explicitly, not by closing alone: a child between fork and exec holds a
// copy of the open file.
func (o *Owner) unlock() {
	_ = flock(o.lock, unix.LOCK_UN)
	o.lock.Close()
}

// TestDir makes a directory for a server of a test. It is removed when the test has ended.
func (o *Owner) TestDir(t testing.TB, name string) string {
	t.Helper()
	return DirIn(t, o.Dir, name)
}

// DirIn makes a directory in another one, which is removed when the test has ended.
func DirIn(t testing.TB, parent, name string) string {
	t.Helper()
	dir, err := makeDirIn(parent, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmountAndRemove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// MakeDir makes a directory for a server that lives as long as the owner.
func (o *Owner) MakeDir(name string) (string, error) { return makeDirIn(o.Dir, name) }

func makeDirIn(parent, name string) (string, error) {
	dir, err := os.MkdirTemp(parent, name+"-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // servers drop their rights and enter it as another user
}

// cleanDead removes the owners that no process holds. The caller holds the lock of the bed.
func cleanDead() error {
	entries, err := os.ReadDir(bedDir())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(bedDir(), e.Name())
		lock, err := lockPath(path, unix.LOCK_EX|unix.LOCK_NB, func(string) error { return nil })
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			continue // lives
		case err == nil:
			err = remove(path)
			lock.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// lockBed makes the directory of the owners and locks it. Its holder alone makes and removes
// owners.
func lockBed() (*os.File, error) {
	f, err := lockPath(bedDir(), unix.LOCK_EX, makeDir)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		err = fmt.Errorf("%s belongs to another user: remove it or set TMPDIR", bedDir())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func removeBed() error {
	err := os.Remove(bedDir())
	if errors.Is(err, unix.ENOTEMPTY) {
		return nil // others live
	}
	return err
}

func makeDir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// lockPath makes a path and locks it. The returned file is at that path, and not a file that was
// removed meanwhile.
func lockPath(path string, how int, create func(string) error) (*os.File, error) {
	for {
		if err := create(path); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err == nil {
			if err = flock(f, how); err == nil && isAt(f, path) {
				return f, nil
			}
			f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

func isAt(f *os.File, path string) bool {
	held, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(held, there)
}

// Dir makes a temporary directory that every user may enter, such as Nginx's workers, which run as
// another user than the test. It is removed when the test has ended.
func Dir(t testing.TB) string {
	t.Helper()
	return Own(t).TestDir(t, "files")
}
