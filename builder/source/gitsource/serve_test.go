//go:build linux

package gitsource_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder/source/sourcetest"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// run runs git without the machine's configuration and returns its output.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testbed.NeedProgram(t, "git", "git"), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=ann", "GIT_AUTHOR_EMAIL=ann@example.com", "GIT_COMMITTER_NAME=ann",
		"GIT_COMMITTER_EMAIL=ann@example.com", "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z",
		"GIT_COMMITTER_DATE=2026-01-02T03:04:05Z")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "git %q: %s", args, out)
	return strings.TrimSpace(string(out))
}

// commit makes the files the content of the branch main, and returns the commit.
func commit(t *testing.T, repo string, files []sourcetest.File) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(repo, ".git")); err != nil {
		run(t, repo, "init", "--quiet", "--initial-branch=main")
	} else {
		run(t, repo, "rm", "-r", "--quiet", ".")
	}
	sourcetest.Write(t, repo, files)
	// the bytes as they are, against .gitattributes
	require.NoError(t, os.MkdirAll(filepath.Join(repo, ".git", "info"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(repo, ".git", "info", "attributes"),
		[]byte("* -text -export-subst -export-ignore\n"), 0o644))
	run(t, repo, "add", "--all", "--force")
	run(t, repo, "commit", "--quiet", "--message", "files")
	return run(t, repo, "rev-parse", "HEAD")
}

// repositories serves the repositories below a directory.
type repositories struct {
	dir, url string
	ca       string // a file with its certificate

	mu    sync.Mutex
	count int
	users map[string][2]string // user and password of a repository
}

// fresh makes a repository and returns its name.
func (r *repositories) fresh(t *testing.T, files []sourcetest.File) string {
	t.Helper()
	r.mu.Lock()
	r.count++
	name := fmt.Sprint("r", r.count)
	r.mu.Unlock()
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, name), 0o755))
	commit(t, filepath.Join(r.dir, name), files)
	return name
}

// overDaemon serves with git's own daemon.
func overDaemon(t *testing.T) *repositories {
	t.Helper()
	dir, addr := testbed.Endpoint(t, "gitdaemon", nil)
	host, port, _ := strings.Cut(addr, ":")
	r := &repositories{dir: filepath.Join(dir, "repos"), url: "git://" + addr}
	require.NoError(t, os.Mkdir(r.dir, 0o755))
	testbed.Start(t, dir, testbed.Command{Name: "git daemon",
		Path: testbed.NeedProgram(t, "git", "git"), Args: []string{"daemon", "--reuseaddr",
			"--listen=" + host, "--port=" + port, "--export-all", "--base-path=" + r.dir, r.dir},
		Ready: testbed.Listens(addr)})
	return r
}

// overHTTPS serves with git's program for web servers.
func overHTTPS(t *testing.T) *repositories {
	t.Helper()
	r := &repositories{dir: t.TempDir(), users: map[string][2]string{}}
	backend := &cgi.Handler{Path: filepath.Join(run(t, r.dir, "--exec-path"), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + r.dir, "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter,
		q *http.Request) {
		name, _, _ := strings.Cut(strings.TrimPrefix(q.URL.Path, "/"), "/")
		r.mu.Lock()
		want, closed := r.users[name]
		r.mu.Unlock()
		user, password, _ := q.BasicAuth()
		if closed && (user != want[0] || password != want[1]) {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, q)
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	r.ca = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
		Bytes: server.Certificate().Raw}), 0o644))
	return r
}
