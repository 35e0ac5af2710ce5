package web_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/examples/server/web"
)

// TestServicesThatDoNotStart deploys an image without its command: the answer is 422, with the end
// of the service's log.
func TestServicesThatDoNotStart(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	s.MustBuild(t, "hello_web", "v1")
	s.MustPromote(t, "hello_web", "v1", "test")
	pushBroken(t, s, "v2")
	s.Call(t, http.MethodPost, "/versions", map[string]string{"cluster": "hello_web",
		"version": "v2", "actor": "ann"}, nil)
	before := s.Platform.Instances()
	for path, body := range map[string]string{
		"/promotions": `{"cluster":"hello_web","version":"v2","environment":"test",
			"expect":"any","actor":"ann"}`,
		"/tasks": `{"task":"t","cluster":"hello_web","version":"v2","actor":"ann"}`,
	} {
		response, answer := s.Do(t, http.MethodPost, path, strings.NewReader(body))
		var problem web.Problem
		require.NoError(t, json.Unmarshal(answer, &problem))
		require.Equal(t, 422, response.StatusCode, path)
		require.Contains(t, problem.Detail, "ended before it accepted connections", path)
		require.Contains(t, problem.Detail, "no-such-command", "%s: the end of its log", path)
	}
	require.Equal(t, before, s.Platform.Instances())

	// An instance that cannot be started again.
	root := filepath.Join(s.Dir, "registry", "images")
	require.NoError(t, os.Rename(root, root+".away"))
	response, answer := s.Do(t, http.MethodPost, "/instances/"+before[0].ID+"/restart?actor=ann",
		nil)
	require.Equal(t, 500, response.StatusCode, "the server's own fault: %s", answer)
	require.NoError(t, os.Rename(root+".away", root))
	require.Equal(t, before, s.Platform.Instances())
}

// pushBroken pushes an image like that of v1 whose command is not there.
func pushBroken(t *testing.T, s *servertest.Server, tag string) {
	t.Helper()
	built, err := remote.Image(reference(t, s, "v1"))
	require.NoError(t, err)
	file, err := built.ConfigFile()
	require.NoError(t, err)
	image := mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json")
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{Cmd: []string{"/no-such-command"}, Labels: file.Config.Labels},
		RootFS: v1.RootFS{Type: "layers"},
	})
	require.NoError(t, err)
	layers, err := built.Layers()
	require.NoError(t, err)
	image, err = mutate.AppendLayers(image, layers...)
	require.NoError(t, err)
	require.NoError(t, remote.Write(reference(t, s, tag), image))
}

func reference(t *testing.T, s *servertest.Server, tag string) name.Tag {
	t.Helper()
	ref, err := name.NewTag(s.Registry+"/hello_web:"+tag, name.Insecure)
	require.NoError(t, err)
	return ref
}

// TestNginxThatDoesNotAnswer gives Nginx no time to take the routes.
func TestNginxThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{Patience: time.Nanosecond})
	s.MustBuild(t, "hello_web", "v1")
	response, answer := s.Do(t, http.MethodPost, "/tasks",
		strings.NewReader(`{"task":"t","cluster":"hello_web","version":"v1","actor":"ann"}`))
	require.Equal(t, 504, response.StatusCode, "%s", answer)
	require.Contains(t, string(answer), "error log")
}
