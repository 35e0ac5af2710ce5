//go:build linux

// Package engine runs containers of this machine's own programs under real runtimes, for tests of
// how they are stopped. The root of a container is a skeleton; /usr, /etc and
// /var/lib are this machine's, read-only, and there is no image to pull. The network is this
// machine's.
package engine

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Engine is a container runtime.
type Engine interface {
	// Run starts a container with a shell line as its process 1.
	Run(t testing.TB, s Spec) *Container
}

// Spec describes a container.
type Spec struct {
	// Line is run by /bin/sh, and usually ends in exec.
	Line string
	// Env are NAME=VALUE. PATH is set.
	Env []string
	// Dirs are directories of this machine that it may write.
	Dirs []string
	// Signal is the image's STOPSIGNAL. The default is TERM.
	Signal string
}

// Container is a container that runs.
type Container struct {
	// Output returns the output so far.
	Output func() string
	// Exec runs a command in the container and returns its output. Docker's has none.
	Exec func(args ...string) ([]byte, error)
	// Stop asks the container to end with its stop signal, kills it when it has not ended within
	// the grace time, and returns its exit code.
	Stop func(grace time.Duration) (code int, err error)
}

// shared are the directories of this machine that containers read.
var shared = []string{"/usr", "/etc", "/var/lib"}

// hidden are directories below them that would give a container this machine's work.
var hidden = []string{"/etc/cron.d", "/etc/cron.hourly"}

// links are those of the root to their targets.
var links = map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib",
	"lib64": "usr/lib64", "var/run": "../run"}

var dirs = []string{"usr", "etc", "var", "var/lib", "var/spool", "var/log", "run", "tmp", "root",
	"proc", "sys", "dev"}

// WriteSkeleton writes the root of an image as a tar archive: directories, and links to those of
// /usr. A container of it has the directories of Mounts.
func WriteSkeleton(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, name := range dirs {
		mode := int64(0o755)
		if name == "tmp" {
			mode = 0o1777
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/",
			Mode: mode}); err != nil {
			return err
		}
	}
	for name, to := range links {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name,
			Linkname: to, Mode: 0o777}); err != nil {
			return err
		}
	}
	return tw.Close()
}

// Mounts returns the directories of this machine that a container reads, and the ones that it has
// to find empty.
func Mounts() (read, empty []string) {
	for _, dir := range hidden {
		if _, err := os.Stat(dir); err == nil {
			empty = append(empty, dir)
		}
	}
	return shared, empty
}

// skeleton makes the root in a directory.
func skeleton(root string) error {
	for _, name := range dirs {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(root, "tmp"), 0o1777)
}

// output collects the output of a container.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// cgroup makes a cgroup that goes with its processes when the test binary has ended, or been
// killed.
func cgroup(t testing.TB, name string) string {
	t.Helper()
	o := testbed.Own(t)
	name = "/sluice-testbed-" + name + "-" + strings.ReplaceAll(filepath.Base(o.Dir), "/", "-")
	if err := o.Record("cgroup", name); err != nil {
		t.Fatal(err)
	}
	if err := testbed.MakeCgroup(name); err != nil {
		t.Fatal(err)
	}
	return name
}
