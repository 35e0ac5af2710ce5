package web_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/docker"
)

// blocks are the code blocks of a section of the README, by its heading.
func blocks(t *testing.T, heading string) (found []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(servertest.Examples(), "..", "README.md"))
	require.NoError(t, err)
	_, text, ok := strings.Cut(string(data), "\n"+heading+"\n")
	require.True(t, ok, heading)
	text, _, _ = strings.Cut(text, "\n## ")
	for n, part := range strings.Split(text, "\n```\n") {
		if n%2 == 1 {
			found = append(found, part+"\n")
		}
	}
	return found
}

// TestReadmeOwnImage runs the README's lines for an image that Sluice has not built, as they are
// but for the addresses. The program java of its base image is the sample service.
func TestReadmeOwnImage(t *testing.T) {
	t.Parallel()
	daemon := docker.Start(t)
	testbed.NeedProgram(t, "skopeo", "skopeo")
	s := servertest.Start(t, servertest.Config{})
	found := blocks(t, "### An image of your own")
	require.Len(t, found, 2)
	dir, home := t.TempDir(), t.TempDir()
	s.Programs(t, "1.4.2", filepath.Join(dir, "java"))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "envs"), os.DirFS(filepath.Join(
		servertest.Examples(), "hello", "web", "envs"))))
	write := func(path, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	write(filepath.Join(dir, "Dockerfile"), "FROM scratch\nCOPY java /usr/bin/java\n"+found[0])
	write(filepath.Join(home, ".config/containers/policy.json"),
		`{"default": [{"type": "insecureAcceptAnything"}]}`)
	script := strings.NewReplacer("127.0.0.1:5800", s.Registry, "http://127.0.0.1:8800",
		s.URL).Replace(found[1])
	// the archive that the second line copies
	before, after, ok := strings.Cut(script, "\nskopeo ")
	require.True(t, ok)
	script = fmt.Sprintf("%s\ndocker save -o docker.tar %s/hello_web:1.4.2\nskopeo copy "+
		"docker-archive:docker.tar oci-archive:app.tar\nskopeo %s", before, s.Registry, after)
	cmd := exec.CommandContext(t.Context(), "sh", "-euxc", strings.ReplaceAll(script, "curl ",
		"curl -sS --fail-with-body "))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+home, "DOCKER_HOST="+daemon.Host,
		"PATH=/usr/bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))

	s.MustPromote(t, "hello_web", "1.4.2", "test", "sandbox")
	var task platform.Task
	s.Call(t, http.MethodPost, "/tasks", map[string]string{"task": "jvm", "cluster": "hello_web",
		"version": "1.4.2", "actor": "ann"}, &task)
	require.Equal(t, "jvm", task.Task)
	require.Len(t, task.Instances, 1)
}
