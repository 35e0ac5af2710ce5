package platform_test

import (
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/promote"
)

// push pushes the image under the tag, as any client does, and returns its digest.
func push(t *testing.T, s *servertest.Server, repository, tag string,
	image remote.Taggable) string {
	t.Helper()
	ref, err := name.NewTag(s.Registry+"/"+repository+":"+tag, name.Insecure)
	require.NoError(t, err)
	switch image := image.(type) {
	case v1.Image:
		require.NoError(t, remote.Write(ref, image))
	case v1.ImageIndex:
		require.NoError(t, remote.WriteIndex(ref, image))
	}
	there, err := remote.Head(ref)
	require.NoError(t, err)
	return there.Digest.String()
}

// imageFor is an image with something random in it.
func imageFor(t *testing.T, arch string, cmd ...string) v1.Image {
	t.Helper()
	image, err := random.Image(100, 1)
	require.NoError(t, err)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	config.OS, config.Architecture, config.Config.Cmd = "linux", arch, cmd
	image, err = mutate.ConfigFile(image, config)
	require.NoError(t, err)
	return image
}

func TestVersionsOfImagesBuiltElsewhere(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	p := s.Platform
	built := s.MustBuild(t, "hello_web", "v1")
	bind := func(version, digest string) (platform.Version, error) {
		return p.BindVersion(t.Context(), platform.VersionRequest{Cluster: "hello_web",
			Version: version, Digest: digest, Actor: "eve"})
	}

	// A changed copy of an image of this server stands for the image of another builder, with its
	// configuration.
	elsewhere, err := remote.Image(mustParse(t, s.Registry+"/hello_web@"+built.Digest))
	require.NoError(t, err)
	elsewhere, err = mutate.Config(elsewhere, withLabel(t, elsewhere, "built", "elsewhere"))
	require.NoError(t, err)
	digest := push(t, s, "hello_web", "from-elsewhere", elsewhere)
	require.NotEqual(t, built.Digest, digest)
	v, err := bind("v2", digest)
	require.NoError(t, err)
	require.Equal(t, digest, v.Digest)
	again, err := bind("v2", digest)
	require.NoError(t, err)
	require.Equal(t, v, again, "the same request again changes nothing")
	byTag, err := bind("from-elsewhere", "")
	require.NoError(t, err)
	require.Equal(t, digest, byTag.Digest)
	s.MustPromote(t, "hello_web", "v2", "test", "sandbox")

	// An image without configuration is bound, and the gate refuses it as any other.
	bare := push(t, s, "hello_web", "bare", imageFor(t, runtime.GOARCH, "/app"))
	_, err = bind("v3", bare)
	require.NoError(t, err)
	_, err = p.Promote(t.Context(), platform.PromotionRequest{Cluster: "hello_web", Version: "v3",
		Environment: "test", Expect: "any", Actor: "eve"})
	var refused *promote.RefusedError
	require.ErrorAs(t, err, &refused)

	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: imageFor(t, "s390x", "/app")})
	for what, tc := range map[string]struct {
		digest string
		want   error
		text   string
	}{
		"not pushed": {"sha256:" + strings.Repeat("0", 64), platform.ErrNotFound,
			"push it first"},
		"no such tag": {"", platform.ErrNotFound, "push it first"},
		"no digest":   {"latest", platform.ErrInvalid, "sha256"},
		"another machine": {push(t, s, "hello_web", "x1", imageFor(t, "s390x", "/app")),
			platform.ErrInvalid, "linux/" + runtime.GOARCH},
		"nothing to run": {push(t, s, "hello_web", "x2", imageFor(t, runtime.GOARCH)),
			platform.ErrInvalid, "ENTRYPOINT"},
		"index of another": {push(t, s, "hello_web", "x3", index), platform.ErrInvalid, "linux/" +
			runtime.GOARCH},
	} {
		_, err := bind("v4", tc.digest)
		require.ErrorIs(t, err, tc.want, what)
		require.ErrorContains(t, err, tc.text, what)
	}
	_, err = bind("v1", digest)
	require.ErrorIs(t, err, promote.ErrRebound)
	versions, err := p.Versions(t.Context(), "hello_web")
	require.NoError(t, err)
	require.Len(t, versions, 4, "v1, v2, from-elsewhere and v3")
}

// TestWhatABoundIndexHoldsStays deletes images beside and inside of an index that a version is
// bound to.
func TestWhatABoundIndexHoldsStays(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	inner, deep, free := imageFor(t, runtime.GOARCH, "/app"), imageFor(t, "s390x", "/app"),
		imageFor(t, runtime.GOARCH, "/app")
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: deep})
	bound := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: inner},
		mutate.IndexAddendum{Add: nested})
	other := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: free})
	digest := push(t, s, "hello_web", "v1", bound)
	push(t, s, "hello_web", "other", other)
	_, err := s.Platform.BindVersion(t.Context(), platform.VersionRequest{Cluster: "hello_web",
		Version: "v1", Digest: digest, Actor: "ann"})
	require.NoError(t, err)
	remove := func(manifest interface{ Digest() (v1.Hash, error) }) error {
		digest, err := manifest.Digest()
		require.NoError(t, err)
		return remote.Delete(mustParse(t, s.Registry+"/hello_web@"+digest.String()))
	}
	require.ErrorContains(t, remove(bound), "version v1 of hello_web is this image")
	for name, manifest := range map[string]interface{ Digest() (v1.Hash, error) }{"inner": inner,
		"nested": nested, "deep": deep} {
		require.ErrorContains(t, remove(manifest), "an index with this image", name)
	}
	require.NoError(t, remove(other))
	require.NoError(t, remove(free))
}

func mustParse(t *testing.T, s string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(s, name.Insecure)
	require.NoError(t, err)
	return ref
}

func withLabel(t *testing.T, image v1.Image, key, value string) v1.Config {
	t.Helper()
	file, err := image.ConfigFile()
	require.NoError(t, err)
	config := *file.Config.DeepCopy()
	config.Labels[key] = value
	return config
}

// TestAVersionThatCannotBeBoundStaysFree builds a version while it is bound to another image: the
// tag is not taken, and another version of the same source is.
func TestAVersionThatCannotBeBoundStaysFree(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	other := push(t, s, "hello_web", "other", imageFor(t, runtime.GOARCH, "/app"))
	_, err := s.Platform.BindVersion(t.Context(), platform.VersionRequest{Cluster: "hello_web",
		Version: "v1", Digest: other, Actor: "ann"})
	require.NoError(t, err)
	source := s.Upload(t, "hello_web", "v1")
	build := func(version string) platform.Build {
		b, err := s.Platform.SubmitBuild(t.Context(), platform.BuildRequest{Cluster: "hello_web",
			Version: version, Template: "go-static", Source: source, Actor: "ann"})
		require.NoError(t, err)
		b, err = s.Ended(t.Context(), b.ID)
		require.NoError(t, err)
		return b
	}
	failed := build("v1")
	require.Equal(t, platform.BuildFailed, failed.State)
	require.Contains(t, failed.Error, other[:19])
	_, err = remote.Head(mustParse(t, s.Registry+"/hello_web:v1"))
	require.ErrorContains(t, err, http.StatusText(http.StatusNotFound), "no tag was set")

	pushed := push(t, s, "hello_web", "v2", imageFor(t, runtime.GOARCH, "/app"))
	require.Equal(t, platform.BuildFailed, build("v2").State, "the tag names what somebody has "+
		"pushed")
	_, err = s.Platform.BindVersion(t.Context(), platform.VersionRequest{Cluster: "hello_web",
		Version: "v2", Digest: pushed, Actor: "ann"})
	require.NoError(t, err, "which may still be bound")
	v3 := build("v3")
	require.Equal(t, platform.BuildSucceeded, v3.State, v3.Error)
	there, err := remote.Head(mustParse(t, s.Registry+"/hello_web:v3"))
	require.NoError(t, err)
	require.Equal(t, v3.Digest, there.Digest.String())
}

// TestTheRegistryMoves starts a server again whose registry has another port: deployed instances go
// on, and every operation works.
func TestTheRegistryMoves(t *testing.T) {
	t.Parallel()
	first := servertest.Start(t, servertest.Config{})
	v1 := first.MustBuild(t, "hello_web", "v1")
	first.MustBuild(t, "hello_web", "v2")
	first.MustPromote(t, "hello_web", "v1", "test")
	first.MustPromote(t, "hello_web", "v2", "test")
	first.Leave()

	s := servertest.Start(t, servertest.Config{Dir: first.Dir})
	require.NotEqual(t, first.Registry, s.Registry)
	before := s.Platform.Instances()
	require.Len(t, before, 1)
	fresh, err := s.Platform.RestartInstance(t.Context(), before[0].ID, "ann")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(fresh.Image, s.Registry+"/"), fresh.Image)
	s.MustPromote(t, "hello_web", "v2", "sandbox")
	_, err = s.Platform.Rollback(t.Context(), platform.RollbackRequest{Cluster: "hello_web",
		Environment: "test", Digest: v1.Digest, Expect: "any", Actor: "ann"})
	require.NoError(t, err)
	_, err = s.Platform.StartTask(t.Context(), platform.TaskRequest{Task: "t", Cluster: "hello_web",
		Version: "v1", Actor: "ann"})
	require.NoError(t, err)
}
