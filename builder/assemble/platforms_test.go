package assemble_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

// elfOf is the head of a program for a machine of elf(5).
func elfOf(machine byte) *fstest.MapFile {
	head := make([]byte, 64)
	copy(head, "\x7fELF\x02\x01\x01")
	head[18] = machine
	return &fstest.MapFile{Data: head, Mode: 0o755}
}

const amd64, arm64 = 62, 183 // EM_X86_64, EM_AARCH64

// pullIndex reads the index that a reference names.
func pullIndex(t *testing.T, reference string) (v1.ImageIndex, *v1.IndexManifest) {
	t.Helper()
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	index, err := remote.Index(ref)
	require.NoError(t, err)
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	return index, manifest
}

// A build for several platforms gives an index, with an image of each platform's own base, and the
// digest of the index is the version's. The same input gives the same digest, elsewhere and later.
func TestPlatforms(t *testing.T) {
	t.Parallel()
	host := serve(t)
	var bases []mutate.IndexAddendum
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch,
			Config: v1.Config{Env: []string{"BASE=" + arch}}})
		require.NoError(t, err)
		bases = append(bases, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	base, err := name.NewTag(host + "/base:1")
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(base, mutate.AppendManifests(empty.Index, bases...)))
	request := builder.Request{
		Dockerfile: []byte("FROM " + base.String() + "\nARG TARGETARCH\n" +
			"LABEL arch=$TARGETARCH base=$BASE\nCOPY same /same\nCOPY bin/$TARGETARCH /app\n"),
		Repository: host + "/app", Tag: "v1", Platforms: []string{"linux/amd64", "linux/arm64"},
		Context: fstest.MapFS{"same": {Data: []byte("same")}, "bin/amd64": elfOf(amd64),
			"bin/arm64": elfOf(arm64)},
	}
	result, err := newEngine(t, assemble.Config{}).Build(t.Context(), request)
	require.NoError(t, err)
	index, manifest := pullIndex(t, host+"/app:v1")
	digest, err := index.Digest()
	require.NoError(t, err)
	require.Equal(t, digest.String(), result.Digest)
	require.Len(t, manifest.Manifests, 2)
	require.Len(t, result.Images, 2)
	for i, arch := range []string{"amd64", "arm64"} {
		d := manifest.Manifests[i]
		require.Equal(t, "linux/"+arch, d.Platform.String())
		require.Equal(t, builder.PlatformImage{Platform: "linux/" + arch,
			Digest: d.Digest.String()}, result.Images[i])
		img, err := index.Image(d.Digest)
		require.NoError(t, err)
		config, err := img.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, arch, config.Architecture)
		require.Equal(t, arch, config.Config.Labels["arch"])
		require.Equal(t, arch, config.Config.Labels["base"])
	}
	size, err := index.Size()
	require.NoError(t, err)
	require.Equal(t, result.Size, size+result.Uploaded+result.Reused+
		manifest.Manifests[0].Size+manifest.Manifests[1].Size)

	later := fstest.MapFS{}
	for file, f := range request.Context.(fstest.MapFS) {
		later[file] = &fstest.MapFile{Data: f.Data, Mode: f.Mode, ModTime: time.Now()}
	}
	request.Context = later
	again, err := newEngine(t, assemble.Config{TempDir: t.TempDir()}).Build(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, result.Digest, again.Digest)

	request.Tag, request.Platforms = "", []string{"linux/arm64"}
	one, err := newEngine(t, assemble.Config{}).Build(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, result.Images[1].Digest, one.Digest, "one platform needs no index")
	require.Empty(t, one.Images)
}

// A platform may have a context of its own, and a program of another platform is refused.
func TestPlatformContexts(t *testing.T) {
	t.Parallel()
	host := serve(t)
	request := builder.Request{
		Dockerfile: []byte("FROM scratch\nCOPY app /app\n"), Repository: host + "/app",
		Platforms: []string{"linux/amd64", "linux/arm64"}, Tag: "v1",
		Context: fstest.MapFS{"app": elfOf(amd64)},
	}
	engine := newEngine(t, assemble.Config{})
	_, err := engine.Build(t.Context(), request)
	require.ErrorIs(t, err, builder.ErrInvalid)
	require.ErrorContains(t, err, "/app is a program for EM_X86_64, the image is for linux/arm64")
	_, err = remote.Head(mustTag(t, host+"/app:v1"))
	require.Error(t, err, "a refused build pushes nothing")

	request.Contexts = map[string]fs.FS{"linux/arm64": fstest.MapFS{"app": elfOf(arm64)}}
	result, err := engine.Build(t.Context(), request)
	require.NoError(t, err)
	require.Len(t, result.Images, 2)

	var log strings.Builder
	request = builder.Request{Dockerfile: request.Dockerfile, Context: request.Context,
		Repository: host + "/single", Platforms: []string{"linux/s390x"}, Log: &log}
	_, err = engine.Build(t.Context(), request)
	require.NoError(t, err)
	require.Contains(t, log.String(), "/app is a program for EM_X86_64")

	request.Platforms = []string{"linux/amd64", "linux/amd64", "linux", "Linux/AMD64"}
	request.Contexts = map[string]fs.FS{"linux/arm64": nil}
	_, err = engine.Build(t.Context(), request)
	for _, want := range []string{"platform linux/amd64 is there twice",
		`platform "linux": want os/architecture`, `platform "Linux/AMD64"`,
		`context of the platform "linux/arm64": the request has no such platform`} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorIs(t, err, builder.ErrInvalid)
}

func mustTag(t *testing.T, text string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(text)
	require.NoError(t, err)
	return tag
}
