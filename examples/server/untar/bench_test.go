package untar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/untar"
)

// modules returns a tar archive of n small files, 40 a directory, as deep as those of an npm
// package.
func modules(tb testing.TB, n int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	content := bytes.Repeat([]byte("x"), 1500)
	for i := range n {
		require.NoError(tb, w.WriteHeader(&tar.Header{
			Name: fmt.Sprintf("app/node_modules/package-%05d/dist/lib/file-%02d.js", i/40, i%40),
			Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg, Uid: os.Getuid(),
			Gid: os.Getgid(),
		}))
		_, err := w.Write(content)
		require.NoError(tb, err)
	}
	require.NoError(tb, w.Close())
	return b.Bytes()
}

// BenchmarkManyFiles unpacks 12,000 files as a source and as a layer; "physical" writes the same
// files by their paths.
func BenchmarkManyFiles(b *testing.B) {
	const n = 12_000
	data := modules(b, n)
	for name, unpack := range map[string]func(dir string) error{
		"source": func(dir string) error {
			return untar.Archive(dir, bytes.NewReader(data), untar.Limits{})
		},
		"layer": func(dir string) error {
			return untar.Image(context.Background(), dir, []untar.Layer{
				func() (io.ReadCloser, error) {
					return io.NopCloser(bytes.NewReader(data)), nil
				},
			})
		},
		"physical": func(dir string) error {
			for r := tar.NewReader(bytes.NewReader(data)); ; {
				header, err := r.Next()
				if err == io.EOF {
					return nil
				}
				content, _ := io.ReadAll(r)
				path := filepath.Join(dir, header.Name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, content, 0o644); err != nil {
					return err
				}
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			for i := 0; b.Loop(); i++ {
				require.NoError(b, unpack(filepath.Join(dir, fmt.Sprint(i))))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n*b.N), "µs/file")
		})
	}
}
