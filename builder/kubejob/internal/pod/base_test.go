package pod

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
)

// The last stage has the base of the image: the order of BuildKit's messages does not matter.
func TestBase(t *testing.T) {
	t.Parallel()
	one := "example.com/one:1@sha256:" + strings.Repeat("1", 64)
	two := "example.com/two:1@sha256:" + strings.Repeat("2", 64)
	for name, c := range map[string]struct {
		dockerfile string
		vertices   []string
		want       string
	}{
		"one stage": {"FROM example.com/one:1\nRUN true\n", []string{"[1/2] FROM " + one}, one},
		"last stage is told first": {
			"FROM example.com/one:1 AS made\nFROM example.com/two:1\nCOPY --from=made /a /a\n",
			[]string{"[stage-1 1/2] FROM " + two, "[made 1/1] FROM " + one}, two},
		"scratch": {"FROM example.com/one:1 AS made\nFROM scratch\nCOPY --from=made /a /a\n",
			[]string{"[made 1/1] FROM " + one}, ""},
		"stage of a stage": {
			"FROM example.com/one:1 AS Made\nFROM example.com/two:1 AS other\nFROM made\n" +
				"COPY --from=other /a /a\n",
			[]string{"[made 1/1] FROM " + one, "[other 1/1] FROM " + two}, one},
		"base of two stages": {
			"FROM example.com/one:1 AS made\nFROM example.com/one:1\nCOPY --from=made /a /a\n",
			[]string{"[made 1/2] FROM " + one}, one},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := builder.Request{Dockerfile: []byte(c.dockerfile)}
			plan, err := r.Plan()
			require.NoError(t, err)
			p := newProgress(nil, plan)
			for _, v := range c.vertices {
				text, err := json.Marshal(status{Vertexes: []vertex{{Name: v}}})
				require.NoError(t, err)
				p.line(text)
			}
			require.Equal(t, c.want, p.base())
		})
	}
}

func TestLayersOf(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New())
	t.Cleanup(server.Close)
	repo, err := name.NewRepository(server.Listener.Addr().String() + "/base")
	require.NoError(t, err)
	img, err := random.Image(64, 3)
	require.NoError(t, err)
	other, err := random.Image(64, 1)
	require.NoError(t, err)
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "plan9", Architecture: "mips"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: here()}})
	digest, err := index.Digest()
	require.NoError(t, err)
	at := repo.Digest(digest.String())
	require.NoError(t, remote.WriteIndex(at, index))
	require.Equal(t, 3, layersOf(t.Context(), at.String(), nil), "of an index")
	digest, err = other.Digest()
	require.NoError(t, err)
	require.Equal(t, 1, layersOf(t.Context(), repo.Digest(digest.String()).String(), nil))
	require.Zero(t, layersOf(t.Context(), "", nil), "scratch")
	missing := repo.Name() + "@sha256:" + strings.Repeat("0", 64)
	require.Equal(t, -1, layersOf(t.Context(), missing, nil))
}
