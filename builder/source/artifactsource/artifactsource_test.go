//go:build linux

package artifactsource_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/artifactsource"
	"github.com/sluice-deploy/sluice/builder/source/sourcetest"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

func fetcher(t *testing.T, cfg artifactsource.Config) *artifactsource.Fetcher {
	t.Helper()
	f, err := artifactsource.New(cfg)
	require.NoError(t, err)
	return f
}

// layer is a layer with a title, "" for none.
type layer struct {
	data  []byte
	media types.MediaType
	title string
}

func tarLayer(t *testing.T, files []sourcetest.File) layer {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	sourcetest.Tar(t, w, files)
	require.NoError(t, w.Close())
	return layer{b.Bytes(), "application/vnd.example.code.layer.v1.tar+gzip", ""}
}

// push makes an artifact of layers and returns its reference.
func push(t *testing.T, addr string, layers ...layer) string {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, "application/vnd.example.code.v1+json")
	for _, l := range layers {
		add := mutate.Addendum{Layer: static.NewLayer(l.data, l.media)}
		if l.title != "" {
			add.Annotations = map[string]string{"org.opencontainers.image.title": l.title}
		}
		var err error
		img, err = mutate.Append(img, add)
		require.NoError(t, err)
	}
	repository, err := name.NewRepository(addr + "/code")
	require.NoError(t, err)
	digest, err := img.Digest()
	require.NoError(t, err)
	ref := repository.Digest(digest.String())
	require.NoError(t, remote.Write(ref, img, remote.WithContext(t.Context())))
	return ref.String()
}

func artifact(reference string) source.Source {
	return source.Source{Artifact: &source.Artifact{Reference: reference}}
}

func TestSuite(t *testing.T) {
	t.Parallel()
	oci := registry.Start(t)
	none := "@sha256:" + strings.Repeat("ab", 32)
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
		return sourcetest.Harness{
			Fetcher: fetcher(t, artifactsource.Config{}),
			Serve: func(t *testing.T, files []sourcetest.File) source.Source {
				return artifact(push(t, oci.Addr, tarLayer(t, files)))
			},
			Secured: func(t *testing.T, files []sourcetest.File, user,
				value string) source.Source {
				ref := push(t, oci.Addr, tarLayer(t, files))
				behind := &httputil.ReverseProxy{Rewrite: func(q *httputil.ProxyRequest) {
					q.SetURL(&url.URL{Scheme: "http", Host: oci.Addr})
				}}
				door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
					q *http.Request) {
					gotUser, got, _ := q.BasicAuth()
					if gotUser != user || got != value {
						w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					behind.ServeHTTP(w, q)
				}))
				t.Cleanup(door.Close)
				s := artifact(strings.Replace(ref, oci.Addr,
					strings.TrimPrefix(door.URL, "http://"), 1))
				s.Artifact.User, s.Artifact.Secret = user, "password"
				return s
			},
			Missing: artifact(oci.Addr + "/code" + none),
			Gone:    artifact(sourcetest.Gone + "/code" + none),
			Hangs:   artifact(sourcetest.Hang(t) + "/code" + none),
		}
	})
}

func request(t *testing.T, s source.Source) source.Request {
	t.Helper()
	return source.Request{Source: s, Dir: t.TempDir(), Scratch: t.TempDir()}
}

// TestLayers: layers are unpacked in their order, and one with a title is a file.
func TestLayers(t *testing.T) {
	t.Parallel()
	oci := registry.Start(t)
	f := fetcher(t, artifactsource.Config{})
	file := func(text string) []sourcetest.File {
		return []sourcetest.File{{Name: "d/a", Mode: 0o644, Content: text}}
	}
	r := request(t, artifact(push(t, oci.Addr, tarLayer(t, file("one")), tarLayer(t, file("two")),
		layer{[]byte("<xml/>"), "application/xml", "conf/app.xml"})))
	id, err := f.Fetch(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, r.Source.Artifact.Reference, oci.Addr+"/code@"+id.ID)
	for name, want := range map[string]string{"d/a": "two", "conf/app.xml": "<xml/>"} {
		got, err := os.ReadFile(filepath.Join(r.Dir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	for says, layers := range map[string][]layer{
		"no layers":    nil,
		"no tar file":  {{[]byte("text"), "text/plain", ""}},
		`element ".."`: {{[]byte("text"), "text/plain", "../a"}},
		"marks a file as deleted": {tarLayer(t, []sourcetest.File{{Name: "d/.wh.a",
			Mode: 0o644}})},
	} {
		r := request(t, artifact(push(t, oci.Addr, layers...)))
		_, err := f.Fetch(t.Context(), r)
		require.Equal(t, builder.ReasonSourceRefused, builder.FailureOf(err).Reason, "%v", err)
		require.ErrorContains(t, err, says)
	}
}

// TestIndex: an index is several artifacts, none of which the digest names.
func TestIndex(t *testing.T) {
	t.Parallel()
	oci := registry.Start(t)
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: empty.Image})
	digest, err := index.Digest()
	require.NoError(t, err)
	repository, err := name.NewRepository(oci.Addr + "/code")
	require.NoError(t, err)
	ref := repository.Digest(digest.String())
	require.NoError(t, remote.WriteIndex(ref, index, remote.WithContext(t.Context())))
	_, err = fetcher(t, artifactsource.Config{}).Fetch(t.Context(), request(t,
		artifact(ref.String())))
	require.Equal(t, builder.ReasonSourceRefused, builder.FailureOf(err).Reason, "%v", err)
	require.ErrorContains(t, err, "an index of several")
}

// TestSwappedLayer: a layer with other bytes than its digest names is not unpacked; the network may
// have changed them.
func TestSwappedLayer(t *testing.T) {
	t.Parallel()
	oci := registry.Start(t)
	ref := push(t, oci.Addr, tarLayer(t, sourcetest.Sample()))
	behind := &httputil.ReverseProxy{
		Rewrite: func(q *httputil.ProxyRequest) {
			q.SetURL(&url.URL{Scheme: "http", Host: oci.Addr})
		},
		ModifyResponse: func(a *http.Response) error {
			if !strings.Contains(a.Request.URL.Path, "/blobs/") {
				return nil
			}
			data, err := io.ReadAll(a.Body)
			if len(data) > 20 {
				data[20] ^= 1
			}
			a.Body = io.NopCloser(bytes.NewReader(data))
			return err
		},
	}
	door := httptest.NewServer(behind)
	t.Cleanup(door.Close)
	r := request(t, artifact(strings.Replace(ref, oci.Addr, strings.TrimPrefix(door.URL, "http://"),
		1)))
	_, err := fetcher(t, artifactsource.Config{}).Fetch(t.Context(), r)
	require.ErrorContains(t, err, "sha256")
	require.Equal(t, builder.ReasonSourceAway, builder.FailureOf(err).Reason, "%v", err)
	left, err := os.ReadDir(r.Dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := artifactsource.New(artifactsource.Config{Insecure: []string{"a/b c"}})
	require.ErrorIs(t, err, builder.ErrInvalid)
	require.ErrorContains(t, err, "Config.Insecure")
}
