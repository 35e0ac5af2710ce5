//go:build linux

package registry_test

import (
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

func TestRegistryKeepsAndDeletesImages(t *testing.T) {
	t.Parallel()
	server := registry.Start(t)
	tag, err := name.NewTag(server.Addr + "/app:v1")
	require.NoError(t, err)
	image, err := random.Image(1000, 2)
	require.NoError(t, err)
	require.NoError(t, remote.Write(tag, image))

	server.Process.Kill()
	server.Process.Start()
	got, err := remote.Head(tag)
	require.NoError(t, err)
	want, err := image.Digest()
	require.NoError(t, err)
	require.Equal(t, want, got.Digest)

	require.NoError(t, remote.Delete(tag.Context().Digest(want.String())))
	_, err = remote.Head(tag)
	var answer *transport.Error
	require.ErrorAs(t, err, &answer)
	require.Equal(t, http.StatusNotFound, answer.StatusCode)
}
