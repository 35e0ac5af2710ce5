//go:build linux

package envconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCopyHasExactModesWhateverTheUmask(t *testing.T) {
	old := syscall.Umask(0o077) // of the whole process: not in parallel
	defer syscall.Umask(old)
	b := newBox(t, map[string]string{
		SpecName:              `{"paths":[{"match":"**/*.sh","mode":"0755"},{"match":"opt/private","mode":"0600"}]}`,
		"envs/test/opt/a.sh":  "",
		"envs/test/opt/plain": "",
	})
	b.write("etc/envconfig/envs/test/opt/private", "", 0o666)
	b.activate("test")
	require.Equal(t, map[string]string{"opt": "drwxr-xr-x", "opt/a.sh": `-rwxr-xr-x ""`,
		"opt/plain": `-rw-r--r-- ""`, "opt/private": `-rw------- ""`},
		only(b.tree(), "opt"))
}

func only(tree map[string]string, prefix string) map[string]string {
	out := map[string]string{}
	for name, what := range tree {
		if name == prefix || strings.HasPrefix(name, prefix+"/") {
			out[name] = what
		}
	}
	return out
}

func TestSecondStartWritesNothing(t *testing.T) {
	t.Parallel()
	b := mixed(t)
	_, err := b.activator().Bake()
	require.NoError(t, err)
	b.activate("test")
	times := changeTimes(t, b.root)
	r := b.activate("test")
	require.Equal(t, Result{Environment: "test", Digest: r.Digest, Kept: r.Kept}, r)
	require.Equal(t, times, changeTimes(t, b.root))
}

// changeTimes shows the inode and the time of the last change of everything: a write, a rename or a
// new mode would show.
func changeTimes(t *testing.T, root string) map[string][3]int64 {
	t.Helper()
	seen := map[string][3]int64{}
	require.NoError(t, filepath.Walk(root, func(name string, info os.FileInfo, err error) error {
		if err == nil {
			st := info.Sys().(*syscall.Stat_t)
			seen[name] = [3]int64{int64(st.Ino), st.Ctim.Sec, st.Ctim.Nsec}
		}
		return err
	}))
	return seen
}

func TestThereAndBackLeavesNothingOfTheOther(t *testing.T) {
	t.Parallel()
	b := mixed(t)
	_, err := b.activator().Bake()
	require.NoError(t, err)
	b.activate("test")
	test := b.tree()
	b.activate("production")
	require.NotContains(t, b.tree(), "opt/gone")
	require.NotContains(t, b.tree(), "srv/unlinked")
	b.activate("test")
	require.Equal(t, test, b.tree())
}

func TestFilesOfTheOtherEnvironmentGoWithoutARecordToo(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{"envs/test/a/only": "x", "envs/test/a/common": "t",
		"envs/production/a/common": "p"})
	b.activate("test")
	require.NoError(t, os.RemoveAll(filepath.Join(b.root, DefaultState)))
	b.activate("production")
	require.NotContains(t, b.tree(), "a/only")
}

func TestFileOfTheImageItselfStays(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{"envs/test/a/only": "test", "envs/production/a/common": "p"})
	b.write("a/only", "the image's own", 0o644)
	b.activate("production")
	require.Contains(t, b.tree(), "a/only")
}

func TestRender(t *testing.T) {
	t.Parallel()
	source := map[string]string{
		SpecName: `{"paths":[{"match":"etc/app","action":"render"}],"render":{"variables":["HOST","PORT","EMPTY"],"files":["/run/secrets/*"]}}`,
		"envs/test/etc/app": `host=${HOST} port=${PORT:-80} empty=${EMPTY} pass=${file:/run/secrets/db} ` +
			`nginx=$host ${host} log4j=${sys:x:-y} %d{ISO} $${HOST} ${file:/etc/passwd} ${HOST`,
	}
	b := newBox(t, source)
	err := b.refuseWith("test", ErrInvalid, nil)
	require.ErrorContains(t, err, "variable HOST for etc/app, variable EMPTY for etc/app, file "+
		"/run/secrets/db (no such file or directory) for etc/app")
	b.write("run/secrets/db", "s3cret\n", 0o400)
	a := b.activator()
	a.Lookup = func(name string) (string, bool) {
		return map[string]string{"HOST": "db-${PORT}", "EMPTY": ""}[name], name != "PORT"
	}
	_, err = a.Activate(t.Context(), "test")
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(b.root, "etc/app"))
	require.NoError(t, err)
	require.Equal(t,
		`host=db-${PORT} port=80 empty= pass=s3cret nginx=$host ${host} log4j=${sys:x:-y} %d{ISO} $db-${PORT} ${file:/etc/passwd} ${HOST`, string(data))
	info, err := os.Stat(filepath.Join(b.root, "etc/app"))
	require.NoError(t, err)
	require.Equal(t, "-rw-r-----", info.Mode().String(), "a file that holds a secret is not for "+
		"everyone")
	drift, err := a.Verify()
	require.NoError(t, err)
	require.Empty(t, drift)
}

// refuseWith is refuse with variables.
func (b *box) refuseWith(environment string, want error, variables map[string]string) error {
	b.t.Helper()
	before := b.tree()
	a := b.activator()
	a.Lookup = func(name string) (string, bool) { v, ok := variables[name]; return v, ok }
	_, err := a.Activate(b.t.Context(), environment)
	require.ErrorIs(b.t, err, want)
	require.Equal(b.t, before, b.tree())
	return err
}

func TestPointerIsOneLinkWhateverTheNumber(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{
		SpecName:                         `{"paths":[{"match":"opt/web/conf/**","action":"pointer"}]}`,
		"envs/_base/opt/web/conf/base":   "base",
		"envs/test/opt/web/conf/a":       "test",
		"envs/production/opt/web/conf/a": "production",
	})
	err := b.refuse("test", ErrTarget)
	require.ErrorContains(t, err, "run envconfig manifest --bake when it is built")
	links, err := b.activator().Bake()
	require.NoError(t, err)
	require.Equal(t, []string{"opt/web/conf"}, links)
	source, err := os.OpenRoot(filepath.Join(b.root, DefaultSource))
	require.NoError(t, err)
	m, err := Scan(source.FS())
	require.NoError(t, err)
	require.NoError(t, WriteManifest(source, m))
	for _, env := range []string{"test", "production"} {
		r := b.activate(env)
		require.Equal(t, 1, r.Created+r.Replaced)
		for name, want := range map[string]string{"a": env, "base": "base"} {
			data, err := os.ReadFile(filepath.Join(b.root, "opt/web/conf", name))
			require.NoError(t, err)
			require.Equal(t, want, string(data))
		}
	}
	b.write("etc/envconfig/envs/production/opt/web/conf/a", "by hand", 0o644)
	drift, err := b.activator().Verify()
	require.NoError(t, err)
	require.Equal(t, []Drift{{"opt/web/conf/a", "has other content than the manifest says"}}, drift)
}

func TestVerifyNamesEveryDrift(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{"envs/test/a/content": "x", "envs/test/a/gone": "x",
		"envs/test/a/mode": "x", "envs/test/a/type": "x", "envs/test/a/well": "x"})
	b.activate("test")
	b.write("a/content", "y", 0o644)
	b.write("a/mode", "x", 0o666)
	require.NoError(t, os.Remove(filepath.Join(b.root, "a/gone")))
	require.NoError(t, os.Remove(filepath.Join(b.root, "a/type")))
	require.NoError(t, os.Mkdir(filepath.Join(b.root, "a/type"), 0o755))
	drift, err := b.activator().Verify()
	require.NoError(t, err)
	require.Equal(t, []Drift{{"a/content", "has other content"}, {"a/gone", "is gone"},
		{"a/mode", "has the mode 0666, was put in place with 0644"},
		{"a/type", "is a directory now"}},
		drift)
	status, err := b.activator().Status()
	require.NoError(t, err)
	require.Equal(t, "test", status.Environment)
	require.Equal(t, 5, status.Files)

	b = newBox(t, map[string]string{SpecName: `{"paths":[{"match":"a/*","action":"link"}]}`,
		"envs/test/a/behind": "x", "envs/test/a/link": "x", "envs/test/b": "x"})
	withManifest(t, b)
	b.activate("test")
	b.write("etc/envconfig/envs/test/a/behind", "y", 0o644)
	b.write("b", "y", 0o644)
	require.NoError(t, os.Remove(filepath.Join(b.root, "a/link")))
	drift, err = b.activator().Verify()
	require.NoError(t, err)
	require.Equal(t, []Drift{{"a/behind", "has other content than the manifest says"},
		{"a/link", "is gone"}, {"b", "has other content"}}, drift)
}

func TestWitnessMustAgree(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ witness, file, want string }{
		{`{"file":"/etc/deploy-env"}`, "production\n", ""},
		{`{"file":"/etc/deploy-env"}`, "sandbox\n", `says "sandbox"`},
		{`{"file":"/etc/deploy-env"}`, "", `says ""`},
		{`{"file":"/etc/absent"}`, "", "there is no such file"},
		{`{"file":"/etc/deploy-env","key":"env"}`, "app=\"x\"\nenv=\"production\"\n", ""},
		{`{"file":"/etc/deploy-env","key":"env"}`, "env=\"test\"\n", `says "test"`},
		{`{"file":"/etc/deploy-env","key":"env"}`, "environment=\"production\"\n", "has no key"},
		{`{"hostname":"web-{env}-*"}`, "", ""},
		{`{"hostname":"{env}-*"}`, "", `host name "web-production-1" does not match`},
		{`{"file":"/etc/absent","environments":["test"]}`, "", ""},
	} {
		b := newBox(t, map[string]string{SpecName: `{"witnesses":[` + c.witness + `]}`,
			"envs/production/opt/a": "x"})
		b.write("etc/deploy-env", c.file, 0o644)
		before := b.tree()
		a := b.activator()
		a.Hostname = func() (string, error) { return "web-production-1", nil }
		_, err := a.Activate(t.Context(), "production")
		if c.want == "" {
			require.NoError(t, err, c)
			continue
		}
		require.ErrorIs(t, err, ErrUnknownEnvironment)
		require.ErrorContains(t, err, c.want)
		require.Equal(t, before, b.tree())
	}
}

// The new files are on the disk before the old files go, with one call for the one file system.
func TestDurable(t *testing.T) {
	t.Parallel()
	b := mixed(t)
	_, err := b.activator().Bake()
	require.NoError(t, err)
	b.activate("test")
	var late []string
	a := b.activator()
	a.Durable = true
	a.step = func(name string) {
		if name == "sync" || len(late) > 0 {
			late = append(late, strings.Fields(name)[0])
		}
	}
	_, err = a.Activate(t.Context(), "production")
	require.NoError(t, err)
	require.Equal(t, []string{"sync", "done"}, late[:2])
	require.NotContains(t, late, "rename")
	require.Contains(t, late, "clean")
	a.Durable = false
	late = nil
	_, err = a.Activate(t.Context(), "test")
	require.NoError(t, err)
	require.Empty(t, late)
}

// atOnce is the number of files from which on [place.Diff] uses a second goroutine.
const atOnce = 256

// So many files are compared by two goroutines: each half has a file that was changed, and each a
// directory that is in the way.
func TestManyFilesAreComparedAtOnce(t *testing.T) {
	t.Parallel()
	source := map[string]string{}
	for i := range 2 * atOnce {
		source[fmt.Sprintf("envs/test/opt/d%d/f%03d", i/100, i)] = strings.Repeat("x", i)
	}
	b := newBox(t, source)
	require.Equal(t, 2*atOnce, b.activate("test").Created)
	times := changeTimes(t, b.root)
	require.Equal(t, 2*atOnce, b.activate("test").Kept)
	require.Equal(t, times, changeTimes(t, b.root))

	b.write("opt/d0/f007", "yyyyyyy", 0o644) // of the same size
	b.write("opt/d5/f511", strings.Repeat("x", 511), 0o600)
	r := b.activate("test")
	require.Equal(t, []int{2, 2*atOnce - 2}, []int{r.Replaced, r.Kept})

	for _, name := range []string{"opt/d0/f001", "opt/d5/f510"} {
		require.NoError(t, os.Remove(filepath.Join(b.root, name)))
		require.NoError(t, os.Mkdir(filepath.Join(b.root, name), 0o755))
	}
	err := b.refuse("test", ErrTarget)
	require.ErrorContains(t, err, "/opt/d0/f001: ")
	require.ErrorContains(t, err, "/opt/d5/f510: ")
}

// A record that was written for other files, or in another order, is not taken for the one of this
// start.
func TestRecordIsHeldToWhatIsWanted(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{"envs/test/opt/a": "1", "envs/test/opt/b": "2",
		"envs/test/opt/ü": "3"})
	b.activate("test")
	name := filepath.Join(b.root, DefaultState, recordName)
	written, err := os.ReadFile(name)
	require.NoError(t, err)
	for _, other := range []string{
		strings.Replace(string(written), `"mode":420`, `"mode":384`, 1),
		strings.Replace(string(written), `{"path":"opt/a"`,
			`{"path":"opt/0","sha256":"","mode":420},{"path":"opt/a"`, 1),
		strings.Replace(string(written), `"files":[`, `"files":[ `, 1)[:200],
	} {
		require.NoError(t, os.WriteFile(name, []byte(other), 0o600))
		require.Equal(t, 3, b.activate("test").Kept)
		again, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NotEqual(t, other, string(again))
		status, err := b.activator().Status()
		require.NoError(t, err)
		require.Equal(t, 3, status.Files)
	}
}
