//go:build linux

package ocilogs_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/builds/buildstest"
	"github.com/sluice-deploy/sluice/builder/builds/ocilogs"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/internal/testbed/faultproxy"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

func open(t *testing.T, addr string) *ocilogs.Store {
	t.Helper()
	s, err := ocilogs.New(ocilogs.Config{Repository: addr + "/logs/" + names.DNSLabel(t.Name())})
	require.NoError(t, err)
	return s
}

func TestLogs(t *testing.T) {
	t.Parallel()
	r := registry.Start(t)
	buildstest.Logs(t, func(t *testing.T) builds.Logs { return open(t, r.Addr) })
}

// A registry that refuses deletion keeps an empty artifact in place of the log.
func TestLogsWithoutDeletion(t *testing.T) {
	t.Parallel()
	r := registry.Start(t)
	p := faultproxy.Start(t, "127.0.0.1", &url.URL{Scheme: "http", Host: r.Addr}, nil)
	p.Break(faultproxy.Rule{Method: "DELETE", Status: 405,
		Body: `{"errors": [{"code": "UNSUPPORTED", "message": "by rule"}]}`})
	buildstest.Logs(t, func(t *testing.T) builds.Logs { return open(t, p.Addr) })
}

// A part with another digest is an error, and an append that cannot write the tag leaves the log as
// it was.
func TestFaultsOfTheRegistry(t *testing.T) {
	t.Parallel()
	r := registry.Start(t)
	p := faultproxy.Start(t, "127.0.0.1", &url.URL{Scheme: "http", Host: r.Addr}, nil)
	s := open(t, p.Addr)
	require.NoError(t, s.AppendLog(t.Context(), "b", 0, []byte("one\n")))
	p.Break(faultproxy.Rule{Method: "PUT", Path: regexp.MustCompile("/manifests/"), Status: 403,
		Body: `{"errors": [{"code": "DENIED", "message": "by rule"}]}`})
	require.ErrorContains(t, s.AppendLog(t.Context(), "b", 4, []byte("two\n")), "by rule")
	p.Break(faultproxy.Rule{Method: "GET", Path: regexp.MustCompile("/blobs/"), Status: 200,
		Body: "ONE\n"})
	_, _, err := s.ReadLog(t.Context(), "b", 0, 100)
	require.Error(t, err)
	p.Break()
	text, size, err := s.ReadLog(t.Context(), "b", 0, 100)
	require.NoError(t, err)
	require.Equal(t, "one\n", string(text))
	require.Equal(t, int64(4), size)
}

// An image under the name of a log is neither read nor overwritten; many short appends are few
// layers.
func TestArtifact(t *testing.T) {
	t.Parallel()
	r := registry.Start(t)
	s := open(t, r.Addr)
	piece := []byte(strings.Repeat("x", 29_999) + "\n")
	for i := range 20 {
		require.NoError(t, s.AppendLog(t.Context(), "b", int64(i*len(piece)), piece))
	}
	repo, err := name.NewRepository(r.Addr + "/logs/" + names.DNSLabel(t.Name()))
	require.NoError(t, err)
	img, err := remote.Image(repo.Tag("b"))
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 3)

	other, err := random.Image(100, 1)
	require.NoError(t, err)
	require.NoError(t, remote.Write(repo.Tag("taken"), other))
	_, _, err = s.ReadLog(t.Context(), "taken", 0, 1)
	require.ErrorIs(t, err, builder.ErrInvalid)
	require.ErrorIs(t, s.AppendLog(t.Context(), "taken", 0, []byte("x")), builder.ErrInvalid)
	require.ErrorIs(t, s.RemoveLog(t.Context(), "taken"), builder.ErrInvalid)
	_, err = remote.Head(repo.Tag("taken"))
	require.NoError(t, err)
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	_, err := ocilogs.New(ocilogs.Config{Repository: "logs", Insecure: []string{"http://a"}})
	require.ErrorIs(t, err, builder.ErrInvalid)
	require.ErrorContains(t, err, "ocilogs: Config.Repository:")
	require.ErrorContains(t, err, "ocilogs: Config.Insecure[0]:")
}
