package assemble

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/sluice-deploy/sluice/builder"
)

func layerOf(t *testing.T, headers ...tar.Header) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

func TestTreeTypes(t *testing.T) {
	t.Parallel()
	t.Run("a hard link is what its target is", func(t *testing.T) {
		t.Parallel()
		got := tree{}
		for i, layer := range []v1.Layer{
			layerOf(t, tar.Header{Name: "below", Typeflag: tar.TypeSymlink, Linkname: "lib"}),
			layerOf(t,
				tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header",
					PAXRecords: map[string]string{"comment": "x"}},
				tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "lib"},
				tar.Header{Name: "b", Typeflag: tar.TypeLink, Linkname: "a"},
				tar.Header{Name: "c", Typeflag: tar.TypeLink, Linkname: "/below"},
				tar.Header{Name: "d", Typeflag: tar.TypeReg},
				tar.Header{Name: "e", Typeflag: tar.TypeLink, Linkname: "d"}),
		} {
			if err := got.add(layer, i); err != nil {
				t.Fatal(err)
			}
		}
		link, file := node{kind: isLink, link: "lib"}, node{kind: isFile}
		want := tree{"below": link, "a": link, "b": link, "c": link, "d": file, "e": file}
		if len(got) != len(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		for name, n := range want {
			if at := got[name]; at.kind != n.kind || at.link != n.link {
				t.Errorf("%s: got %v, want %v", name, got[name], n)
			}
		}
	})
	t.Run("an unknown type is refused", func(t *testing.T) {
		t.Parallel()
		err := tree{}.add(layerOf(t, tar.Header{Name: "odd", Typeflag: 'V'}), 0)
		if !errors.Is(err, builder.ErrUnsupported) {
			t.Errorf("got %v, want ErrUnsupported", err)
		}
	})
}
