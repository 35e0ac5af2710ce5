package envconfig

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// farm lays files out as Kubernetes does in a ConfigMap volume: the same content is at the same
// paths, by way of links.
func farm(t *testing.T, dir, generation string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, generation, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		top := name
		for filepath.Dir(top) != "." {
			top = filepath.Dir(top)
		}
		if _, err := os.Lstat(filepath.Join(dir, top)); err != nil {
			require.NoError(t, os.Symlink("..data/"+top, filepath.Join(dir, top)))
		}
	}
	require.NoError(t, os.Symlink(generation, filepath.Join(dir, "..data_tmp")))
	require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
}

func TestVolumesOfKubernetesAsSource(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"envs/test/etc", "envs/test", "envs", "."} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			files := map[string]string{}
			for name, text := range map[string]string{"envs/test/etc/app.conf": "one",
				"envs/test/etc/sub/b.conf": "two"} {
				rel, err := filepath.Rel(where, name)
				require.NoError(t, err)
				files[rel] = text
			}
			source := filepath.Join(root, DefaultSource)
			require.NoError(t, os.MkdirAll(filepath.Join(source, where), 0o755))
			farm(t, filepath.Join(source, where), "..2026_11_29", files)
			a := &Activator{Root: root, Source: source, State: filepath.Join(root, DefaultState)}
			r, err := a.Activate(t.Context(), "test")
			require.NoError(t, err)
			require.Equal(t, 2, r.Created)
			require.Equal(t, "one", contentOf(t, filepath.Join(root, "etc/app.conf")))
			require.Equal(t, "two", contentOf(t, filepath.Join(root, "etc/sub/b.conf")))
			entries, err := os.ReadDir(filepath.Join(root, "etc"))
			require.NoError(t, err)
			for _, e := range entries {
				require.Contains(t, []string{"app.conf", "sub", "envconfig"}, e.Name())
			}

			// The volume changes: the next start takes the new content.
			for name := range files {
				files[name] += " more"
			}
			farm(t, filepath.Join(source, where), "..2026_11_30", files)
			a = &Activator{Root: root, Source: source, State: filepath.Join(root, DefaultState)}
			r, err = a.Activate(t.Context(), "test")
			require.NoError(t, err)
			require.Equal(t, 2, r.Replaced)
			require.Equal(t, "one more", contentOf(t, filepath.Join(root, "etc/app.conf")))
		})
	}
}

// A file of a volume at a target is kept when it has the wanted content; it is never written, or
// replaced by a file of the same name.
func TestVolumesOfKubernetesAsTarget(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	source := filepath.Join(root, DefaultSource)
	require.NoError(t, os.MkdirAll(source+"/envs/test/opt/conf", 0o755))
	require.NoError(t, os.WriteFile(source+"/envs/test/opt/conf/app.conf", []byte("right"), 0o600))
	require.NoError(t, os.MkdirAll(root+"/opt/conf", 0o755))
	farm(t, root+"/opt/conf", "..2026_11_29", map[string]string{"app.conf": "right"})
	a := &Activator{Root: root, Source: source, State: filepath.Join(root, DefaultState)}
	r, err := a.Activate(t.Context(), "test")
	require.NoError(t, err)
	require.Equal(t, 1, r.Kept)
	drift, err := a.Verify()
	require.NoError(t, err)
	require.Empty(t, drift)

	farm(t, root+"/opt/conf", "..2026_11_30", map[string]string{"app.conf": "other"})
	_, err = a.Activate(t.Context(), "test")
	require.ErrorIs(t, err, ErrTarget)
	require.ErrorContains(t, err, "/opt/conf/app.conf: is of a ConfigMap or Secret volume")
	require.Equal(t, "other", contentOf(t, root+"/opt/conf/app.conf"))
	drift, err = a.Verify()
	require.NoError(t, err)
	require.Equal(t, []Drift{{"opt/conf/app.conf", "has other content"}}, drift)
}

func contentOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(data)
}
