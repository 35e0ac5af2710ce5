//go:build linux

// Package image makes container images for tests out of programs of this machine, so that no test
// pulls one from elsewhere.
package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	emptyimage "github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/engine"
)

// Pause holds the namespaces of a pod.
const Pause = "docker.io/sluice/pause:1"

// Base pushes a small image to a registry, given as host:port, and returns its name with the
// digest: busybox with all its commands, and rsync.
func Base(t testing.TB, registry string) string {
	t.Helper()
	return push(t, registry+"/testbed/base:1", testbed.NeedProgram(t, "busybox", "busybox-static"),
		testbed.NeedProgram(t, "rsync", "rsync"))
}

// Builder pushes an image with BuildKit to a registry, given as host:port, and returns its name
// with the digest: buildkitd, buildctl and runc besides the programs of Base. It needs a privileged
// container.
func Builder(t testing.TB, registry string) string {
	t.Helper()
	return push(t, registry+"/testbed/builder:1", testbed.NeedProgram(t, "busybox",
		"busybox-static"),
		testbed.NeedProgram(t, "rsync", "rsync"), testbed.NeedProgram(t, "runc", "runc"),
		testbed.NeedTool(t, "buildkitd"), testbed.NeedTool(t, "buildctl"))
}

// Programs pushes an image with busybox and the given programs in PATH to a registry, given as
// host:port, under a name, and returns its name with the digest.
func Programs(t testing.TB, registry, name string, programs ...string) string {
	t.Helper()
	return push(t, registry+"/testbed/"+name+":1", testbed.NeedProgram(t, "busybox",
		"busybox-static"), programs...)
}

func push(t testing.TB, to, busybox string, programs ...string) string {
	t.Helper()
	img, err := images.get(busybox, programs...)
	if err != nil {
		t.Fatal(err)
	}
	return pushImage(t, to, img)
}

func pushImage(t testing.TB, to string, img v1.Image) string {
	t.Helper()
	ref, err := name.NewTag(to, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return ref.Context().Digest(digest.String()).String()
}

// images are the images that this test binary has made, by their programs.
var images imageCache

type imageCache struct {
	mu  sync.Mutex
	all map[string]v1.Image
}

func (c *imageCache) get(busybox string, programs ...string) (v1.Image, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := busybox + " " + strings.Join(programs, " ")
	if img, ok := c.all[key]; ok {
		return img, nil
	}
	img, err := systemImage(busybox, programs...)
	if err == nil {
		if c.all == nil {
			c.all = map[string]v1.Image{}
		}
		c.all[key] = img
	}
	return img, err
}

func WritePause(file, busybox string) error {
	img, err := systemImage(busybox)
	if err != nil {
		return err
	}
	img, err = configured(img, func(c *v1.Config) {
		c.Entrypoint = []string{"/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 " +
			"& wait $!; done"}
	})
	if err != nil {
		return err
	}
	tag, err := name.NewTag(Pause)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, tag, img)
}

// systemImage is an image of busybox and programs of this machine with the libraries that they
// load.
func systemImage(busybox string, programs ...string) (v1.Image, error) {
	files := map[string]string{"bin/busybox": busybox} // what is where from
	links := map[string]string{}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", busybox, err)
	}
	for _, applet := range strings.Fields(string(applets)) {
		links["bin/"+applet] = "busybox"
	}
	delete(links, "bin/busybox")
	for _, p := range programs {
		at := "bin/" + filepath.Base(p)
		delete(links, at)
		files[at] = p
		libraries, err := libraries(p)
		if err != nil {
			return nil, err
		}
		for _, l := range libraries {
			files[strings.TrimPrefix(l, "/")] = l
		}
	}
	// The programs are larger than the memory of all else in a test binary: they stay on disk, in a
	// file without a name, which goes with the process.
	spool, err := os.CreateTemp("", "sluice-layer-*")
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriter(spool)
	if err := errors.Join(os.Remove(spool.Name()), writeLayer(out, files, links),
		out.Flush()); err != nil {
		return nil, errors.Join(err, spool.Close())
	}
	// It goes to a registry on this machine: to compress it takes longer than to send it.
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(spool, 0, math.MaxInt64)), nil
	}, tarball.WithCompressionLevel(gzip.NoCompression))
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(emptyimage.Image, layer)
	if err != nil {
		return nil, err
	}
	return configured(img, func(c *v1.Config) {
		c.Env, c.Cmd = []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin"}, []string{"/bin/sh"}
	})
}

func configured(img v1.Image, change func(*v1.Config)) (v1.Image, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	change(&file.Config)
	return mutate.ConfigFile(img, file)
}

// libraries are the paths at which a program loads its libraries; a static one has none.
func libraries(program string) ([]string, error) {
	var out, problem bytes.Buffer
	cmd := exec.Command("ldd", program)
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		if said := problem.String() + out.String(); strings.Contains(said,
			"not a dynamic executable") || strings.Contains(said, "statically linked") {
			return nil, nil
		}
		return nil, fmt.Errorf("ldd %s: %w: %s", program, err, problem.Bytes())
	}
	var found []string
	for line := range strings.Lines(out.String()) {
		for _, f := range strings.Fields(line) {
			if strings.HasPrefix(f, "/") {
				found = append(found, f)
			}
		}
	}
	return found, nil
}

func writeLayer(w io.Writer, files, links map[string]string) error {
	tw := tar.NewWriter(w)
	dirs := map[string]int64{"tmp": 0o1777, "etc": 0o755, "root": 0o700, "proc": 0o555,
		"sys": 0o555, "dev": 0o755, "run": 0o755, "var": 0o755}
	for _, name := range slices.Concat(sorted(files), sorted(links)) {
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			dirs[dir] = 0o755
		}
	}
	for _, dir := range sorted(dirs) {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/",
			Mode: dirs[dir]}); err != nil {
			return err
		}
	}
	for _, name := range sorted(files) {
		if err := writeProgram(tw, name, files[name]); err != nil {
			return err
		}
	}
	for _, name := range sorted(links) {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name,
			Linkname: links[name]}); err != nil {
			return err
		}
	}
	return tw.Close()
}

func writeProgram(tw *tar.Writer, name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755,
		Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Skeleton pushes an image without programs, of package engine, to a registry, given as host:port,
// and returns its name with the digest.
func Skeleton(t testing.TB, registry string) string {
	t.Helper()
	var b bytes.Buffer
	if err := engine.WriteSkeleton(&b); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(emptyimage.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	if img, err = configured(img, func(*v1.Config) {}); err != nil {
		t.Fatal(err)
	}
	return pushImage(t, registry+"/testbed/skeleton:1", img)
}
