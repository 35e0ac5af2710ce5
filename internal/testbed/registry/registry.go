//go:build linux

// Package registry runs an OCI registry for tests.
package registry

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Server is an OCI registry that speaks plain HTTP.
type Server struct {
	Addr    string // host:port
	Process *testbed.Process
}

// Start runs Debian's docker-registry, the distribution project's, with its images on disk and
// deletion allowed, on a free port of an address of this machine; 127.0.0.1 without one. Pods reach
// it on Kubernetes.HostIP.
func Start(t testing.TB, host ...string) *Server {
	t.Helper()
	dir, addr := testbed.Endpoint(t, "registry", host)
	path := testbed.NeedProgram(t, "docker-registry", "docker-registry")
	config := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %[1]s/images}
  delete: {enabled: true}
http: {addr: "%[2]s"}
`, dir, addr)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return &Server{Addr: addr, Process: testbed.Start(t, dir, testbed.Command{
		Name: "docker-registry", Path: path, Args: []string{"serve", file},
		Ready: testbed.Answers("http://" + addr + "/v2/"),
	})}
}
