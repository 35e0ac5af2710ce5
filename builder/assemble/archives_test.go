//go:build linux

package assemble_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
)

// archives are files of a build context that ADD unpacks or does not.
var archives = func() fstest.MapFS {
	plain := tarOf(
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "./d/", Typeflag: tar.TypeDir, Mode: 0o1770, Uid: 9, Gid: 10},
		tar.Header{Name: "./d/f", Mode: 0o4711, Uid: 11, Gid: 12, Size: 1},
		tar.Header{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "d/f", Mode: 0o4711, Uid: 11,
			Gid: 12},
		tar.Header{Name: "d/soft", Typeflag: tar.TypeSymlink, Linkname: "../../out"},
		tar.Header{Name: "no/parent/f", Mode: 0o644, Size: 2},
		tar.Header{Name: "again", Mode: 0o600, Size: 1},
		tar.Header{Name: "again", Mode: 0o644, Size: 2},
	)
	over := tarOf(
		tar.Header{Name: "etc/link", Mode: 0o644, Size: 1},
		tar.Header{Name: "etc/passwd", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "etc/passwd/x", Mode: 0o644, Size: 1},
		tar.Header{Name: "data", Mode: 0o644, Size: 1},
		tar.Header{Name: "bin/x", Mode: 0o644, Size: 1},
		tar.Header{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 3, Gid: 4},
		tar.Header{
			Name:     "hard",
			Typeflag: tar.TypeLink,
			Linkname: "etc/target",
			Mode:     0o640,
			Uid:      7,
			Gid:      8,
		},
	)
	var gz, zst bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(plain)
	w.Close()
	z, _ := zstd.NewWriter(&zst)
	z.Write(plain)
	z.Close()
	files := map[string][]byte{
		"a.tar": plain, "a.tar.gz": gz.Bytes(), "a.tar.zst": zst.Bytes(), "d/a.tar": plain,
		"b.tar.bz2": decoded(bzip2ed), "b.tar.xz": decoded(xzed), "over.tar": over,
		"cut.tar": plain[:2000], "text.gz": gzipped([]byte("no archive\n")), "cut.gz": gz.Bytes()[:9],
		"out.tar": tarOf(tar.Header{Name: "../out", Mode: 0o644, Size: 1}),
		"device.tar": tarOf(
			tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		),
	}
	m := fstest.MapFS{}
	for name, content := range files {
		m[name] = &fstest.MapFile{Data: content, Mode: 0o644}
	}
	return m
}()

// tarOf is an archive of the headers, each file full of "x".
func tarOf(headers ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
	}
	w.Close()
	return b.Bytes()
}

func gzipped(text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(text)
	w.Close()
	return b.Bytes()
}

// An archive of one file, packed by bzip2 and by xz, in base64.
const bzip2ed = "QlpoOTFBWSZTWbMVV9UAAHDbgNGAQAB9gAAQbgheQAgIIABUNIRhGNEG00CRSbUBoAAfa2EkIPZghF76" +
	"imMYTrQIYMpKGipiNGkG2MGYs97BjP2EQ+FVU1MiIDYu5IpwoSFmKq+q"

const xzed = "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4Cf/AF5dADgYSJnNXBtXPNnDuJfP5RrcdgkDJgq4KSsQVrtD" +
	"k58LXGzL6c3vr/0I+uCNFraFktrSVPosdwdmzfSfK5rrbaivsrFf3GCmNuHXalsFrietArQnI3rOLtEg" +
	"5Ez1FAAAAADplysp4cR/GwABeoBQAAAASkUHE7HEZ/sCAAAAAARZWg=="

func decoded(text string) []byte {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return b
}
