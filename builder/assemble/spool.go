package assemble

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A build keeps its layers in a directory of TempDir that it holds a lock on. The lock ends with the
// process, so that the directory of a killed build is known by its lock: the next engine that
// builds there removes it.

const (
	spoolPrefix    = "sluice-build-"     // of a directory that was locked before it got the name
	unlockedPrefix = ".sluice-spool-new" // of one that may not be locked yet
)

// spool is the directory of one build.
type spool struct {
	dir  string
	lock *os.File
}

// newSpool makes the directory of a build. An engine that sweeps may remove a directory before it is
// locked; then another one is made.
func newSpool(tempDir string) (spool, error) {
	if tempDir == "" {
		tempDir = os.TempDir()
	}
	for try := 1; ; try++ {
		s, err := lockedSpool(tempDir)
		if err == nil || try == 10 || !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
	}
}

func lockedSpool(tempDir string) (spool, error) {
	made, err := os.MkdirTemp(tempDir, unlockedPrefix)
	if err != nil {
		return spool{}, err
	}
	lock, err := os.Open(made)
	if err != nil {
		return spool{}, errors.Join(err, os.RemoveAll(made))
	}
	dir := filepath.Join(tempDir, spoolPrefix+strings.TrimPrefix(filepath.Base(made), unlockedPrefix))
	if _, err = tryLock(lock); err == nil {
		err = os.Rename(made, dir)
	}
	if err != nil {
		return spool{}, errors.Join(err, lock.Close(), os.RemoveAll(made))
	}
	return spool{dir, lock}, nil
}

func (s spool) remove() error { return errors.Join(os.RemoveAll(s.dir), s.lock.Close()) }

// sweep removes the directories of builds whose process has ended. A directory that it
// may not remove stays.
func sweep(tempDir string) {
	if tempDir == "" {
		tempDir = os.TempDir()
	}
	for _, prefix := range []string{spoolPrefix, unlockedPrefix} {
		found, _ := filepath.Glob(filepath.Join(tempDir, prefix+"*"))
		for _, dir := range found {
			removeUnlocked(dir)
		}
	}
}

// removeUnlocked removes the directory unless a process holds its lock.
func removeUnlocked(dir string) {
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return
	}
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	if free, err := tryLock(f); free && err == nil {
		os.RemoveAll(dir)
	}
}
