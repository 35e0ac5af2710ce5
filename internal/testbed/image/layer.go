//go:build linux

package image

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	emptyimage "github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// fileLayer is an uncompressed layer in a file: a layer of hundreds of megabytes stays out of
// memory. It goes to a registry on this machine: to compress it takes longer than to send it.
type fileLayer struct {
	file string
	size int64
	hash v1.Hash
}

var _ v1.Layer = fileLayer{}

func (l fileLayer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l fileLayer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.file) }
func (l fileLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.file) }
func (l fileLayer) Size() (int64, error)                 { return l.size, nil }
func (l fileLayer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }

// withLayer returns an image with the layer that write makes, in a file of the test.
func withLayer(t testing.TB, write func(io.Writer) error) (v1.Image, error) {
	f, err := os.Create(filepath.Join(t.TempDir(), "layer.tar"))
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
	err = errors.Join(write(w), w.Flush())
	info, statErr := f.Stat()
	if err := errors.Join(err, statErr, f.Close()); err != nil {
		return nil, err
	}
	return mutate.Append(mutate.MediaType(emptyimage.Image, types.OCIManifestSchema1),
		mutate.Addendum{Layer: fileLayer{f.Name(), info.Size(),
			v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}}})
}
