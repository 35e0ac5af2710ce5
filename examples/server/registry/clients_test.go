//go:build linux

package registry_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/registry"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/docker"
)

// client is a program and the arguments before those of a call.
type client struct {
	t    *testing.T
	path string
	args []string
}

func (c client) run(args ...string) (string, error) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), c.path, append(c.args, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(c.path), strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (c client) must(args ...string) string {
	c.t.Helper()
	out, err := c.run(args...)
	require.NoError(c.t, err)
	return out
}

// Not parallel: the registry's logger is process-wide.
func TestRealClients(t *testing.T) {
	r := start(t, registry.Config{Dir: t.TempDir()})
	defer r.close()
	crane := client{t, testbed.NeedTool(t, "crane"), nil}
	skopeo := client{t, testbed.NeedProgram(t, "skopeo", "skopeo"), []string{"--insecure-policy"}}
	docker := client{t, docker.Program, []string{"-H", docker.Start(t).Host}}

	image, err := random.Image(50_000, 2)
	require.NoError(t, err)
	archive := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag("example.test/app:v1")
	require.NoError(t, err)
	require.NoError(t, tarball.WriteToFile(archive, tag, image))

	skopeo.must("copy", "--dest-tls-verify=false", "docker-archive:"+archive, "docker://"+
		r.host+"/skopeo/app:v1")
	pulled := r.host + "/skopeo/app:v1"
	docker.must("pull", pulled)
	docker.must("tag", pulled, r.host+"/docker/app:v1")
	docker.must("push", r.host+"/docker/app:v1")
	skopeo.must("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+
		r.host+"/docker/app:v1", "docker://"+r.host+"/copied:v1")
	require.Equal(t, []string{"copied", "docker/app", "skopeo/app"},
		strings.Fields(crane.must("catalog", r.host)))
	require.Equal(t, "v1", crane.must("ls", r.host+"/docker/app"))
	crane.must("validate", "--remote", r.host+"/docker/app:v1")

	digest := crane.must("digest", r.host+"/docker/app:v1")
	crane.must("delete", r.host+"/docker/app@"+digest)
	for _, gone := range []string{"docker/app:v1", "docker/app@" + digest} {
		_, err := crane.run("manifest", r.host+"/"+gone)
		require.ErrorContains(t, err, "MANIFEST_UNKNOWN", gone)
	}
	skopeo.must("delete", "--tls-verify=false", "docker://"+r.host+"/copied:v1")
	_, err = skopeo.run("inspect", "--tls-verify=false", "docker://"+r.host+"/copied:v1")
	require.ErrorContains(t, err, "manifest unknown")
	docker.must("rmi", pulled, r.host+"/docker/app:v1")
	docker.must("pull", pulled) // whole, although the others that had its layers are gone
}
