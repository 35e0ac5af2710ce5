package ociregistry_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/ociregistry"
)

// server is a registry in this process that counts the bytes that it sends.
type server struct {
	repository string

	mu       sync.Mutex
	requests []string
	bytes    int
}

func newServer(t *testing.T) *server {
	s := &server{}
	backend := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		backend.ServeHTTP(&counter{w, s}, r)
	}))
	t.Cleanup(web.Close)
	s.repository = strings.TrimPrefix(web.URL, "http://") + "/team/hello_web"
	return s
}

type counter struct {
	http.ResponseWriter
	s *server
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.bytes += n
	return n, err
}

func (s *server) count() (requests, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests), s.bytes
}

// push puts img under the tag v1 and resets the count.
func (s *server) push(t *testing.T, img remote.Taggable) promote.Digest {
	t.Helper()
	tag, err := name.NewTag(s.repository + ":v1")
	require.NoError(t, err)
	switch img := img.(type) {
	case v1.Image:
		require.NoError(t, remote.Write(tag, img))
	case v1.ImageIndex:
		require.NoError(t, remote.WriteIndex(tag, img))
	}
	d, err := newReader(t, ociregistry.Config{}).Resolve(t.Context(), tag.String())
	require.NoError(t, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.bytes = nil, 0
	return d
}

// layer holds files by name; a nil content is a directory.
func layer(t *testing.T, files ...string) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, file := range files {
		name, content, _ := strings.Cut(file, "=")
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)),
			Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			header.Typeflag = tar.TypeDir
		}
		require.NoError(t, w.WriteHeader(header))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
	require.NoError(t, err)
	return l
}

// limit is for the compressed bytes of layers in these tests.
const limit = 128 << 10

// base is a layer above the limit.
func base(t *testing.T) v1.Layer {
	noise := make([]byte, 2*limit) // cannot be compressed
	_, _ = rand.Read(noise)
	return layer(t, "usr/lib/runtime="+string(noise))
}

func image(t *testing.T, label string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	require.NoError(t, err)
	file, err := img.ConfigFile()
	require.NoError(t, err)
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	if label != "" {
		file.Config.Labels = map[string]string{promote.ConfigLabel: label}
	}
	img, err = mutate.ConfigFile(img, file)
	require.NoError(t, err)
	return img
}

const manifest = `{"version":1,"digest":"sha256:00","environments":{
	"test":{"files":["etc/app.conf"]},"production":{"files":["etc/app.conf","etc/extra.conf"]},"stable":{"files":[]}},
	"required":["etc/app.conf"],"more":true}`

var parsed = promote.Configuration{
	Environments: map[string][]string{"test": {"etc/app.conf"}, "production": {"etc/app.conf",
		"etc/extra.conf"}, "stable": {}},
	Required: []string{"etc/app.conf"},
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	envs := "etc/envconfig/envs/"
	for name, c := range map[string]struct {
		label  string
		layers func(*testing.T) []v1.Layer // from the bottom
		want   promote.Configuration
		// Limits, so that no image makes the gate pull it whole.
		requests, bytes int
	}{
		"label": {
			label: manifest, want: parsed, requests: 3, bytes: 4 << 10,
			layers: func(t *testing.T) []v1.Layer {
				return []v1.Layer{base(t), layer(t, "etc/envconfig/manifest.json=ignored")}
			},
		},
		"manifest in the top layer": {
			want: parsed, requests: 4, bytes: 8 << 10,
			layers: func(t *testing.T) []v1.Layer {
				return []v1.Layer{base(t), layer(t, "etc/envconfig/manifest.json="+manifest)}
			},
		},
		"manifest in the second layer": {
			want: parsed, requests: 5, bytes: 8 << 10,
			layers: func(t *testing.T) []v1.Layer {
				return []v1.Layer{base(t), layer(t, "./etc/envconfig/manifest.json="+manifest),
					layer(t, "app/server=x")}
			},
		},
		"files over several layers": {
			want: promote.Configuration{
				Environments: map[string][]string{"test": {"etc/app.conf", "etc/shared"},
					"production": {"etc/shared", "etc/tls.conf"}},
				Required: []string{"etc/app.conf", "etc/shared", "etc/tls.conf"}},
			requests: 5, bytes: 8 << 10,
			layers: func(t *testing.T) []v1.Layer {
				return []v1.Layer{layer(t, envs+"production/etc/tls.conf=x",
					envs+"_base/etc/shared=x"), layer(t, envs+"test/", envs+"test/etc/app.conf=x")}
			},
		},
		"deleted and hidden files do not count": {
			want: promote.Configuration{Environments: map[string][]string{"stable": {"new"}},
				Required: []string{"new"}},
			requests: 5, bytes: 8 << 10,
			layers: func(t *testing.T) []v1.Layer {
				return []v1.Layer{
					layer(t, "etc/envconfig/manifest.json="+manifest, envs+"test/etc/a=x",
						envs+"stable/old=x", envs+"production/b=x"),
					layer(t, "etc/envconfig/.wh.manifest.json=", envs+".wh.test=",
						envs+"stable/.wh..wh..opq=", envs+"stable/new=x", envs+"production/.wh.b="),
				}
			},
		},
		"a file hides the directory that it replaces": {
			want: promote.Configuration{Environments: map[string][]string{"test": {"etc"}},
				Required: []string{"etc"}},
			requests: 5, bytes: 8 << 10,
			layers: func(t *testing.T) []v1.Layer {
				return []v1.Layer{layer(t, envs+"test/etc/a=x", envs+"test/etc/b/c=x"),
					layer(t, envs+"test/etc=x")}
			},
		},
		"a file in the place of a directory above": {
			want:     promote.Configuration{Environments: map[string][]string{}},
			requests: 5, bytes: 8 << 10,
			layers: func(t *testing.T) []v1.Layer {
				return []v1.Layer{layer(t, "etc/envconfig/manifest.json="+manifest,
					envs+"test/etc/a=x"), layer(t, "etc/envconfig=x")}
			},
		},
		"everything below etc replaced": {
			want:     promote.Configuration{Environments: map[string][]string{}},
			requests: 5, bytes: 8 << 10,
			layers: func(t *testing.T) []v1.Layer {
				return []v1.Layer{layer(t, "etc/envconfig/manifest.json="+manifest,
					envs+"test/etc/a=x"), layer(t, "etc/.wh..wh..opq=", "etc/passwd=x")}
			},
		},
		"nothing, and a base that is not fetched": {
			want: promote.Configuration{Environments: map[string][]string{},
				Unread: "the lowest 1 of 2 layers were not looked into"},
			requests: 4, bytes: 8 << 10,
			layers: func(t *testing.T) []v1.Layer {
				return []v1.Layer{base(t), layer(t, "app/server=x")}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			d := s.push(t, image(t, c.label, c.layers(t)...))
			got, err := newReader(t, ociregistry.Config{MaxBytes: limit}).Configuration(t.Context(),
				s.repository, d)
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(got.Unread, c.want.Unread), got.Unread)
			require.Equal(t, c.want.Unread == "", got.Unread == "")
			got.Unread, c.want.Unread = "", ""
			require.Equal(t, c.want, got)
			requests, bytes := s.count()
			t.Logf("%d requests, %d bytes", requests, bytes)
			require.LessOrEqual(t, requests, c.requests, "%v", s.requests)
			require.LessOrEqual(t, bytes, c.bytes, "%v", s.requests)
		})
	}
}

func TestConfigurationErrors(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("\x00", 7<<20)
	for want, img := range map[string]v1.Image{
		"label io.github.sluice-deploy.envconfig: configuration manifest": image(t, "{"),
		"version 2: this program reads version 1": image(t,
			`{"version":2}`),
		`layer 1: etc/envconfig/manifest.json: configuration manifest`: image(t, "",
			layer(t, "etc/envconfig/manifest.json=[]")),
		"has more than 1048576 bytes": image(t, "",
			layer(t, "etc/envconfig/manifest.json="+strings.Repeat(" ", 1<<20+1))),
		"unpacks to more than": image(t, "",
			layer(t, "a="+zeros, "b="+zeros)),
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			_, err := newReader(t, ociregistry.Config{}).Configuration(t.Context(), s.repository,
				s.push(t, img))
			require.ErrorContains(t, err, want)
		})
	}
	t.Run("no such image", func(t *testing.T) {
		t.Parallel()
		s := newServer(t)
		reader := newReader(t, ociregistry.Config{})
		_, err := reader.Configuration(t.Context(), s.repository, promote.Digest("sha256:"+
			strings.Repeat("0", 64)))
		require.ErrorContains(t, err, "manifest: ")
		_, err = reader.Resolve(t.Context(), s.repository+":v404")
		require.ErrorContains(t, err, "resolve "+s.repository+":v404")
		_, err = reader.Resolve(t.Context(), "No Such")
		require.ErrorIs(t, err, promote.ErrInvalid)
		_, err = reader.Configuration(t.Context(), "no such", "x")
		require.ErrorIs(t, err, promote.ErrInvalid)
	})
}

func TestIndexIsLookedIntoForItsPlatform(t *testing.T) {
	t.Parallel()
	add := func(arch, label string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: image(t, label),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}}
	}
	s := newServer(t)
	d := s.push(t, mutate.AppendManifests(empty.Index,
		add("s390x", `{"version":1,"environments":{"other":{}}}`), add(runtime.GOARCH, manifest)))
	for arch, want := range map[string]string{"": "production", "s390x": "other"} {
		cfg := ociregistry.Config{Platform: v1.Platform{Architecture: arch}}
		c, err := newReader(t, cfg).Configuration(t.Context(), s.repository, d)
		require.NoError(t, err)
		require.Contains(t, c.Environments, want)
	}
}

// The digest of a version is that of its index, and the attestations in it are no image of any
// platform.
func TestIndexWithAttestationsIsTheVersion(t *testing.T) {
	t.Parallel()
	built := image(t, manifest)
	digest, err := built.Digest()
	require.NoError(t, err)
	s := newServer(t)
	d := s.push(t, mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: image(t, ""), Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.digest": digest.String(),
				"vnd.docker.reference.type": "attestation-manifest"}}},
		mutate.IndexAddendum{Add: built, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}}))
	require.NotEqual(t, digest.String(), d.String())
	reader := newReader(t, ociregistry.Config{})
	index, err := name.NewDigest(s.repository + "@" + d.String())
	require.NoError(t, err)
	desc, err := remote.Get(index)
	require.NoError(t, err)
	require.NoError(t, remote.Tag(index.Context().Tag("v1"), desc))
	resolved, err := reader.Resolve(t.Context(), s.repository+":v1")
	require.NoError(t, err)
	require.Equal(t, d, resolved)
	c, err := reader.Configuration(t.Context(), s.repository, resolved)
	require.NoError(t, err)
	require.Equal(t, parsed, c)
}

func newReader(t *testing.T, cfg ociregistry.Config) *ociregistry.Reader {
	t.Helper()
	reader, err := ociregistry.New(cfg)
	require.NoError(t, err)
	return reader
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, err := ociregistry.New(ociregistry.Config{MaxBytes: -1, Insecure: []string{"registry/app"}})
	require.ErrorIs(t, err, promote.ErrInvalid)
	require.EqualError(t, err, `ociregistry: Config.Insecure[0]: "registry/app": want host or host:port: invalid
ociregistry: Config.MaxBytes: -1: want 0 (default 4194304) or more: invalid`)
}

func TestCancelledCallHasTheCause(t *testing.T) {
	t.Parallel()
	cause := errors.New("the caller went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := newServer(t)
	d := s.push(t, image(t, manifest))
	var ops []string
	reader := newReader(t, ociregistry.Config{
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			cancel(cause)
			return http.DefaultTransport.RoundTrip(r)
		}),
		Observe: func(op string, _ time.Duration, err error) {
			require.ErrorIs(t, err, cause)
			ops = append(ops, op)
		},
	})
	_, err := reader.Configuration(ctx, s.repository, d)
	require.ErrorIs(t, err, cause)
	_, err = reader.Resolve(ctx, s.repository+":v1")
	require.ErrorIs(t, err, cause)
	require.Equal(t, []string{"configuration", "resolve"}, ops)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The gate as it is used: a real registry, a real journal, an image without production's
// configuration.
func TestGateNamesTheMissingFiles(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	d := s.push(t,
		image(t, `{"version":1,"environments":{"test":{"files":["etc/a","etc/b"]},"sandbox":{"files":["etc/b"]}}}`))
	p, err := promote.New(promote.Config{Journal: promote.NewMemJournal(), Deployer: nothing{},
		Gates: []promote.Gate{
			promote.OrderGate{}, promote.ConfigGate{Source: newReader(t, ociregistry.Config{})}}})
	require.NoError(t, err)
	require.NoError(t, p.Bind(t.Context(), promote.Binding{Cluster: "hello_web", Version: "v1",
		Digest: d, Repository: s.repository, Actor: "ci"}))
	to := func(environment string) error {
		_, err := p.Promote(t.Context(),
			promote.Request{Expect: promote.Any, Target: promote.Target{Cluster: "hello_web",
				Environment: environment},
				Version: "v1", Actor: "alice"})
		return err
	}
	require.NoError(t, to("test"))
	var refused *promote.RefusedError
	require.ErrorAs(t, to("sandbox"), &refused)
	require.Len(t, refused.Gates, 1)
	require.Equal(t, []string{"etc/a"}, refused.Gates[0].Missing)
	require.ErrorContains(t, refused, "config gate: hello_web v1 ("+
		d.Short()+") lacks configuration files for sandbox: missing etc/a")

	require.ErrorAs(t, to("production"), &refused)
	require.Len(t, refused.Gates, 2, "every gate answers")
	require.Equal(t, []string{"etc/a", "etc/b"}, refused.Gates[1].Missing)
	require.ErrorContains(t, refused, "carries no configuration for production, only for "+
		"sandbox, test: missing etc/a, etc/b")
}

func Example() {
	web := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer web.Close()
	repository := strings.TrimPrefix(web.URL, "http://") + "/web"
	tag, _ := name.NewTag(repository + ":v1")
	img, _ := mutate.Config(empty.Image,
		v1.Config{Labels: map[string]string{promote.ConfigLabel: manifest}})
	_ = remote.Write(tag, img)

	reader, _ := ociregistry.New(ociregistry.Config{})
	digest, _ := reader.Resolve(context.Background(), tag.String())
	c, _ := reader.Configuration(context.Background(), repository, digest)
	fmt.Println(c.Missing("stable"))
	// Output: true [etc/app.conf]
}

type nothing struct{}

func (nothing) Deploy(context.Context, promote.Deployment) error { return nil }
func (nothing) Remove(context.Context, promote.Deployment) error { return nil }
