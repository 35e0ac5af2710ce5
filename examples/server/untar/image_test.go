package untar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/untar"
)

func layer(data []byte) untar.Layer {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// files are the names below dir, with the content of regular files and the targets of links.
func files(t *testing.T, dir string) map[string]string {
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		switch {
		case entry.IsDir():
			found[name+"/"] = ""
		case entry.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		default:
			data, err := os.ReadFile(path)
			found[name] = string(data)
			return err
		}
		return nil
	}))
	return found
}

func TestImage(t *testing.T) {
	t.Parallel()
	directory := func(name string, mode int64) tar.Header {
		return tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeDir}
	}
	symlink := func(name, target string) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
	}
	hard := func(name, target string) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}
	}
	for name, tc := range map[string]struct {
		layers [][]tar.Header
		want   map[string]string
	}{
		"a later layer replaces": {
			[][]tar.Header{{file("a", "1", 0o644), file("d/x", "1", 0o644)},
				{file("a", "2", 0o755), symlink("d", "a")}},
			map[string]string{"a": "2", "d": "-> a"},
		},
		"a link takes the place of a directory beside its files": {
			[][]tar.Header{{file("other/x", "1", 0o644), file("d/x", "1", 0o644),
				symlink("d", "other"), file("d/y", "2", 0o644)}},
			map[string]string{"other/": "", "other/x": "1", "other/y": "2", "d": "-> other"},
		},
		"a link is made on the way of the files after it": {
			[][]tar.Header{{file("a/b/x", "1", 0o644), file("c/b/x", "2", 0o644)},
				{file("a/b/y", "3", 0o644), symlink("a", "c"), file("a/b/y", "4", 0o644)}},
			map[string]string{"a": "-> c", "c/": "", "c/b/": "", "c/b/x": "2", "c/b/y": "4"},
		},
		"a whiteout hides the directory of the files after it": {
			[][]tar.Header{{file("d/x", "1", 0o644)}, {file("d/.wh.x", "", 0o644),
				file("d/y", "2", 0o644)}, {file(".wh.d", "", 0o644), file("d/z", "3", 0o644)}},
			map[string]string{"d/": "", "d/z": "3"},
		},
		"a directory keeps its content": {
			[][]tar.Header{{directory("d", 0o500), file("d/x", "1", 0o644)},
				{directory("d", 0o755), file("d/y", "2", 0o644)}},
			map[string]string{"d/": "", "d/x": "1", "d/y": "2"},
		},
		"whiteouts hide what is below": {
			[][]tar.Header{{file("a", "1", 0o644), file("d/x", "1", 0o644),
				file("e/x", "1", 0o644)},
				{file(".wh.a", "", 0o644), file(".wh.d", "", 0o644), file(".wh.never", "", 0o644),
					file("e/new", "2", 0o644), file("e/.wh..wh..opq", "", 0o644)}},
			map[string]string{"e/": "", "e/new": "2"},
		},
		"a whiteout is not about its own layer": {
			[][]tar.Header{{file("d/x", "1", 0o644)}, {file("d/s/y", "2", 0o644),
				file("d/.wh.s", "", 0o644), file("d/.wh..wh..opq", "", 0o644)}},
			map[string]string{"d/": "", "d/s/": "", "d/s/y": "2"},
		},
		"links lead to places inside": {
			[][]tar.Header{{directory("run", 0o755), symlink("var/run", "/run"),
				symlink("up", "../../../run")},
				{file("var/run/pid", "1", 0o644), file("up/other", "2", 0o644),
					hard("up/same", "var/run/pid")}},
			map[string]string{"run/": "", "var/": "", "var/run": "-> /run", "up": "-> ../../../run",
				"run/pid": "1", "run/other": "2", "run/same": "1"},
		},
		"names that leave the root stay in it": {
			[][]tar.Header{{file("../../a", "1", 0o644), hard("b", "../../a")}},
			map[string]string{"a": "1", "b": "1"},
		},
		"devices are passed over": {
			[][]tar.Header{{{Name: "dev/null", Typeflag: tar.TypeChar},
				{Name: "pipe", Typeflag: tar.TypeFifo}, file("a", "1", 0o644)}},
			map[string]string{"a": "1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var layers []untar.Layer
			for _, headers := range tc.layers {
				layers = append(layers, layer(archive(t, headers...)))
			}
			outer := t.TempDir()
			dir := filepath.Join(outer, "rootfs")
			require.NoError(t, untar.Image(t.Context(), dir, layers))
			require.Equal(t, tc.want, files(t, dir))
			found, err := os.ReadDir(outer)
			require.NoError(t, err)
			require.Len(t, found, 1)
		})
	}
	t.Run("sparse files are whole", func(t *testing.T) {
		t.Parallel()
		for _, flags := range sparseFormats {
			data, content := sparseArchive(t, "holes", flags...)
			dir := t.TempDir()
			require.NoError(t, untar.Image(t.Context(), dir, []untar.Layer{layer(data)}), "%v",
				flags)
			got, err := os.ReadFile(filepath.Join(dir, "holes"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, got), "%v", flags)
		}
	})
	t.Run("a type that is not known is refused", func(t *testing.T) {
		t.Parallel()
		err := untar.Image(t.Context(), t.TempDir(),
			[]untar.Layer{layer(archive(t, tar.Header{Name: "v", Typeflag: 'V'}))})
		require.ErrorIs(t, err, untar.ErrInvalid)
	})
	t.Run("a loop of links is refused", func(t *testing.T) {
		t.Parallel()
		err := untar.Image(t.Context(), t.TempDir(),
			[]untar.Layer{layer(archive(t, symlink("a", "b"), symlink("b", "a"),
				file("a/x", "", 0o644)))})
		require.ErrorIs(t, err, untar.ErrInvalid)
	})
	t.Run("what comes after the archive is read", func(t *testing.T) {
		t.Parallel()
		wrong := errors.New("not the digest")
		last := func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(archive(t, file("a", "", 0o644))),
				failing{wrong})), nil
		}
		require.ErrorIs(t, untar.Image(t.Context(), t.TempDir(), []untar.Layer{last}), wrong)
	})
	t.Run("a cancelled context ends it with its cause", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		cancel(cause)
		require.ErrorIs(t, untar.Image(ctx, t.TempDir(),
			[]untar.Layer{layer(archive(t, file("a", "", 0o644)))}), cause)
	})
}
