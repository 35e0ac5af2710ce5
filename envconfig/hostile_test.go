//go:build linux

package envconfig

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

func TestOddNamesAreNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 255)
	b := newBox(t, map[string]string{"envs/test/opt/ leading": "1", "envs/test/opt/-rf": "2",
		"envs/test/opt/line\nend": "3", "envs/test/opt/" + long: "4",
		"envs/test/opt/ünïcode": "5", "envs/test/opt/..hidden": "6", "envs/test/opt/empty": "",
		`envs/test/opt/"quoted\`: "7"})
	require.NoError(t, os.Link(b.root+"/etc/envconfig/envs/test/opt/-rf",
		b.root+"/etc/envconfig/envs/test/opt/second-name"))
	withManifest(t, b)
	require.Equal(t, 9, b.activate("test").Created)
	require.Equal(t, `-rw-r--r-- "3"`, b.tree()["opt/line\nend"])
	require.Equal(t, 9, b.activate("test").Kept)
	drift, err := b.activator().Verify()
	require.NoError(t, err)
	require.Empty(t, drift)
}

func TestSourceTreesThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(dir string) error
		want string
	}{
		"not UTF-8": {func(dir string) error {
			return os.WriteFile(dir+"/\xff\xfe", nil, 0o644)
		}, "is not UTF-8"},
		"pipe": {func(dir string) error {
			return syscall.Mkfifo(dir+"/p", 0o644)
		}, "is a pipe"},
		"socket": {func(dir string) error {
			return syscall.Mknod(dir+"/s", syscall.S_IFSOCK|0o644, 0)
		}, "is a socket"},
		"link out": {func(dir string) error {
			return os.Symlink("/etc/passwd", dir+"/l")
		}, "leaves envs/"},
		"directory, slash": {func(dir string) error {
			return os.Symlink("../../../../", dir+"/l")
		}, "leaves envs/"},
		"link to directory": {func(dir string) error {
			return os.Symlink("..", dir+"/l")
		}, "only links to files can be activated"},
		"dangling link": {func(dir string) error {
			return os.Symlink("absent", dir+"/l")
		}, "no such file"},
		"link to itself": {func(dir string) error { return os.Symlink("l", dir+"/l") }, "circle"},
		"deep path": {func(dir string) error {
			for range 18 { // each step by itself is short enough for the system
				if err := os.Mkdir(dir+"/"+strings.Repeat("d", 240), 0o755); err != nil {
					return err
				}
				if err := os.Chmod(dir, 0o755); err != nil {
					return err
				}
				dir += "/" + strings.Repeat("d", 240)
				if len(dir) > 3700 {
					break
				}
			}
			return os.WriteFile(dir+"/"+strings.Repeat("f", 300), nil, 0o644)
		}, "file name too long"},
	} {
		b := newBox(t, map[string]string{"envs/test/opt/fine": "x"})
		err := c.make(b.root + "/etc/envconfig/envs/test/opt")
		if err == nil {
			err = b.refuse("test", ErrInvalid)
		}
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	t.Parallel()
	fresh := func() *box {
		return newBox(t, map[string]string{"envs/test/opt/a": "x", "envs/production/opt/b": "y"})
	}
	b := fresh()
	withManifest(t, b)
	good, err := os.ReadFile(b.root + "/etc/envconfig/manifest.json")
	require.NoError(t, err)
	for name, c := range map[string]struct{ content, want string }{
		"empty":   {"", `"{" expected at byte 0`},
		"cut off": {string(good[:len(good)/2]), "expected at byte"},
		"garbage": {strings.Repeat("\x00", 1000), `"{" expected`},
		"more":    {string(good) + "{}", "the end expected"},
		"future": {strings.Replace(string(good), `"version": 1`, `"version": 2`, 1),
			"version 2, this envconfig knows version 1"},
		"by hand": {strings.Replace(string(good), `"0644"`, `"0666"`, 1),
			"write it anew with envconfig manifest"},
		"nesting bomb": {`{"version":1,"x":` + strings.Repeat("[", 1<<20), "less nesting"},
		"escape": {strings.ReplaceAll(string(good), `"opt/a"`, `"../a"`),
			"is not a clean relative path"},
		"mode": {strings.Replace(string(good), `"0644"`, `"4755"`, 1),
			"permission bits in octal"},
	} {
		b := fresh()
		b.write("etc/envconfig/manifest.json", c.content, 0o644)
		require.ErrorContains(t, b.refuse("test", ErrInvalid), c.want, name)
	}
	b = fresh()
	require.NoError(t, os.WriteFile(b.root+"/etc/envconfig/manifest.json", nil, 0o644))
	require.NoError(t, os.Truncate(b.root+"/etc/envconfig/manifest.json", 1<<40))
	require.ErrorContains(t, b.refuse("test", ErrInvalid), "longer than")
}

// The manifest has the environment, and the directory that it names has changed.
func TestEnvironmentWhoseDirectoryIsGone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(dir string) error{
		"gone":  os.RemoveAll,
		"empty": func(dir string) error { return os.RemoveAll(dir + "/opt") },
		"a file": func(dir string) error {
			_ = os.RemoveAll(dir)
			return os.WriteFile(dir, nil, 0o644)
		},
		"a pipe": func(dir string) error {
			_ = os.RemoveAll(dir)
			return syscall.Mkfifo(dir, 0o644)
		},
	} {
		for _, action := range []Action{Copy, Link, Pointer} {
			b := newBox(t, map[string]string{SpecName: `{"paths":[{"match":"opt/**","action":"` +
				string(action) + `"}]}`, "envs/test/opt/a": "x"})
			_, err := b.activator().Bake()
			require.NoError(t, err)
			withManifest(t, b)
			again := newBox(t, nil)
			require.NoError(t, os.CopyFS(again.root, os.DirFS(b.root)))
			require.NoError(t, change(b.root+"/etc/envconfig/envs/test"), name)
			b.refuse("test", ErrIncomplete)
			again.activate("test")
			require.NoError(t, change(again.root+"/etc/envconfig/envs/test"), name)
			if action != Copy { // a copied file is there
				again.refuse("test", ErrIncomplete)
			}
		}
	}
}

// A pipe without a writer is in the place of a file that a start or verify reads: an error, or done
// without, and no wait.
func TestPipesAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	const spec = `{"paths":[{"match":"opt/link","action":"link"},{"match":"opt/own","action":"pointer"},{"match":"opt/base","action":"pointer"},{"match":"opt/fill","action":"render"}],
		"render":{"files":["/run/secrets/*"]},"witnesses":[{"file":"/etc/who"}]}`
	fresh := func() *box {
		b := newBox(t, map[string]string{SpecName: spec, "envs/test/opt/copy": "x",
			"envs/test/opt/link": "x", "envs/test/opt/own": "x", "envs/_base/opt/base": "x",
			"envs/_base/real": "x", "envs/test/opt/fill": "${file:/run/secrets/s}"})
		b.write("run/secrets/s", "x", 0o600)
		b.write("etc/who", "test", 0o644)
		require.NoError(t, os.Symlink("../../_base/real",
			b.root+"/etc/envconfig/envs/test/opt/far"))
		_, err := b.activator().Bake()
		require.NoError(t, err)
		withManifest(t, b)
		return b
	}
	pipe := func(b *box, name string) {
		t.Helper()
		name = filepath.Join(b.root, name)
		_ = os.RemoveAll(name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, syscall.Mkfifo(name, 0o644))
	}
	const source, noPipe = "etc/envconfig/", "is a pipe, not a file"
	for _, c := range []struct {
		name string
		want error
		text string
	}{
		{"etc/envconfig", ErrIncomplete, "not a directory"},
		{source + ManifestName, ErrInvalid, noPipe},
		{source + "envs/test/opt/copy", ErrInvalid, "not what the manifest says"},
		{source + "envs/test/opt/fill", ErrInvalid, noPipe},
		{source + "envs/_base/real", ErrInvalid, noPipe}, // behind a link
		{"run/secrets/s", ErrInvalid, "file /run/secrets/s (" + noPipe + ")"},
		{"etc/who", ErrUnknownEnvironment, noPipe},
		{"opt/" + place.TempPrefix + "journal-" + "stage", ErrInvalid, noPipe},
	} {
		b := fresh()
		pipe(b, c.name)
		before := b.tree()
		_, err := inTime(t, func() (Result, error) {
			return b.activator().Activate(t.Context(), "test")
		})
		require.ErrorIs(t, err, c.want, c.name)
		require.ErrorContains(t, err, c.text)
		require.Equal(t, before, b.tree())
	}
	b := fresh()
	require.NoError(t, os.Remove(b.root+"/etc/envconfig/manifest.json"))
	pipe(b, source+SpecName)
	_, err := inTime(t, func() (Result, error) {
		return b.activator().Activate(t.Context(), "test")
	})
	require.ErrorIs(t, err, ErrInvalid)

	// records that cannot be read are done without
	b = fresh()
	pipe(b, DefaultState+"/"+recordName)
	pipe(b, "opt/"+besideName)
	_, err = inTime(t, func() (Result, error) {
		return b.activator().Activate(t.Context(), "test")
	})
	require.NoError(t, err)

	for _, name := range []string{"test/opt/link", "test/opt/own", "_base/opt/base"} {
		b := fresh()
		b.activate("test")
		pipe(b, source+"envs/"+name)
		drift, err := inTime(t, b.activator().Verify)
		require.NoError(t, err)
		require.Equal(t, []Drift{{"opt/" + filepath.Base(name), "has other content than the " +
			"manifest says"}}, drift)
	}
}

// inTime fails the test where do has not come back, rather than leaving that to the end of all
// tests.
func inTime[T any](t *testing.T, do func() (T, error)) (result T, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err = do()
	}()
	select {
	case <-done:
		return result, err
	case <-time.After(time.Minute):
		t.Fatal("waits for a pipe")
		panic("not reached")
	}
}

func TestSourceThatThisUserMayNotRead(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	b := newBox(t, map[string]string{"envs/test/opt/a": "x"})
	withManifest(t, b)
	require.NoError(t, os.Chmod(b.root+"/etc/envconfig/envs/test/opt/a", 0))
	require.NoError(t, os.Mkdir(b.root+"/opt", 0o755))
	require.NoError(t, os.Chown(b.root+"/opt", 54321, 54321))
	out, code := asUser(t, b.root, 54321)
	require.Equal(t, 77, code, out)
	require.Contains(t, out, "envs/test/opt/a: uid 54321 may not read it: permission denied")
	require.NotContains(t, b.tree(), "opt/a")
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may give files to other users or make them immutable")
	}
}

// A user without an entry in /etc/passwd, as OpenShift makes them, may write a directory through
// its group only.
func TestDirectoryThatOnlyTheGroupMayWrite(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	b := newBox(t, map[string]string{"envs/test/opt/a": "x"})
	require.NoError(t, os.Mkdir(b.root+"/opt", 0o755))
	require.NoError(t, os.Chown(b.root+"/opt", 0, 54321))
	require.NoError(t, os.Chmod(b.root+"/opt", 0o775|fs.ModeSetgid))
	out, code := asUser(t, b.root, 54321)
	require.Equal(t, 0, code, out)
	require.Equal(t, `-rw-r--r-- "x"`, b.tree()["opt/a"])
	info, err := os.Stat(b.root + "/opt/a")
	require.NoError(t, err)
	require.EqualValues(t, 54321, info.Sys().(*syscall.Stat_t).Uid)
}

func TestImmutableTarget(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	b := newBox(t, map[string]string{"envs/test/opt/a": "new", "envs/test/opt/b": "new",
		"envs/test/opt/c": "new"})
	for _, name := range []string{"opt/a", "opt/b", "opt/c"} {
		b.write(name, "old", 0o644)
	}
	out, err := exec.Command("chattr", "+i", b.root+"/opt/b").CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { _ = exec.Command("chattr", "-i", b.root+"/opt/b").Run() })
	require.ErrorContains(t, b.refuse("test", ErrPermission), "/opt/b")
	require.NoError(t, exec.Command("chattr", "-i", b.root+"/opt/b").Run())
	b.activate("test")
}

func TestTargetsThatAreLinks(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{"envs/test/opt/dangling": "x", "envs/test/opt/loop": "x"})
	require.NoError(t, os.Mkdir(b.root+"/opt", 0o755))
	require.NoError(t, os.Symlink("/nowhere/at/all", b.root+"/opt/dangling"))
	require.NoError(t, os.Symlink("loop", b.root+"/opt/loop"))
	b.activate("test")
	require.Equal(t, `-rw-r--r-- "x"`, b.tree()["opt/dangling"])
	require.Equal(t, `-rw-r--r-- "x"`, b.tree()["opt/loop"])
}

// A volume that may not hold programs or set-id files is a volume like any other, and so is one of
// another file system.
func TestOtherFileSystem(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	b := newBox(t, map[string]string{"envs/test/vol/a": "x", "envs/test/opt/b": "y"})
	b.mount("tmpfs", "vol", "")
	require.NoError(t, syscall.Mount("none", b.root+"/vol", "",
		syscall.MS_REMOUNT|syscall.MS_NOEXEC|syscall.MS_NOSUID|syscall.MS_NODEV, ""))
	b.activate("test")
	require.Equal(t, `-rw-r--r-- "x"`, b.tree()["vol/a"])
}

// A sparse file takes no room where it is, and all of it where it goes.
func TestFileThatDoesNotFit(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	b := newBox(t, map[string]string{"envs/test/vol/small": "x"})
	b.mount("tmpfs", "vol", "size=1m")
	require.NoError(t, os.WriteFile(b.root+"/etc/envconfig/envs/test/vol/huge", nil, 0o644))
	require.NoError(t, os.Truncate(b.root+"/etc/envconfig/envs/test/vol/huge", 64<<20))
	b.refuse("test", syscall.ENOSPC)
}

func TestClockThatGoesBack(t *testing.T) {
	t.Parallel()
	b := mixed(t)
	_, err := b.activator().Bake()
	require.NoError(t, err)
	for i, environment := range []string{"test", "production", "test"} {
		a := b.activator()
		a.Now = func() time.Time { return time.Unix(int64(1e9-i*1e8), 0) }
		_, err := a.Activate(t.Context(), environment)
		require.NoError(t, err)
	}
	require.NotContains(t, b.tree(), "opt/fresh")
	status, err := b.activator().Status()
	require.NoError(t, err)
	require.Equal(t, "test", status.Environment)
}

// Process 1 of two containers that share a volume has the same process id: names of temporary files
// must not draw on them, and a lock that a killed start has held is gone.
func TestStartsThatShareAVolume(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{"envs/test/vol/a": strings.Repeat("x", 1<<20)})
	exe, err := os.Executable()
	require.NoError(t, err)
	var starts []*exec.Cmd
	for range 10 {
		cmd := exec.Command(exe, b.root, "test")
		cmd.Env = append(os.Environ(), killVariable+"=1000")
		require.NoError(t, cmd.Start())
		starts = append(starts, cmd)
	}
	for _, cmd := range starts {
		require.NoError(t, cmd.Wait())
	}
	require.Equal(t, 1, b.activate("test").Kept)
	for name := range b.tree() {
		require.False(t, strings.HasPrefix(filepath.Base(name), place.TempPrefix),
			fmt.Sprintf("%q was left", name))
	}
}
