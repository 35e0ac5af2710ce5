package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// archive is a tar archive of three files, and the offsets at which an entry ends.
func archive(t *testing.T, finish bool) ([]byte, []int) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var ends []int
	// The second ends in more zeros than the end of an archive has.
	for i, text := range []string{"events {}\n", strings.Repeat("\x00", 4096), "x"} {
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg,
			Name: fmt.Sprint("f", i), Mode: 0o644, Size: int64(len(text))}))
		_, err := io.WriteString(w, text)
		require.NoError(t, err)
		require.NoError(t, w.Flush())
		ends = append(ends, b.Len())
	}
	if finish {
		require.NoError(t, w.Close())
	}
	return b.Bytes(), ends
}

func zipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(text)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

// An archive that was cut, at any byte, is refused: half of the sites must not vanish.
func TestTarThatWasCut(t *testing.T) {
	t.Parallel()
	whole, ends := archive(t, true)
	b, err := bundle.Reader{}.Tar(bytes.NewReader(whole))
	require.NoError(t, err)
	require.Len(t, b.Files, 3)
	for n := 0; n < len(whole); n++ {
		if n > 32 && n%512 != 0 && n%512 != 511 && n%97 != 0 {
			continue
		}
		for _, text := range [][]byte{whole[:n], zipped(t, whole[:n])} {
			_, err := bundle.Reader{}.Tar(bytes.NewReader(text))
			require.ErrorIs(t, err, bundle.ErrInvalid, "%d of %d bytes, entries end at %v", n,
				len(whole), ends)
		}
	}
	_, err = bundle.Reader{}.Tar(bytes.NewReader(whole[:ends[1]]))
	require.ErrorContains(t, err, "ends after 2 files without the two blocks of zeros that end "+
		"an archive: it was cut")
	padded := append(bytes.Clone(whole), make([]byte, 10_240)...) // as GNU tar pads to its record
	_, err = bundle.Reader{}.Tar(bytes.NewReader(padded))
	require.NoError(t, err)
	_, err = bundle.Reader{}.Tar(bytes.NewReader(append(bytes.Clone(whole), whole...)))
	require.ErrorContains(t, err, "has more behind its end, such as a second archive")
}

// The error names the type of input that is no tar archive, before more than a few kilobytes of it
// are read.
func TestTarOfAnotherType(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\x01rest", 1000)
	for _, c := range []struct{ text, want string }{
		{"PK\x03\x04" + long, "a zip archive"},
		{"\xfd7zXZ\x00" + long, "compressed with xz"},
		{"\x28\xb5\x2f\xfd" + long, "compressed with zstd"},
		{"BZh9" + long, "compressed with bzip2"},
		{"7z\xbc\xaf\x27\x1c" + long, "a 7z archive"},
		{"!<arch>\ndebian-binary" + long, "a Debian package"},
		{"070701" + long, "a cpio archive"},
		{"\n<!DOCTYPE html><title>Sign in</title>" + long, "an HTML page, such as a login"},
		{"<HTML>" + long, "an HTML page"},
		{"\xef\xbb\xbf<?xml version=\"1.0\"?><html><head>", "an HTML page"},
		{"<?xml version=\"1.0\"?><Error>AccessDenied</Error>", "an XML text"},
		{`{"message":"not found"}`, "a JSON text"},
		{"http {\n" + long, "of no known type"},
		{"", "empty"},
		{"oops", "ends after 4 bytes"},
	} {
		for name, text := range map[string]string{"plain": c.text,
			"gzip": string(zipped(t, []byte(c.text)))} {
			counted := &counting{Reader: strings.NewReader(text)}
			if len(c.text) > 512 { // and much more
				counted.Reader = io.MultiReader(counted.Reader, zeroes(1<<30))
			}
			_, err := bundle.Reader{}.Tar(counted)
			require.ErrorIs(t, err, bundle.ErrInvalid, "%s %q", name, c.want)
			require.ErrorContains(t, err, c.want, name)
			require.Less(t, counted.n, 64<<10, "%s %q", name, c.want)
		}
	}
	_, err := bundle.Reader{}.Tar(bytes.NewReader(zipped(t, zipped(t, []byte(long)))))
	require.ErrorContains(t, err, "compressed with gzip once more")
}

type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func zeroes(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A connection that breaks says nothing about the archive: the tree is unknown, not invalid.
func TestTarWhoseReaderFails(t *testing.T) {
	t.Parallel()
	whole, _ := archive(t, true)
	broken := errors.New("connection reset")
	for _, n := range []int{0, 1, 600, len(whole) - 1} {
		_, err := bundle.Reader{}.Tar(io.MultiReader(bytes.NewReader(whole[:n]),
			iotest.ErrReader(broken)))
		require.ErrorIs(t, err, broken, n)
		require.NotErrorIs(t, err, bundle.ErrInvalid, n)
	}
}

// A file that is too large is refused by its header, unread.
func TestTarWithALargeFile(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg,
		Name: "geo.mmdb", Size: 5 << 30}))
	counted := &counting{Reader: io.MultiReader(&b, zeroes(5<<30))}
	_, err := bundle.Reader{}.Tar(counted)
	require.ErrorIs(t, err, bundle.ErrInvalid)
	require.ErrorContains(t, err,
		`file "geo.mmdb": 5368709120 bytes, limit of one file is 67108864`)
	require.Less(t, counted.n, 64<<10)
}

// An archive of a root file system holds several roots at once.
func TestTarOfARootFileSystem(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "./usr/share/nginx/modules-available/mod.conf"},
		{Typeflag: tar.TypeSymlink, Name: "./etc/nginx/modules-enabled/50-mod.conf",
			Linkname: "/usr/share/nginx/modules-available/mod.conf"},
		{Typeflag: tar.TypeSymlink, Name: "./etc/nginx/modules",
			Linkname: "../../usr/share/nginx/modules-available"},
		{Typeflag: tar.TypeReg, Name: "./etc/nginx/nginx.conf"},
	} {
		require.NoError(t, w.WriteHeader(&h))
	}
	require.NoError(t, w.Close())
	got, err := bundle.Reader{Roots: conf.Roots{"/": "."}}.Tar(&b)
	require.NoError(t, err)
	require.Contains(t, got.Files, "etc/nginx/modules-enabled/50-mod.conf")
	require.Contains(t, got.Files, "etc/nginx/modules/mod.conf")
}
