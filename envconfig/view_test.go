package envconfig

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// withSecret is a source directory that mixes files behind a baked link with files that are
// written at the start, of every action, in several directories.
func withSecret(t *testing.T) *box {
	b := newBox(t, map[string]string{
		SpecName: `{"paths":[{"match":"opt/conf/**","action":"pointer"},{"match":"opt/own","action":"pointer"},
			{"match":"**/*.secret","action":"render","mode":"0600"},{"match":"opt/conf/copied","action":"copy","mode":"0640"},
			{"match":"opt/conf/linked","action":"link"}],"render":{"variables":["SECRET"]}}`,
		"envs/_base/opt/conf/base":                "base",
		"envs/_base/opt/conf/deep/er/base":        "base",
		"envs/_base/opt/conf/plain/a":             "a",
		"envs/_base/opt/conf/copied":              "copied",
		"envs/_base/opt/conf/linked":              "linked",
		"envs/_base/opt/own":                      "own",
		"envs/_base/etc/elsewhere.secret":         "${SECRET}",
		"envs/test/opt/conf/deep/db.secret":       "test ${SECRET}",
		"envs/test/opt/conf/deep/test-only":       "x",
		"envs/production/opt/conf/deep/db.secret": "production ${SECRET}",
		"envs/production/opt/conf/deep/er/own":    "x",
	})
	_, err := b.activator().Bake()
	require.NoError(t, err)
	return b
}

// reached returns the files that a service finds in a directory, by name.
func (b *box) reached(name string) map[string]string {
	b.t.Helper()
	files := map[string]string{}
	root := filepath.Join(b.root, name)
	entries, err := os.ReadDir(root + "/.")
	require.NoError(b.t, err)
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(root, e.Name()))
		require.NoError(b.t, err, "a link that leads nowhere")
		if info.IsDir() {
			for below, content := range b.reached(filepath.Join(name, e.Name())) {
				files[e.Name()+"/"+below] = content
			}
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, e.Name()))
		require.NoError(b.t, err)
		files[e.Name()] = string(data)
	}
	return files
}

func TestView(t *testing.T) {
	t.Parallel()
	b := withSecret(t)
	common := map[string]string{"base": "base", "plain/a": "a", "copied": "copied",
		"linked": "linked", "deep/er/base": "base"}
	want := func(more map[string]string) map[string]string {
		for name, content := range common {
			more[name] = content
		}
		return more
	}
	start := func(environment, secret string) Result {
		t.Helper()
		a := b.activator()
		a.Lookup = func(string) (string, bool) { return secret, true }
		r, err := a.Activate(t.Context(), environment)
		require.NoError(t, err)
		drift, err := a.Verify()
		require.NoError(t, err)
		require.Empty(t, drift)
		return r
	}
	test := want(map[string]string{"deep/db.secret": "test s3cr3t", "deep/test-only": "x"})
	start("test", "s3cr3t")
	require.Equal(t, test, b.reached("opt/conf"))
	before := b.tree()
	info, err := os.Stat(filepath.Join(b.root, "opt/conf/deep/db.secret"))
	require.NoError(t, err)
	require.Equal(t, "-rw-------", info.Mode().String())
	info, err = os.Stat(filepath.Join(b.root, "opt/conf/copied"))
	require.NoError(t, err)
	require.Equal(t, "-rw-r-----", info.Mode().String())

	r := start("test", "s3cr3t")
	require.Zero(t, r.Created+r.Replaced+r.Removed, "a second start writes nothing")
	r = start("test", "turned")
	require.Equal(t, 2, r.Replaced)
	require.Equal(t, "test turned", b.reached("opt/conf")["deep/db.secret"])

	start("production", "s3cr3t")
	require.Equal(t, want(map[string]string{"deep/db.secret": "production s3cr3t",
		"deep/er/own": "x"}), b.reached("opt/conf"))
	require.NoDirExists(t, filepath.Join(b.root, DefaultState, viewsDir, "test"))
	start("test", "s3cr3t")
	require.Equal(t, before, b.tree())
	own, err := os.ReadFile(filepath.Join(b.root, "opt/own"))
	require.NoError(t, err)
	require.Equal(t, "own", string(own))
}

// An environment without such a file needs no view.
func TestViewOfOneEnvironmentOnly(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{
		SpecName: `{"required":["a/x"],"paths":[{"match":"a/**","action":"pointer"},{"match":"a/key","action":"render"}],
			"render":{"variables":["K"]}}`,
		"envs/test/a/x": "x", "envs/production/a/x": "y", "envs/production/a/key": "${K:-k}"})
	_, err := b.activator().Bake()
	require.NoError(t, err)
	withManifest(t, b)
	for range 2 {
		r := b.activate("test")
		require.Equal(t, 1, r.Created+r.Replaced)
		require.Equal(t, map[string]string{"x": "x"}, b.reached("a"))
		b.activate("production")
		require.Equal(t, map[string]string{"x": "y", "key": "k"}, b.reached("a"))
	}
}

// The state directory outlives an image in which the same files were copied: the paths of the
// record lead through the baked link to the source now, which stays.
func TestViewAfterAnImageThatCopied(t *testing.T) {
	t.Parallel()
	files := map[string]string{"envs/test/a/x": "x", "envs/test/a/y": "y"}
	older := newBox(t, files)
	older.activate("test")
	files[SpecName] = `{"paths":[{"match":"a/**","action":"pointer"},{"match":"a/y","action":"copy"}]}`
	b := newBox(t, files)
	_, err := b.activator().Bake()
	require.NoError(t, err)
	record, err := os.ReadFile(filepath.Join(older.root, DefaultState, recordName))
	require.NoError(t, err)
	b.activate("test")
	b.write(DefaultState+"/"+recordName, string(record), 0o600)
	require.Zero(t, b.activate("test").Removed)
	require.Equal(t, map[string]string{"x": "x", "y": "y"}, b.reached("a"))
}
