//go:build linux

// Package buildkit runs BuildKit daemons for tests.
package buildkit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Daemon is a BuildKit daemon of the test's own, with a cache of its own. Its mounts are in a mount
// namespace of its own. Its methods are safe for concurrent use.
type Daemon struct {
	// Addr is for buildctl's --addr.
	Addr    string
	Process *testbed.Process
	client  string // path of buildctl
}

// Start starts a daemon that pulls from the given registries, and pushes to them, over plain HTTP;
// each is host:port. Its snapshots are overlayfs where the directory's file system carries it: as
// copies, each instruction costs the whole base. It stops the daemon when the test has ended. It
// needs root.
func Start(t testing.TB, registries ...string) *Daemon {
	t.Helper()
	testbed.NeedRoot(t, "a BuildKit daemon")
	testbed.NeedProgram(t, "runc", "runc")
	unshare := testbed.NeedProgram(t, "unshare", "util-linux")
	program := testbed.NeedTool(t, "buildkitd")
	d := &Daemon{client: testbed.NeedTool(t, "buildctl")}
	dir := testbed.Own(t).TestDir(t, "buildkitd")
	d.Addr = "unix://" + filepath.Join(dir, "s")
	var config bytes.Buffer
	for _, r := range registries {
		fmt.Fprintf(&config, "[registry.%q]\n  http = true\n", r)
	}
	file := filepath.Join(dir, "buildkitd.toml")
	if err := os.WriteFile(file, config.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	d.Process = testbed.Start(t, dir, testbed.Command{
		Name: "buildkitd", Path: unshare, Args: []string{
			"--mount", "--propagation", "private", "--", program,
			"--config", file, "--root", filepath.Join(dir, "root"), "--addr", d.Addr,
			"--oci-worker-snapshotter=auto", "--oci-worker-net=host",
			"--containerd-worker=false",
		},
		Ready: func(ctx context.Context) error {
			_, err := d.Buildctl(ctx, "debug", "workers")
			return err
		},
	})
	return d
}

// Buildctl runs buildctl with the arguments and returns its standard output, and an error with its
// standard error.
func (d *Daemon) Buildctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.client, append([]string{"--addr", d.Addr}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("buildctl %s: %w: %s", args[0], err, &stderr)
	}
	return string(out), nil
}

// Build is one build of a Dockerfile.
type Build struct {
	Dockerfile string // its text
	// Context is a directory with the files to COPY.
	Context string
	// Repository is where the image goes, by digest alone: registry included.
	Repository string
	// Options are for the frontend, name=value: "build-arg:A=b", "label:a=b", "attest:sbom=".
	Options []string
}

// Build builds with the Dockerfile frontend, all files dated 1970, pushes and returns the digest of
// the manifest, or that of an index if Options ask for attestations.
func (d *Daemon) Build(ctx context.Context, b Build) (string, error) {
	dir, err := os.MkdirTemp("", "buildctl-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	metadata := filepath.Join(dir, "metadata.json")
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(b.Dockerfile), 0o644); err != nil {
		return "", err
	}
	args := []string{"build", "--frontend", "dockerfile.v0", "--progress", "plain",
		"--local", "context=" + b.Context, "--local", "dockerfile=" + dir,
		"--metadata-file", metadata,
		"--output", "type=image,oci-mediatypes=true,push=true,push-by-digest=true," +
			"rewrite-timestamp=true,name=" + b.Repository}
	if !slices.ContainsFunc(b.Options, func(o string) bool {
		return len(o) > len(epoch) && o[:len(epoch)] == epoch
	}) {
		args = append(args, "--opt", epoch+"0")
	}
	for _, o := range b.Options {
		args = append(args, "--opt", o)
	}
	if _, err := d.Buildctl(ctx, args...); err != nil {
		return "", err
	}
	text, err := os.ReadFile(metadata)
	if err != nil {
		return "", err
	}
	var built struct {
		Digest string `json:"containerimage.digest"`
	}
	if err := json.Unmarshal(text, &built); err != nil {
		return "", fmt.Errorf("%s: %w", metadata, err)
	}
	return built.Digest, nil
}

const epoch = "build-arg:SOURCE_DATE_EPOCH="
