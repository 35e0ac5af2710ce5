package assemble_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

// layerOf makes a layer out of headers; "name" is a file, "name/" a directory, "name>target" a
// link.
func layerOf(t *testing.T, names ...string) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, n := range names {
		h := &tar.Header{Name: n, Mode: 0o755}
		if at, target, ok := strings.Cut(n, ">"); ok {
			h.Name, h.Linkname, h.Typeflag = at, target, tar.TypeSymlink
		} else if strings.HasSuffix(n, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pushBase pushes a base image, tagged, and returns its reference by digest.
func pushBase(t *testing.T, ref string, config v1.Config, layers ...v1.Layer) string {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err == nil {
		img, err = mutate.Config(img, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(ref)
	if err == nil {
		err = remote.Write(tag, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return tag.Context().Digest(digest.String()).String()
}

func fetch(t *testing.T, reference string) v1.Image {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("go-containerregistry finds the image invalid: %v", err)
	}
	return img
}

// topLayer lists the entries of the image's last layer.
func topLayer(t *testing.T, img v1.Image) []string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[len(layers)-1].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// A layer that brought bin/ would put a directory in place of the base's link, and the image would
// have no shell.
func TestBaseLinksAndDirectoriesStay(t *testing.T) {
	t.Parallel()
	host := serve(t)
	base := pushBase(t, host+"/base:1", v1.Config{},
		layerOf(t, "usr/", "usr/bin/", "usr/bin/sh", "bin>usr/bin", "opt/", "opt/old/", "opt/old/f",
			"gone/", "gone/f", "abs>/opt", "srv/f"),
		layerOf(t, "opt/.wh.old", ".wh.gone", "opt/old2/"))
	engine := newEngine(t, assemble.Config{})
	for _, c := range []struct {
		instruction string
		want        []string
	}{
		{"COPY a /bin/a", []string{"usr/bin/a"}},
		{"COPY a /bin", []string{"usr/bin/a"}},
		{"COPY d /bin/", []string{"usr/bin/x"}},
		{"COPY a /abs/new/a", []string{"opt/new/", "opt/new/a"}},
		{"COPY a /opt/old/a", []string{"opt/old/", "opt/old/a"}},
		{"COPY a /gone/a", []string{"gone/", "gone/a"}},
		{"COPY a /srv/a", []string{"srv/a"}},
		{"WORKDIR /abs/w", []string{"opt/w/"}},
		{"COPY --chown=5 tree /", []string{"opt/", "opt/f"}},
		{"COPY linked/bin /bin", []string{"usr/bin/l"}},
	} {
		t.Run(c.instruction, func(t *testing.T) {
			t.Parallel()
			res, err := engine.Build(t.Context(), builder.Request{
				Dockerfile: []byte("FROM " + base + "\n" + c.instruction + "\n"), Repository: host +
					"/app",
				Context: fstest.MapFS{"a": {Data: []byte("A")}, "d/x": {}, "tree/opt/f": {},
					"linked/bin/l": {}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, topLayer(t, fetch(t, res.Reference))); diff != "" {
				t.Errorf("layer (-want +got):\n%s", diff)
			}
			if res.Base != base || !res.Layers[0].Reused && !res.Layers[1].Reused {
				t.Errorf("base is %s with layers %+v, want %s, reused", res.Base, res.Layers, base)
			}
		})
	}
	t.Run("file as directory", func(t *testing.T) {
		t.Parallel()
		_, err := engine.Build(t.Context(), builder.Request{Repository: host + "/app",
			Dockerfile: []byte("FROM " + base + "\nCOPY a /usr/bin/sh/a\n"),
			Context:    fstest.MapFS{"a": {}}})
		if err == nil || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(),
			"/usr/bin/sh is a file") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestBaseConfiguration(t *testing.T) {
	t.Parallel()
	host := serve(t)
	base := pushBase(t, host+"/base:1", v1.Config{
		Env: []string{"PATH=/bin", "A=base"}, Entrypoint: []string{"/base"}, Cmd: []string{"arg"},
		Labels: map[string]string{"l": "base"},
		User:   "7", WorkingDir: "/home",
	}, layerOf(t, "home/"))
	engine := newEngine(t, assemble.Config{})
	for _, from := range []string{base, host + "/base:1"} {
		res, err := engine.Build(t.Context(), builder.Request{Repository: host + "/app",
			Dockerfile: []byte("FROM " + from + "\nENV A=$A-more\nWORKDIR x\nENTRYPOINT " +
				"[\"/app\"]\n")})
		if err != nil {
			t.Fatal(err)
		}
		img := fetch(t, res.Reference)
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		_, digest, _ := strings.Cut(base, "@")
		want := v1.Config{
			Env: []string{"PATH=/bin", "A=base-more"}, Entrypoint: []string{"/app"}, User: "7",
			WorkingDir: "/home/x",
			Labels: map[string]string{"l": "base", "org.opencontainers.image.base.name": from,
				"org.opencontainers.image.base.digest": digest},
		}
		if diff := cmp.Diff(want, config.Config); diff != "" {
			t.Errorf("configuration from %s (-want +got):\n%s", from, diff)
		}
		if res.Base != base {
			t.Errorf("base is recorded as %s, want %s", res.Base, base)
		}
		if m, _ := img.Manifest(); m.Layers[1].MediaType != types.DockerLayer {
			t.Errorf("layer over a Docker image has type %s", m.Layers[1].MediaType)
		}
	}
}

func TestBaseIsReadOnce(t *testing.T) {
	t.Parallel()
	host := serve(t)
	base := pushBase(t, host+"/base:1", v1.Config{}, layerOf(t, "etc/", "etc/os-release"))
	var blobs atomic.Int64
	engine := newEngine(t, assemble.Config{Transport: roundTripper(
		func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/base/blobs/") {
				blobs.Add(1)
			}
			return http.DefaultTransport.RoundTrip(r)
		})})
	build := func() {
		_, err := engine.Build(t.Context(), builder.Request{Repository: host + "/app",
			Dockerfile: []byte("FROM " + base + "\nCOPY a /etc/\n"),
			Context:    fstest.MapFS{"a": {}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	build()
	first := blobs.Load()
	build()
	if second := blobs.Load() - first; second >= first || second > 1 {
		t.Errorf(
			"second build read %d blobs of the base (first %d), want its configuration at most",
			second,
			first,
		)
	}
}

func TestBaseRefusals(t *testing.T) {
	t.Parallel()
	host := serve(t)
	pushBase(t, host+"/trigger:1", v1.Config{OnBuild: []string{"RUN x"}}, layerOf(t, "a"))
	for from, says := range map[string]string{
		host + "/trigger:1": "ONBUILD", host + "/missing:1": "missing", "Not/Valid": "Not/Valid",
		"--platform=linux/arm64 scratch": "FROM --platform",
	} {
		_, err := newEngine(t, assemble.Config{}).Build(t.Context(),
			builder.Request{Repository: host + "/app", Dockerfile: []byte("FROM " + from + "\n")})
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(),
			"Dockerfile line 1") {
			t.Errorf("FROM %s: error is %v", from, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
