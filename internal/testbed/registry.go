package testbed

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// RegistryServer is an OCI registry that speaks plain HTTP.
type RegistryServer struct {
	Addr    string // host:port
	Process *Process
}

// Registry runs Debian's docker-registry, the distribution project's, with its images on disk and deletion allowed, on a free
// port of an address of this machine; 127.0.0.1 without one. Pods reach it on Kubernetes.HostIP.
func Registry(t testing.TB, host ...string) *RegistryServer {
	t.Helper()
	dir, addr := server(t, "registry", host)
	path := program(t, "docker-registry", "docker-registry")
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
	return &RegistryServer{Addr: addr, Process: start(t, dir, command{
		name: "docker-registry", path: path, args: []string{"serve", file}, ready: answers("http://" + addr + "/v2/"),
	})}
}

// server is a folder, and a free port on the address of this machine that a test may give.
func server(t testing.TB, name string, host []string) (dir, addr string) {
	t.Helper()
	ip := "127.0.0.1"
	if len(host) > 0 {
		ip = host[0]
	}
	return own(t).folder(t, name), fmt.Sprintf("%s:%d", ip, Port(t))
}

// answers is nil once a URL answers with 200.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		return nil
	}
}
