//go:build linux

package envconfig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const insideVariable = "ENVCONFIG_TEST_INSIDE"

// inNamespace runs the calling test once more in a process with mounts of its own, and reports
// whether this is that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) == t.Name() {
		return true
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideVariable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(),
			Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(),
			Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "%s", out)
	return false
}

func (b *box) mount(kind, dir, options string) {
	b.t.Helper()
	dir = filepath.Join(b.root, dir)
	require.NoError(b.t, os.MkdirAll(dir, 0o755))
	require.NoError(b.t, syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	require.NoError(b.t, syscall.Mount("none", dir, kind, 0, options))
	b.t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

func TestFullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	files := map[string]string{"envs/test/vol/old": "old", "envs/production/vol/old": "new"}
	for i := range 20 {
		files[fmt.Sprintf("envs/production/vol/f%d", i)] = strings.Repeat("x", 10_000)
	}
	for _, options := range []string{"size=64k", "size=8k", "nr_inodes=4", "nr_inodes=9"} {
		b := newBox(t, files)
		b.mount("tmpfs", "vol", options)
		b.activate("test")
		before := b.tree()
		_, err := b.activator().Activate(t.Context(), "production")
		require.ErrorIs(t, err, syscall.ENOSPC, options)
		require.Equal(t, before, b.tree(), options)
		require.NoError(t, syscall.Mount("none", filepath.Join(b.root, "vol"), "",
			syscall.MS_REMOUNT, "size=10m,nr_inodes=1000"))
		b.activate("production")
		b.activate("test")
		require.Equal(t, before, b.tree(), options)
	}
}

func TestReadOnlyTargets(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	b := newBox(t, map[string]string{"envs/test/a/x": "1", "envs/test/b/y/z": "2",
		"envs/test/ok/x": "3"})
	for _, dir := range []string{"a", "b"} {
		b.mount("tmpfs", dir, "")
		require.NoError(t, syscall.Mount("none", filepath.Join(b.root, dir), "",
			syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	}
	err := b.refuse("test", ErrPermission)
	require.ErrorContains(t, err, "/a (mode 0777, uid 0, gid 0, read-only file system), /b (mode "+
		"0777, uid 0, gid 0, read-only file system)")
	require.NotContains(t, err.Error(), "/ok")
}

func TestMountedFileCannotBeReplaced(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	b := newBox(t, map[string]string{"envs/test/opt/a": "new", "envs/test/opt/b": "new",
		"envs/test/opt/c": "new"})
	for _, name := range []string{"opt/a", "opt/b", "outside"} {
		b.write(name, "old", 0o644)
	}
	b.mount("tmpfs", "scratch", "")
	target := filepath.Join(b.root, "opt/b")
	require.NoError(t, syscall.Mount(filepath.Join(b.root, "outside"), target, "", syscall.MS_BIND,
		""))
	err := b.refuse("test", ErrTarget)
	require.ErrorContains(t, err, "/opt/b: it is a mount of its own")
	require.NoError(t, syscall.Unmount(target, 0))
	b.activate("test")
}

// An image's own directories are the lower layer of an overlay: they cannot be renamed, and their
// files are copied up.
func TestOverlay(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	b := mixed(t)
	b.write("opt/changed", "of the image", 0o644)
	b.write("opt/gone/image", "of the image", 0o644)
	_, err := b.activator().Bake()
	require.NoError(t, err)
	layers := &box{t, t.TempDir()}
	layers.mount("tmpfs", "", "")
	for _, dir := range []string{"upper", "work", "merged"} {
		require.NoError(t, os.Mkdir(filepath.Join(layers.root, dir), 0o755))
	}
	merged := filepath.Join(layers.root, "merged")
	require.NoError(t, syscall.Mount("overlay", merged, "overlay", 0,
		fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", b.root, layers.root,
			layers.root)))
	t.Cleanup(func() { _ = syscall.Unmount(merged, syscall.MNT_DETACH) })
	o := &box{t, merged}
	o.activate("test")
	test := o.tree()
	o.activate("production")
	require.Equal(t, `-rw-r--r-- "new"`, o.tree()["opt/changed"])
	require.Contains(t, o.tree(), "opt/gone/image")
	o.activate("test")
	require.Equal(t, test, o.tree())
	// a start that is killed is undone on an overlay as elsewhere
	for at := 5; at < 40; at += 3 {
		o.activate("test")
		if !runUntil(t, o.activator(), "production", at) {
			break
		}
		checkWholeRecord(t, o, test)
	}
}

// checkWholeRecord finds, after the next start, the files of test in place.
func checkWholeRecord(t *testing.T, b *box, test map[string]string) {
	t.Helper()
	b.activate("test")
	require.Equal(t, test, b.tree())
}

func TestUnprivilegedUserIsToldEveryTarget(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		b := newBox(t, map[string]string{"envs/test/a/x": "1"})
		b.write("a/x", "old", 0o644)
		require.NoError(t, os.Chmod(filepath.Join(b.root, "a"), 0o555))
		require.ErrorContains(t, b.refuse("test", ErrPermission), "/a (mode 0555")
		return
	}
	b := newBox(t, map[string]string{"envs/test/a/x": "1", "envs/test/b/y/z": "2",
		"envs/test/mine/x": "3"})
	for _, dir := range []string{"a", "b", "mine"} {
		require.NoError(t, os.Mkdir(filepath.Join(b.root, dir), 0o755))
	}
	require.NoError(t, os.Chown(filepath.Join(b.root, "mine"), 12345, 12345))
	// as in /tmp: everyone may make files, and replace none of others
	for _, name := range []string{"x", "y"} {
		b.write("etc/envconfig/envs/test/sticky/"+name, "new", 0o644)
		b.write("sticky/"+name, "old", 0o666)
	}
	require.NoError(t, os.Chmod(filepath.Join(b.root, "sticky"), 0o777|os.ModeSticky))
	require.NoError(t, os.Chmod(filepath.Dir(b.root), 0o755))
	require.NoError(t, os.Chmod(b.root, 0o755))
	before := b.tree()
	out, code := asUser(t, b.root, 12345)
	require.Equal(t, 77, code, out)
	require.Contains(t, out, "uid 12345 may not write /a (mode 0755, uid 0, gid 0, permission "+
		"denied), /b (mode 0755, uid 0, gid 0, permission denied), "+
		"/sticky/x (of another user, in a directory with the sticky bit), /sticky/y (of another "+
		"user, in a directory with the sticky bit): give")
	require.Equal(t, before, b.tree())
}

// asUser activates test as another user and returns the error's text.
func asUser(t *testing.T, root string, uid uint32) (string, int) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), "test-binary")
	data, err := os.ReadFile(exe)
	require.NoError(t, err)
	syscall.ForkLock.RLock() // a child of another test would hold it open: text file busy
	err = os.WriteFile(copied, data, 0o755)
	syscall.ForkLock.RUnlock()
	require.NoError(t, err)
	for dir := filepath.Dir(copied); dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o005 != 0o005 &&
			strings.Contains(dir, t.Name()) {
			require.NoError(t, os.Chmod(dir, 0o755))
		}
	}
	cmd := exec.Command(copied, root, "test")
	cmd.Env = []string{userVariable + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestTargetsInTheWay(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{"envs/test/opt/dir": "x", "envs/test/opt/pipe": "x",
		"envs/test/opt/fine": "x"})
	require.NoError(t, os.MkdirAll(filepath.Join(b.root, "opt/dir"), 0o755))
	require.NoError(t, syscall.Mkfifo(filepath.Join(b.root, "opt/pipe"), 0o644))
	err := b.refuse("test", ErrTarget)
	require.ErrorContains(t, err, "/opt/dir: a directory is in the way: unusable target")
	require.ErrorContains(t, err, "/opt/pipe: a pipe is in the way")

	b = newBox(t, map[string]string{"envs/test/opt/pipe/below": "x"})
	require.NoError(t, os.Mkdir(filepath.Join(b.root, "opt"), 0o755))
	require.NoError(t, syscall.Mkfifo(filepath.Join(b.root, "opt/pipe"), 0o644))
	require.ErrorContains(t, b.refuse("test", ErrTarget), "/opt/pipe/below: a file is where a "+
		"directory has to be")

	// a path that is a file in one environment and a directory in the other
	b = newBox(t, map[string]string{"envs/test/opt/x": "x", "envs/production/opt/x/below": "x"})
	b.activate("test")
	require.ErrorContains(t, b.refuse("production", ErrTarget), "/opt/x/below: a file is where a "+
		"directory has to be")
	require.NoError(t, os.Remove(filepath.Join(b.root, "opt/x")))
	b.activate("production")
	require.ErrorContains(t, b.refuse("test", ErrTarget), "/opt/x: a directory is in the way")
}

func TestNothingIsWrittenThroughALink(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(outside+"/victim", []byte("untouched"), 0o644))
	b := newBox(t, map[string]string{"envs/test/opt/a": "x"})
	require.NoError(t, os.Mkdir(b.root+"/opt", 0o755))
	require.NoError(t, os.Symlink(outside+"/victim", b.root+"/opt/a"))
	b.activate("test")
	require.Equal(t, `-rw-r--r-- "x"`, b.tree()["opt/a"])
	data, err := os.ReadFile(outside + "/victim")
	require.NoError(t, err)
	require.Equal(t, "untouched", string(data))

	b = newBox(t, map[string]string{"envs/test/opt/a": "x"})
	require.NoError(t, os.Symlink(outside, b.root+"/opt"))
	require.ErrorContains(t, b.refuse("test", ErrTarget), "escapes")
	require.NoFileExists(t, outside+"/a")

	b = newBox(t, map[string]string{"envs/test/opt/a": "x"})
	require.NoError(t, os.Mkdir(b.root+"/opt-1.2", 0o755))
	require.NoError(t, os.Symlink("opt-1.2", b.root+"/opt"))
	b.activate("test")
	require.FileExists(t, b.root+"/opt-1.2/a", "a link that stays inside is followed")
}

func TestConcurrentStarts(t *testing.T) {
	t.Parallel()
	b := mixed(t)
	_, err := b.activator().Bake()
	require.NoError(t, err)
	b.activate("production")
	production := b.tree()
	b.activate("test")
	test := b.tree()
	var wg sync.WaitGroup
	results := make([]error, 10)
	for i := range results {
		wg.Go(func() {
			_, results[i] = b.activator().Activate(t.Context(), []string{"test", "production"}[i%2])
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(results...))
	require.True(t, equalTrees(b.tree(), test) || equalTrees(b.tree(), production), "%v", b.tree())
}

func TestBigFileTakesConstantMemory(t *testing.T) {
	// not parallel: allocations are counted for the whole process
	b := newBox(t, map[string]string{"envs/test/opt/small": ""})
	f, err := os.Create(filepath.Join(b.root, DefaultSource, "envs/test/opt/big"))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(64<<20))
	require.NoError(t, f.Close())
	m, err := Scan(os.DirFS(filepath.Join(b.root, DefaultSource)))
	require.NoError(t, err)
	a := b.activator()
	a.Manifest = m
	allocated := testing.Benchmark(func(b *testing.B) {
		if b.N == 1 {
			_, err = a.Activate(t.Context(), "test")
		}
	}).AllocedBytesPerOp()
	require.NoError(t, err)
	require.Less(t, allocated, int64(4<<20))
	info, err := os.Stat(filepath.Join(b.root, "opt/big"))
	require.NoError(t, err)
	require.EqualValues(t, 64<<20, info.Size())
}
