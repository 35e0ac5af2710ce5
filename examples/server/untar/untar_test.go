package untar_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/untar"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		content := h.PAXRecords["content"]
		if h.Typeflag != tar.TypeXGlobalHeader {
			h.PAXRecords = nil
		}
		h.Size = int64(len(content))
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func file(name, content string, mode int64) tar.Header {
	return tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeReg,
		PAXRecords: map[string]string{"content": content}}
}

func unpack(dir string, data []byte) error {
	return untar.Archive(dir, bytes.NewReader(data), untar.Limits{})
}

func TestArchive(t *testing.T) {
	t.Parallel()
	t.Run("keeps modes and links", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "new")
		require.NoError(t, unpack(dir, archive(t,
			tar.Header{Typeflag: tar.TypeXGlobalHeader,
				PAXRecords: map[string]string{"comment": "of git archive"}},
			tar.Header{Name: "./", Mode: 0o700, Typeflag: tar.TypeDir},
			tar.Header{Name: "dir", Mode: 0o500, Typeflag: tar.TypeDir},
			file("dir/in", "closed by then", 0o644),
			file("./a/b/run.sh", "#!", 0o755), file("secret", "s", 0o600),
			tar.Header{Name: "link", Linkname: "a/b/run.sh", Typeflag: tar.TypeSymlink},
			tar.Header{Name: "hard", Linkname: "./secret", Typeflag: tar.TypeLink},
		)))
		for name, mode := range map[string]os.FileMode{
			"a/b/run.sh": 0o755, "secret": 0o600, "link": 0o755, "hard": 0o600,
			"dir": os.ModeDir | 0o500, "dir/in": 0o644,
		} {
			info, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, mode, info.Mode(), name)
		}
	})
	t.Run("takes gzip and zstd", func(t *testing.T) {
		t.Parallel()
		plain := archive(t, file("a", "content", 0o644))
		for name, data := range map[string][]byte{"plain": plain, "gzip": gzipped(t, plain),
			"zstd": zstandard(t, plain)} {
			dir := t.TempDir()
			require.NoError(t, unpack(dir, data), name)
			got, err := os.ReadFile(filepath.Join(dir, "a"))
			require.NoError(t, err)
			require.Equal(t, "content", string(got), name)
		}
	})
	t.Run("a full disk is not the archive's fault", func(t *testing.T) {
		t.Parallel()
		testbed.NeedRoot(t, "a file system of its own")
		dir := t.TempDir()
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
		t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
		err := unpack(filepath.Join(dir, "in"),
			archive(t, file("a", strings.Repeat("x", 1<<20), 0o644)))
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.NotErrorIs(t, err, untar.ErrInvalid)
	})
	t.Run("an error of the reader is kept", func(t *testing.T) {
		t.Parallel()
		lost := errors.New("connection lost")
		data := archive(t, file("a", strings.Repeat("x", 10_000), 0o644))
		for _, n := range []int{0, 100, 512, 5000, len(data) - 1024, len(data) - 1} {
			err := untar.Archive(t.TempDir(), io.MultiReader(bytes.NewReader(data[:n]),
				failing{lost}), untar.Limits{})
			require.ErrorIs(t, err, lost, "after %d bytes", n)
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func gzipped(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

func zstandard(t testing.TB, data []byte) []byte {
	z, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return z.EncodeAll(data, nil)
}

// TestArchiveRefuses lists archives that would leave a file out, or leave the directory with a file
// that was not sent.
func TestArchiveRefuses(t *testing.T) {
	t.Parallel()
	// 512 + 512, twice, and the marker
	two := archive(t, file("a", "1", 0o644), file("b", "2", 0o644))
	many := archive(t, file("a", strings.Repeat("x", 3000), 0o644), file("b", "", 0o644))
	link := func(name, target string, kind byte) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: kind}
	}
	for name, tc := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":  {nil, untar.ErrInvalid},
		"no entry": {archive(t), untar.ErrInvalid},
		"zeros":    {make([]byte, 1<<20), untar.ErrInvalid},
		"directories alone": {archive(t, tar.Header{Name: "d", Typeflag: tar.TypeDir}),
			untar.ErrInvalid},
		"cut in a header":       {two[:100], untar.ErrFormat},
		"cut in a later header": {two[:1100], untar.ErrInvalid},
		"cut in a file":         {two[:513], untar.ErrInvalid},
		"cut between entries":   {two[:1024], untar.ErrInvalid},
		"without the marker":    {two[:2048], untar.ErrInvalid},
		"with half a marker":    {two[:2048+512], untar.ErrInvalid},
		"zeros at the end, no marker": {archive(t, file("a", string(make([]byte, 4096)),
			0o644))[:512+4096], untar.ErrInvalid},
		"two archives": {append(bytes.Clone(two), two...), untar.ErrInvalid},
		"text": {bytes.Repeat([]byte("this is no archive"), 100),
			untar.ErrFormat},
		"short text": {[]byte("hi"), untar.ErrFormat},
		"gzip of text": {gzipped(t, bytes.Repeat([]byte("no archive"), 100)),
			untar.ErrFormat},
		"gzip of nothing": {gzipped(t, nil), untar.ErrInvalid},
		"cut gzip":        {gzipped(t, two)[:40], untar.ErrInvalid},
		"gzip without its sum": {gzipped(t, two)[:len(gzipped(t, two))-8],
			untar.ErrInvalid},
		"cut zstd": {zstandard(t, two)[:20], untar.ErrInvalid},
		"bzip2":    {[]byte("BZh91AY&SY"), untar.ErrFormat},
		"xz":       {[]byte("\xfd7zXZ\x00\x00"), untar.ErrFormat},
		"zip":      {[]byte("PK\x03\x04\x14\x00"), untar.ErrFormat},
		"a pipe": {archive(t, tar.Header{Name: "p", Typeflag: tar.TypeFifo}),
			untar.ErrInvalid},
		"a device": {archive(t, tar.Header{Name: "d", Typeflag: tar.TypeChar}),
			untar.ErrInvalid},
		"an unknown type": {archive(t, tar.Header{Name: "v", Typeflag: 'V'}),
			untar.ErrInvalid},
		"one name twice": {archive(t, file("a", "1", 0o644), file("a", "2", 0o644)),
			untar.ErrInvalid},
		"a directory in place of one": {archive(t, file("a", "1", 0o644),
			tar.Header{Name: "a", Typeflag: tar.TypeDir}), untar.ErrInvalid},
		"a file below a file": {archive(t, file("a", "1", 0o644), file("a/b", "2", 0o644)),
			untar.ErrInvalid},
		"a hard link to nothing": {archive(t, link("l", "a", tar.TypeLink)),
			untar.ErrInvalid},
		"a name that is too long": {archive(t, file(strings.Repeat("x", 300), "", 0o644)),
			untar.ErrInvalid},
		"a path that is too long": {archive(t, file(strings.Repeat("dir/", 256)+"f", "", 0o644)),
			untar.ErrInvalid},
		"more bytes than the limit": {many, untar.ErrTooLarge},
		"more entries than the limit": {archive(t, file("a", "", 0o644), file("b", "", 0o644),
			file("c", "", 0o644)), untar.ErrTooLarge},
		"dots": {archive(t, file("../out", "x", 0o644)), untar.ErrInvalid},
		"through an absolute link": {archive(t, link("l", "/", tar.TypeSymlink),
			file("l/tmp/out", "x", 0o644)), untar.ErrInvalid},
		"through a dotted link": {archive(t, link("l", "..", tar.TypeSymlink),
			file("l/out", "x", 0o644)), untar.ErrInvalid},
		"a hard link out of the place": {archive(t, link("l", "../other", tar.TypeLink)),
			untar.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outer := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(outer, "other"), nil, 0o600))
			limits := untar.Limits{Entries: 2}
			if bytes.Equal(tc.data, many) {
				limits.Bytes = 2999
			}
			err := untar.Archive(filepath.Join(outer, "in"), bytes.NewReader(tc.data), limits)
			require.ErrorIs(t, err, tc.want)
			found, err := os.ReadDir(outer)
			require.NoError(t, err)
			require.LessOrEqual(t, len(found), 2)
		})
	}
}

// sparseArchive returns GNU tar's archive, in the format, of a file with holes, and the file's
// content.
func sparseArchive(t *testing.T, name string, flags ...string) (data, content []byte) {
	t.Helper()
	program := testbed.NeedProgram(t, "tar", "tar")
	dir := t.TempDir()
	content = make([]byte, 3<<20)
	copy(content[1<<20:], "in the middle")
	f, err := os.Create(filepath.Join(dir, name))
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("in the middle"), 1<<20)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(3<<20))
	require.NoError(t, f.Close())
	data, err = exec.Command(program, append(flags, "-C", dir, "-S", "-c", "-f", "-",
		name)...).Output()
	require.NoError(t, err)
	require.Less(t, len(data), 1<<20, "tar has found the holes")
	return data, content
}

// sparseFormats are the ones that GNU tar writes.
var sparseFormats = [][]string{
	{"--format=gnu"}, {"--format=posix"}, {"--format=posix", "--sparse-version=0.0"},
	{"--format=posix", "--sparse-version=0.1"},
}

func TestArchiveSparse(t *testing.T) {
	t.Parallel()
	for _, flags := range sparseFormats {
		data, content := sparseArchive(t, "holes", flags...)
		dir := t.TempDir()
		require.NoError(t, unpack(dir, data), "%v", flags)
		got, err := os.ReadFile(filepath.Join(dir, "holes"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), "%v", flags)
		var info syscall.Stat_t
		require.NoError(t, syscall.Stat(filepath.Join(dir, "holes"), &info))
		require.Less(t, info.Blocks*512, int64(1<<20), "%v: holes stay holes", flags)
	}
}

func FuzzArchive(f *testing.F) {
	f.Add(archive(f, file("a", "b", 0o644)))
	f.Add(gzipped(f, archive(f, file("a", "b", 0o644))))
	f.Add(zstandard(f, archive(f, file("a", "b", 0o644))))
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		err := untar.Archive(filepath.Join(outer, "in"), bytes.NewReader(data),
			untar.Limits{Bytes: 1 << 20, Entries: 100})
		if err != nil && !errors.Is(err, untar.ErrInvalid) && !errors.Is(err, untar.ErrFormat) &&
			!errors.Is(err, untar.ErrTooLarge) {
			t.Errorf("an error of the archive is none of its: %v", err)
		}
		found, err := os.ReadDir(outer)
		require.NoError(t, err)
		require.LessOrEqual(t, len(found), 1)
	})
}

func ExampleArchive() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	fmt.Println(untar.Archive(dir, bytes.NewReader(nil), untar.Limits{}))
	// Output: nothing was sent: want a tar archive: invalid
}
