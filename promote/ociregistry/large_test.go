//go:build linux

package ociregistry_test

import (
	"crypto/rand"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed/registry"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/ociregistry"
)

// fetches counts the bytes that a client gets.
type fetches struct{ requests, bytes int }

func (f *fetches) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := http.DefaultTransport.RoundTrip(r)
	if err == nil { // the client tries a registry without TLS with TLS first
		f.requests++
		response.Body = &countedBody{response.Body, f}
	}
	return response, err
}

type countedBody struct {
	io.ReadCloser
	f *fetches
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.f.bytes += n
	return n, err
}

// An image of 180 MB costs the gate a few kilobytes: without the label, too, as long as the
// manifest is in the last layer.
func TestConfigurationOfALargeImage(t *testing.T) {
	t.Parallel()
	server := registry.Start(t)
	content := make([]byte, 180_000_000) // cannot be compressed
	_, _ = rand.Read(content)
	software := static.NewLayer(content, types.OCIUncompressedLayer)
	top := layer(t, "etc/envconfig/envs/test/etc/app.conf=x", "etc/envconfig/manifest.json="+
		manifest)
	for at, c := range map[string]struct {
		label           string
		requests, bytes int
	}{
		"label":                      {manifest, 3, 2000},
		"manifest in the last layer": {"", 4, 10_000},
	} {
		tag, err := name.NewTag(server.Addr + "/team/shop:v1")
		require.NoError(t, err)
		image := image(t, c.label, []v1.Layer{software, top}...)
		require.NoError(t, remote.Write(tag, image))
		digest, err := image.Digest()
		require.NoError(t, err)
		f := &fetches{}
		got, err := newReader(t, ociregistry.Config{Transport: f}).Configuration(t.Context(),
			tag.Context().Name(), promote.Digest(digest.String()))
		require.NoError(t, err)
		require.Equal(t, parsed, got, at)
		t.Logf("%s: %d requests, %d bytes", at, f.requests, f.bytes)
		require.LessOrEqual(t, f.requests, c.requests, at)
		require.LessOrEqual(t, f.bytes, c.bytes, at)
	}
}
