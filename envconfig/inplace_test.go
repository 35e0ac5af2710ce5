//go:build linux

package envconfig

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

// mounts is a box in which the targets opt/conf/a and opt/conf/b are mounts of files outside of the
// root.
type mounts struct {
	*box
	outside string
}

func newMounts(t *testing.T) *mounts {
	b := newBox(t, map[string]string{
		"envs/test/opt/conf/a":       "a of test",
		"envs/production/opt/conf/a": "a of production, longer",
		"envs/test/opt/conf/b":       "b of test, longer", "envs/production/opt/conf/b": "b",
		"envs/test/opt/plain": "plain", "envs/production/opt/plain": "plain of production",
		"envs/production/opt/gone": "gone", SpecName: `{"required":["opt/plain"]}`})
	m := &mounts{b, t.TempDir()}
	for _, name := range []string{"a", "b"} {
		b.write("opt/conf/"+name, "of the image", 0o644)
		require.NoError(t, os.WriteFile(filepath.Join(m.outside, name), []byte("of the machine"),
			0o640))
	}
	b.mount("tmpfs", "scratch", "") // makes the mounts private
	for _, name := range []string{"a", "b"} {
		m.bind(name)
	}
	return m
}

func (m *mounts) bind(name string) {
	m.t.Helper()
	target := filepath.Join(m.root, "opt/conf", name)
	require.NoError(m.t, syscall.Mount(filepath.Join(m.outside, name), target, "", syscall.MS_BIND,
		""))
	m.t.Cleanup(func() { _ = syscall.Unmount(target, syscall.MNT_DETACH) })
}

func (m *mounts) activator() *Activator {
	a := m.box.activator()
	a.InPlace = true
	return a
}

func (m *mounts) start(environment string) Result {
	m.t.Helper()
	r, err := m.activator().Activate(m.t.Context(), environment)
	require.NoError(m.t, err)
	return r
}

// recover does no more of a start than to recover from the one before.
func (m *mounts) recover() {
	m.t.Helper()
	s, err := m.activator().newStart("test")
	require.NoError(m.t, err)
	defer s.close()
	require.NoError(m.t, s.open(m.t.Context()))
	_, err = place.Recover(s.targets, s.layout.targetDirs(s.manifest), nil)
	require.NoError(m.t, err)
}

func TestInPlace(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	m := newMounts(t)
	require.ErrorContains(t, m.refuse("test", ErrTarget), "--in-place")
	require.Equal(t, 2, m.start("test").Replaced)
	test := m.tree()
	require.Equal(t, `-rw-r----- "a of test"`, test["opt/conf/a"])
	require.Zero(t, m.start("test").Replaced, "a second start writes nothing")
	drift, err := m.activator().Verify()
	require.NoError(t, err)
	require.Empty(t, drift, "the mode is that of the mount")

	m.start("production")
	production := m.tree()
	require.Equal(t, `-rw-r----- "b"`, production["opt/conf/b"])
	data, err := os.ReadFile(filepath.Join(m.outside, "a"))
	require.NoError(t, err)
	require.Equal(t, "a of production, longer", string(data))

	for _, durable := range []bool{false, true} {
		for at := 0; ; at++ {
			m.start("test")
			a := m.activator()
			a.Durable = durable
			if !runUntil(t, a, "production", at) {
				require.Greater(t, at, 15, "steps")
				break
			}
			m.recover()
			got := m.tree()
			require.True(t, equalTrees(got, test) || equalTrees(got, production), "killed at step "+
				"%d: %v", at, got)
		}
	}
}

// The directory of a mount is mostly of an image that cannot be written: the copies go to the state
// directory.
func TestInPlaceBelowAReadOnlyRoot(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	m := newMounts(t)
	m.start("production")
	m.write("opt/plain", "plain", 0o644) // as test wants it
	require.NoError(t, os.Remove(filepath.Join(m.root, "opt/gone")))
	m.mount("tmpfs", DefaultState, "")
	flags := uintptr(syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY)
	opt := filepath.Join(m.root, "opt")
	require.NoError(t, syscall.Mount(opt, opt, "", syscall.MS_BIND|syscall.MS_REC, ""))
	require.NoError(t, syscall.Mount("", opt, "", flags, ""))
	t.Cleanup(func() { _ = syscall.Unmount(opt, syscall.MNT_DETACH) })
	before := m.tree()
	for at := 0; ; at++ {
		stopped := runUntil(t, m.activator(), "test", at)
		if !stopped {
			require.Greater(t, at, 8, "steps")
			break
		}
		m.recover()
		if got := m.tree(); got["opt/conf/a"] != before["opt/conf/a"] {
			break // it was complete
		}
		require.Equal(t, before, m.tree(), "killed at step %d", at)
	}
	m.start("test")
	require.Equal(t, `-rw-r----- "b of test, longer"`, m.tree()["opt/conf/b"])

	target := filepath.Join(m.root, "opt/conf/a")
	require.NoError(t, syscall.Mount("", target, "", flags, ""))
	require.NoError(t, os.WriteFile(filepath.Join(m.outside, "a"), []byte("changed"), 0o640))
	_, err := m.activator().Activate(t.Context(), "test")
	require.ErrorIs(t, err, ErrPermission)
	require.ErrorContains(t, err, "/opt/conf/a (a mount, read-only file system)")
}

// A copy of content written in place is for the mount: where that is gone, the image's own file
// stays as it is.
func TestInPlaceWhenTheMountIsGone(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	m := newMounts(t)
	m.start("test")
	for at := 0; ; at++ {
		if !runUntil(t, m.activator(), "production", at) {
			require.Greater(t, at, 15, "steps")
			return
		}
		for _, name := range []string{"a", "b"} {
			require.NoError(t, syscall.Unmount(filepath.Join(m.root, "opt/conf", name), 0))
		}
		m.recover()
		require.Equal(t, `-rw-r--r-- "of the image"`, m.tree()["opt/conf/a"])
		for _, name := range []string{"a", "b"} {
			m.bind(name)
		}
		m.start("test")
	}
}

func TestInPlaceOnAFullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	m := newMounts(t)
	m.start("test")
	m.mount("tmpfs", "small", "size=16k")
	m.write("small/c", "old", 0o600)
	for name, size := range map[string]int{"test": 100, "production": 100_000} {
		m.write("etc/envconfig/envs/"+name+"/opt/conf/c", string(make([]byte, size)), 0o644)
	}
	m.write("opt/conf/c", "", 0o644)
	target := filepath.Join(m.root, "opt/conf/c")
	require.NoError(t, syscall.Mount(filepath.Join(m.root, "small/c"), target, "", syscall.MS_BIND,
		""))
	t.Cleanup(func() { _ = syscall.Unmount(target, syscall.MNT_DETACH) })
	m.start("test")
	before := m.tree()
	_, err := m.activator().Activate(t.Context(), "production")
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, before, m.tree())
}
