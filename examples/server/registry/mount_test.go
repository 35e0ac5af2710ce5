package registry_test

import (
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/examples/server/registry"
)

// Not parallel: the registry's logger is process-wide. It is here and not beside the engine because
// the registry that go-containerregistry has for tests keeps the blobs of all repositories in one
// place.
func TestLayersAreTakenOverFromAnotherRepository(t *testing.T) {
	r, err := registry.Open(t.Context(), registry.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	server := httptest.NewServer(r)
	defer func() { server.Close(); require.NoError(t, r.Close()) }()
	host := strings.TrimPrefix(server.URL, "http://")
	// The engine asks for layers that take longer to send than to ask for.
	random := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	shared := string(random)
	build := func(e *assemble.Engine, repository, own string) builder.Result {
		res, err := e.Build(t.Context(), builder.Request{
			Dockerfile: []byte("FROM scratch\nCOPY shared /\nCOPY own /\n"),
			Context:    fstest.MapFS{"shared": {Data: []byte(shared)}, "own": {Data: []byte(own)}},
			Repository: repository,
		})
		require.NoError(t, err)
		ref, err := name.ParseReference(res.Reference)
		require.NoError(t, err)
		image, err := remote.Image(ref)
		require.NoError(t, err)
		require.NoError(t, validate.Image(image))
		return res
	}

	engine, err := assemble.New(assemble.Config{})
	require.NoError(t, err)
	first := build(engine, host+"/web", "web")
	require.Zero(t, first.Reused)
	second := build(engine, host+"/api", "api")
	require.True(t, second.Layers[0].Reused, "the engine remembers its pushes")
	require.False(t, second.Layers[1].Reused)

	restarted, err := assemble.New(assemble.Config{})
	require.NoError(t, err)
	require.False(t, build(restarted, host+"/forgot", "x").Layers[0].Reused,
		"nobody told it where to look")
	told, err := assemble.New(assemble.Config{Repositories: func() []string {
		return []string{"not a name", "127.0.0.1:1/elsewhere", host + "/missing", host + "/told",
			host + "/web"}
	}})
	require.NoError(t, err)
	third := build(told, host+"/told", "y")
	require.True(t, third.Layers[0].Reused, "one of the repositories that it was told of has it")
	require.False(t, third.Layers[1].Reused)
	require.Equal(t, first.Layers[0].Digest, third.Layers[0].Digest)
}
