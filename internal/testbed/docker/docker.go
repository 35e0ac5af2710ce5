//go:build linux

// Package docker starts Docker daemons for tests.
package docker

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Program is the command-line client of the package docker.io.
const Program = "/usr/bin/docker"

// Daemon is a Docker daemon of the test's own, which touches neither the machine's network nor
// another daemon. Its containers have no network.
type Daemon struct {
	Host string // for DOCKER_HOST or -H
}

// Start starts a daemon, and stops it when the test has ended. It needs root.
func Start(t testing.TB) *Daemon {
	t.Helper()
	testbed.NeedRoot(t, "a Docker daemon")
	program := testbed.NeedProgram(t, "dockerd", "docker.io")
	client := testbed.NeedProgram(t, Program, "docker.io")
	dir := testbed.Own(t).TestDir(t, "dockerd")
	d := &Daemon{Host: "unix://" + filepath.Join(dir, "s")}
	testbed.Start(t, dir, testbed.Command{
		Name: "dockerd", Path: program, Args: []string{
			"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
			"--pidfile", filepath.Join(dir, "pid"),
			"-H", d.Host, "--iptables=false", "--ip6tables=false", "--bridge=none",
			"--storage-driver=vfs",
		},
		Ready: func(ctx context.Context) error {
			out, err := exec.CommandContext(ctx, client, "-H", d.Host, "version").CombinedOutput()
			if err != nil {
				return fmt.Errorf("docker version: %w: %s", err, out)
			}
			return nil
		},
	})
	return d
}
