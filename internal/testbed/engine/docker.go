//go:build linux

package engine

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// docker is a Docker daemon.
type docker struct {
	client, socket, cgroup string
	count                  atomic.Int64
}

// Docker returns the engine of a Docker daemon of the test's own, which changes neither the
// machine's network nor another daemon.
func Docker(t testing.TB) Engine {
	t.Helper()
	testbed.NeedRoot(t, "a Docker daemon")
	daemon := testbed.NeedProgram(t, "dockerd", "docker.io")
	o := testbed.Own(t)
	dir := o.TestDir(t, "docker")
	d := &docker{client: testbed.NeedProgram(t, "/usr/bin/docker", "docker.io"),
		socket: "unix://" + filepath.Join(dir, "s"), cgroup: cgroup(t, "docker")}
	if err := o.Record("shims", filepath.Join(dir, "exec", "containerd", "daemon")); err != nil {
		t.Fatal(err)
	}
	testbed.Start(t, dir, testbed.Command{
		Name: "dockerd", Path: daemon, Args: []string{
			"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
			"--pidfile", filepath.Join(dir, "pid"), "-H", d.socket, "--iptables=false",
			"--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--cgroup-parent",
			d.cgroup,
		},
		Ready: func(ctx context.Context) error { return d.call(ctx, "version").Run() },
	})
	load := d.call(t.Context(), "import", "-", "skeleton:1")
	var image bytes.Buffer
	if err := WriteSkeleton(&image); err != nil {
		t.Fatal(err)
	}
	load.Stdin = &image
	if said, err := load.CombinedOutput(); err != nil {
		t.Fatalf("docker import: %v: %s", err, said)
	}
	return d
}

func (d *docker) call(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, d.client, append([]string{"-H", d.socket}, args...)...)
}

func (d *docker) Run(t testing.TB, s Spec) *Container {
	t.Helper()
	name := fmt.Sprintf("c%d", d.count.Add(1))
	args := []string{"run", "--name", name, "--network", "host", "--tmpfs", "/run"}
	read, empty := Mounts()
	for _, dir := range read {
		args = append(args, "-v", dir+":"+dir+":ro")
	}
	for _, dir := range empty {
		args = append(args, "--tmpfs", dir)
	}
	for _, dir := range s.Dirs {
		args = append(args, "-v", dir+":"+dir)
	}
	for _, kv := range append([]string{searchPath}, s.Env...) {
		args = append(args, "-e", kv)
	}
	if s.Signal != "" {
		args = append(args, "--stop-signal", s.Signal)
	}
	var out output
	run := d.call(context.Background(), append(args, "skeleton:1", "/bin/sh", "-c", s.Line)...)
	run.Stdout, run.Stderr, run.WaitDelay = &out, &out, time.Minute
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = run.Wait()
	}()
	t.Cleanup(func() {
		_ = d.call(context.Background(), "rm", "-f", name).Run()
		<-ended
	})
	return &Container{Output: out.String, Stop: func(grace time.Duration) (int, error) {
		said, err := d.call(context.Background(), "stop", "-t",
			strconv.Itoa(int(grace.Seconds())), name).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("docker stop: %w: %s", err, said)
		}
		<-ended
		said, err = d.call(context.Background(), "inspect", "-f", "{{.State.ExitCode}}",
			name).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("docker inspect: %w: %s", err, said)
		}
		return strconv.Atoi(strings.TrimSpace(string(said)))
	}}
}
