package envconfig

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const formats = "../testdata/formats/0/envconfig/"

// unpackFormat makes a box of one of the file systems in testdata/formats/0/envconfig.
func unpackFormat(t *testing.T, name string) *box {
	t.Helper()
	b := &box{t, t.TempDir()}
	f, err := os.Open(formats + name)
	require.NoError(t, err)
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b
		}
		require.NoError(t, err)
		name := filepath.Join(b.root, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			require.NoError(t, os.MkdirAll(name, 0o755))
		case tar.TypeSymlink:
			require.NoError(t, os.Symlink(h.Linkname, name))
		default:
			data, err := io.ReadAll(r)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, data, fs.FileMode(h.Mode)))
			require.NoError(t, os.Chmod(name, fs.FileMode(h.Mode)))
		}
	}
}

// files maps each path of the box to the content that it leads to.
func (b *box) files(paths ...string) map[string]string {
	found := map[string]string{}
	for _, name := range paths {
		data, err := os.ReadFile(filepath.Join(b.root, name))
		if err != nil {
			data = []byte("none")
		}
		found[name] = string(data)
	}
	return found
}

var (
	formatPaths = []string{
		"opt/same", "opt/changed", "opt/render", "opt/gone/deep/file", "opt/fresh/a/file",
		"srv/linked", "srv/unlinked",
		"opt/conf/common", "opt/conf/app",
	}
	formatTest = map[string]string{
		"opt/same": "same", "opt/changed": "old", "opt/render": "/root in test",
		"opt/gone/deep/file": "gone",
		"opt/fresh/a/file":   "none", "srv/linked": "old", "srv/unlinked": "old",
		"opt/conf/common": "common", "opt/conf/app": "old",
	}
	formatProduction = map[string]string{
		"opt/same": "same", "opt/changed": "new", "opt/render": "/root in production",
		"opt/gone/deep/file": "none",
		"opt/fresh/a/file":   "fresh", "srv/linked": "new", "srv/unlinked": "none",
		"opt/conf/common": "common", "opt/conf/app": "new",
	}
)

// TestFormat0 opens the files of testdata/formats/0/envconfig: testdata/formats/README.md says how
// they were made.
func TestFormat0(t *testing.T) {
	t.Parallel()
	activator := func(b *box) *Activator {
		a := b.activator()
		a.Lookup = func(name string) (string, bool) { return "/root", name == "HOME" }
		return a
	}
	t.Run("manifest", func(t *testing.T) {
		t.Parallel()
		data, err := os.ReadFile(formats + "manifest.json")
		require.NoError(t, err)
		m, err := ParseManifest(data)
		require.NoError(t, err)
		require.Equal(t, []string{"production", "test"}, m.Names())
		require.Equal(t, "sha256:3af1fd13bb714cc94c5d0f5294221cb113da4d937b37737297260e63d4df5453",
			m.Digest())
		require.Contains(t, m.Required, "opt/fresh/a/file")
		require.Equal(t, File{
			Path: "opt/render", Source: "envs/production/opt/render", Size: 21, Mode: 0o644,
			Action: "render",
			SHA256: "137a15b20ed4d4b63af16ebdea224f5b77bfe9eaf2e8f1572fd73ab45a1d5323",
		}, m.Environments["production"].Files[4])
	})
	t.Run("record", func(t *testing.T) {
		t.Parallel()
		b := unpackFormat(t, "active.tar")
		a := activator(b)
		status, err := a.Status()
		require.NoError(t, err)
		require.Equal(t, "test", status.Environment)
		require.Equal(t, "sha256:3af1fd13bb714cc94c5d0f5294221cb113da4d937b37737297260e63d4df5453",
			status.Manifest)
		require.Equal(t, 7, status.Files)
		require.Equal(t, 2026, status.Activated.In(time.UTC).Year())
		drift, err := a.Verify()
		require.NoError(t, err)
		require.Empty(t, drift)
		require.Equal(t, formatTest, b.files(formatPaths...))
		_, err = a.Activate(t.Context(), "production")
		require.NoError(t, err)
		require.Equal(t, formatProduction, b.files(formatPaths...))
	})
	for _, phase := range []string{"stage", "commit", "done"} {
		t.Run("journal of an activation killed in phase "+phase, func(t *testing.T) {
			t.Parallel()
			b := unpackFormat(t, phase+".tar")
			journal := filepath.Join(b.root, "opt", ".envconfig-journal-"+phase)
			require.FileExists(t, journal)
			a := activator(b)
			_, err := a.Activate(t.Context(), "test")
			require.NoError(t, err)
			require.Equal(t, formatTest, b.files(formatPaths...))
			for name := range b.tree() {
				base := filepath.Base(name)
				require.False(t, strings.HasPrefix(base, ".envconfig-"), "%s was left", name)
			}
			drift, err := a.Verify()
			require.NoError(t, err)
			require.Empty(t, drift)
		})
	}
}
