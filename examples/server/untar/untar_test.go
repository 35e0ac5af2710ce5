package untar_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/untar"
)

func archive(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		content := h.PAXRecords["content"]
		h.Size, h.PAXRecords = int64(len(content)), nil
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return &b
}

func file(name, content string, mode int64) tar.Header {
	return tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"content": content}}
}

func TestIntoKeepsModesAndLinks(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	require.NoError(t, untar.Into(dir, archive(t,
		file("./a/b/run.sh", "#!", 0o755), file("secret", "s", 0o600),
		tar.Header{Name: "link", Linkname: "a/b/run.sh", Typeflag: tar.TypeSymlink},
		tar.Header{Name: "hard", Linkname: "secret", Typeflag: tar.TypeLink},
		tar.Header{Name: "dir", Mode: 0o700, Typeflag: tar.TypeDir},
	)))
	for name, mode := range map[string]os.FileMode{"a/b/run.sh": 0o755, "secret": 0o600, "link": 0o755, "hard": 0o600, "dir": os.ModeDir | 0o700} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), name)
	}
}

func TestIntoWritesNothingOutside(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]tar.Header{
		"dots":          {file("../out", "x", 0o644)},
		"absolute link": {{Name: "l", Linkname: "/", Typeflag: tar.TypeSymlink}, file("l/tmp/out", "x", 0o644)},
		"dotted link":   {{Name: "l", Linkname: "..", Typeflag: tar.TypeSymlink}, file("l/out", "x", 0o644)},
		"hard link":     {{Name: "l", Linkname: "../other", Typeflag: tar.TypeLink}},
		"cut off":       {file("half", "content", 0o644)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outer := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(outer, "other"), nil, 0o600))
			b := archive(t, entries...)
			if name == "cut off" {
				b.Truncate(514)
			}
			require.Error(t, untar.Into(filepath.Join(outer, "in"), b))
			found, err := os.ReadDir(outer)
			require.NoError(t, err)
			require.Len(t, found, 2)
		})
	}
}

func FuzzInto(f *testing.F) {
	f.Add(archive(f, file("a", "b", 0o644)).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		_ = untar.Into(filepath.Join(outer, "in"), bytes.NewReader(data))
		found, err := os.ReadDir(outer)
		require.NoError(t, err)
		require.LessOrEqual(t, len(found), 1)
	})
}

func Example() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	fmt.Println(untar.Into(dir, bytes.NewReader(nil)))
	// Output: <nil>
}
