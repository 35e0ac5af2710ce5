package registry_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/registry"
)

// Not parallel: the registry's logger is process-wide.
func TestImagesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	image, err := random.Image(2048, 3)
	require.NoError(t, err)
	want, err := image.Digest()
	require.NoError(t, err)

	serve := func() (name.Reference, func()) {
		r, err := registry.Open(t.Context(), registry.Config{Dir: dir})
		require.NoError(t, err)
		server := httptest.NewServer(r)
		ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/hello_web:v1")
		require.NoError(t, err)
		return ref, func() { server.Close(); require.NoError(t, r.Close()) }
	}
	ref, stop := serve()
	require.NoError(t, remote.Write(ref, image))
	stop()

	ref, stop = serve()
	defer stop()
	got, err := remote.Image(ref)
	require.NoError(t, err)
	require.NoError(t, validate.Image(got))
	digest, err := got.Digest()
	require.NoError(t, err)
	require.Equal(t, want, digest)
}

func TestOpenNamesTheDirectoryThatItCannotUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := registry.Open(t.Context(), registry.Config{Dir: file})
	require.ErrorContains(t, err, file)
}

func TestBadConfigIsNamed(t *testing.T) {
	_, err := registry.Open(t.Context(), registry.Config{})
	require.ErrorContains(t, err, "registry: Config.Dir: ")
}
