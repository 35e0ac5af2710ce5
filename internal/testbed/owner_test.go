//go:build linux

package testbed

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestProcessIsStoppedResumedKilledAndRestarted(t *testing.T) {
	t.Parallel()
	o := Own(t)
	dir := o.TestDir(t, "shell")
	p := Start(t, dir, Command{Name: "shell", Path: "/bin/sh",
		Args: []string{"-c", "echo up >>ready; sleep 1000 & sleep 2000"},
		Ready: func(context.Context) error {
			_, err := os.Stat(filepath.Join(dir, "ready"))
			return err
		}})
	children(t, dir)
	p.Pause()
	p.Resume()
	p.Pause()
	p.Kill()
	<-p.Done()
	require.Empty(t, of(t, dir))
	require.NoError(t, os.Remove(filepath.Join(dir, "ready")))
	p.Start()
	require.FileExists(t, filepath.Join(dir, "ready"))
	p.Stop()
	require.Empty(t, of(t, dir))
}

func TestProcessThatHidesItsEnvironmentIsFoundByItsGroup(t *testing.T) {
	t.Parallel()
	o := Own(t)
	dir := o.TestDir(t, "hidden")
	p := Start(t, dir, Command{Name: "hidden", Path: "/usr/bin/env", Args: []string{"-i", "/bin/sh",
		"-c", "sleep 1000 & sleep 2000"}})
	children(t, dir)
	p.Kill()
	require.Empty(t, of(t, dir))
}

func TestStrangerInADirectoryDoesNotBelong(t *testing.T) {
	t.Parallel()
	dir := Own(t).TestDir(t, "looked-at")
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"},
		&os.ProcAttr{Dir: dir, Env: []string{"A=" + dir}})
	require.NoError(t, err)
	defer child.Wait()
	defer child.Kill()
	require.Empty(t, of(t, dir))
	require.NoError(t, KillAll(dir))
	require.NoError(t, child.Signal(syscall.Signal(0)))
}

func TestServerThatEndsIsNotReady(t *testing.T) {
	t.Parallel()
	o := Own(t)
	p := &Process{dir: o.TestDir(t, "broken"), c: Command{Name: "broken", Path: "/bin/sh",
		Args:  []string{"-c", "echo the reason; exit 3"},
		Ready: func(context.Context) error { return fs.ErrNotExist }}}
	require.ErrorContains(t, p.Begin(), "the reason")
}

func TestPortsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 50 {
		port := Port(t)
		require.False(t, seen[port])
		seen[port] = true
		_, err := holdPort(port)
		require.Error(t, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, err = holdPort(l.Addr().(*net.TCPAddr).Port)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

func TestShareStartsOnce(t *testing.T) {
	t.Parallel()
	name, starts := "share-"+strconv.Itoa(os.Getpid()), 0
	t.Run("users", func(t *testing.T) {
		for range 4 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				o := Share(t, name, func(o *Owner) error {
					starts++
					dir, err := o.MakeDir("sleeper")
					if err != nil {
						return err
					}
					_, err = StartShared(dir, Command{Name: "sleeper", Path: "/bin/sleep",
						Args: []string{"1000"}})
					return err
				})
				require.Len(t, of(t, o.Dir), 1)
			})
		}
	})
	require.NoDirExists(t, filepath.Join(bedDir(), name))
}

func TestShareThatCannotStartLeavesNothing(t *testing.T) {
	t.Parallel()
	Own(t)
	name := "unstartable-" + strconv.Itoa(os.Getpid())
	_, err := join(name, func(*Owner) error { return fs.ErrInvalid })
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.NoDirExists(t, filepath.Join(bedDir(), name))
}

func of(t *testing.T, dir string) []int {
	t.Helper()
	pids, err := Processes(dir)
	require.NoError(t, err)
	return pids
}

// children waits until there is more than one process.
func children(t *testing.T, dir string) {
	t.Helper()
	Poll(t, "a child", func() error {
		if n := len(of(t, dir)); n < 2 {
			return fmt.Errorf("%d processes", n)
		}
		return nil
	})
}

func TestOwnerThatCannotBeRemovedIsLetGo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // a bed that nobody else cleans; not parallel for that
	o, err := newOwner(t)
	require.NoError(t, err)
	require.NoError(t, o.Record("sysctl", "none/such=1"))
	require.Error(t, o.end())
	again, err := lockPath(o.Dir, unix.LOCK_EX|unix.LOCK_NB, makeDir)
	require.NoError(t, err, "the lock is free")
	require.FileExists(t, filepath.Join(o.Dir, resourcesFile))
	require.NoError(t, again.Close())
}
