package envconfig

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// box is a root of its own with the source and the state directory in it, as a container has them.
type box struct {
	t    *testing.T
	root string
}

// newBox lays out a source directory; the keys are paths in it.
func newBox(t *testing.T, source map[string]string) *box {
	t.Helper()
	b := &box{t, t.TempDir()}
	for name, content := range source {
		b.write("etc/envconfig/"+name, content, 0o644)
	}
	return b
}

func (b *box) write(name, content string, mode fs.FileMode) {
	b.t.Helper()
	name = filepath.Join(b.root, name)
	require.NoError(b.t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(b.t, os.WriteFile(name, []byte(content), mode))
	require.NoError(b.t, os.Chmod(name, mode))
}

func (b *box) activator() *Activator {
	return &Activator{Root: b.root, Source: filepath.Join(b.root, DefaultSource),
		State: filepath.Join(b.root, DefaultState)}
}

func (b *box) activate(environment string) Result {
	b.t.Helper()
	r, err := b.activator().Activate(b.t.Context(), environment)
	require.NoError(b.t, err)
	return r
}

func (b *box) refuse(environment string, want error) error {
	b.t.Helper()
	before := b.tree()
	_, err := b.activator().Activate(b.t.Context(), environment)
	require.ErrorIs(b.t, err, want)
	require.Equal(b.t, before, b.tree(), "an error has changed something")
	return err
}

// tree returns everything outside of the source directory: names, modes, contents and the targets
// of links.
func (b *box) tree() map[string]string {
	return snapshot(b.t, b.root)
}

func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(name, root), "/")
		if rel == "etc/envconfig" {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.Type() == fs.ModeSymlink:
			text, err := os.Readlink(name)
			seen[rel] = "link " + text
			return err
		case d.Type().IsRegular():
			data, err := os.ReadFile(name)
			if strings.HasSuffix(rel, recordName) {
				data = nil // it holds the time
			}
			seen[rel] = fmt.Sprintf("%v %q", info.Mode(), data)
			return err
		}
		seen[rel] = info.Mode().String()
		return nil
	}))
	return seen
}

// withManifest writes manifest.json, as the build of an image does.
func withManifest(t *testing.T, b *box) {
	t.Helper()
	source, err := os.OpenRoot(filepath.Join(b.root, DefaultSource))
	require.NoError(t, err)
	defer source.Close()
	m, err := Scan(source.FS())
	require.NoError(t, err)
	require.NoError(t, WriteManifest(source, m))
}
