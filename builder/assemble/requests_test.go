//go:build linux

package assemble_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

// TestRequestsOfABuild counts the requests of a build, with a thousand repositories that may
// have its layers, beside crane's push of the same image.
func TestRequestsOfABuild(t *testing.T) {
	t.Parallel()
	crane := testbed.NeedTool(t, "crane")
	oci := registry.Start(t)
	var requests atomic.Int64
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: oci.Addr})
	counted := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(counted.Close)
	host := strings.TrimPrefix(counted.URL, "http://")

	known := make([]string, 1000)
	for i := range known {
		known[i] = fmt.Sprintf("%s/cluster%d", host, i)
	}
	engine := newEngine(t, assemble.Config{Repositories: func() []string { return known }})
	build := func(content string) (builder.Result, int64) {
		before := requests.Load()
		res, err := engine.Build(t.Context(), builder.Request{Tag: content,
			Dockerfile: []byte("FROM scratch\nCOPY a /a\nCOPY b /b\nCOPY c /c\n"),
			Context: fstest.MapFS{
				"a": text("A"),
				"b": text("B" + content),
				"c": text(noise(content)),
			},
			Repository: host + "/app",
		})
		require.NoError(t, err)
		return res, requests.Load() - before
	}
	res, first := build("v1")
	_, second := build("v2")

	file := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag(host + "/pushed:v1")
	require.NoError(t, err)
	require.NoError(t, tarball.WriteToFile(file, tag, fetch(t, res.Reference)))
	before := requests.Load()
	out, err := exec.Command(crane, "push", "--insecure", file, tag.String()).CombinedOutput()
	require.NoError(t, err, string(out))
	pushed := requests.Load() - before
	t.Logf(
		"requests: %d for a build, %d for one with a layer that is there, %d for crane push",
		first,
		second,
		pushed,
	)
	require.LessOrEqual(t, first, pushed+10)
	require.LessOrEqual(t, second, pushed+10)
}

// noise is a megabyte that does not compress, the same for the same seed.
func noise(seed string) string {
	b := make([]byte, 1<<20)
	rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(b)
	return string(b)
}
