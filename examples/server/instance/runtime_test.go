package instance_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/instance"
)

func TestMain(m *testing.M) {
	instance.Init()
	os.Exit(m.Run())
}

// push makes an image of the sample service and returns its reference by digest.
func push(t *testing.T, change func(*v1.Config), more ...tar.Header) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	binary := filepath.Join(t.TempDir(), "hello")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=v9", "-o", binary,
		"../../hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	data, err := os.ReadFile(binary)
	require.NoError(t, err)

	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, f := range []struct{ name, content string }{
		{"app/hello", string(data)}, {"app/conf/app.properties", "greeting = from the image\n"},
		{"etc/passwd", "work:x:1234:1235::/:/bin/sh\n"},
	} {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755,
			Size: int64(len(f.content)), Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(f.content))
		require.NoError(t, err)
	}
	for _, header := range more {
		require.NoError(t, w.WriteHeader(&header))
	}
	require.NoError(t, w.Close())
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	})
	require.NoError(t, err)
	image, err := mutate.AppendLayers(empty.Image, l)
	require.NoError(t, err)
	config := v1.Config{Entrypoint: []string{"hello"}, Env: []string{"PATH=/app", "PORT=1",
		"DEPLOY_ENV=image"}, WorkingDir: "/app", User: "work"}
	if change != nil {
		change(&config)
	}
	image, err = mutate.Config(image, config)
	require.NoError(t, err)
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/hello_web:v9")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image))
	digest, err := image.Digest()
	require.NoError(t, err)
	return ref.Context().Digest(digest.String()).String()
}

func ask(t *testing.T, i instance.Instance) map[string]string {
	t.Helper()
	response, err := http.Get("http://" + i.Addr.String() + "/x")
	require.NoError(t, err)
	defer response.Body.Close()
	var answer map[string]string
	require.NoError(t, json.NewDecoder(response.Body).Decode(&answer))
	return answer
}

func open(t *testing.T, dir string) *instance.Runtime {
	t.Helper()
	r, err := instance.Open(t.Context(), instance.Config{Dir: dir})
	require.NoError(t, err)
	return r
}

func TestInstanceLivesInItsImageAndOutlivesTheRuntime(t *testing.T) {
	t.Parallel()
	dir, image := t.TempDir(), push(t, nil)
	r := open(t, dir)
	spec := instance.Spec{ID: "hello_web-1", Image: image, Env: []string{"DEPLOY_ENV=test"},
		Labels: map[string]string{"cluster": "hello_web"}}
	i, err := r.Start(t.Context(), spec)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Stop(context.Background(), spec.ID) })
	answer := ask(t, i)
	require.Equal(t, "v9", answer["version"])
	require.Equal(t, "test", answer["environment"])
	require.Equal(t, "from the image", answer["greeting"])

	status, err := os.ReadFile("/proc/" + strconv.Itoa(i.PID) + "/status")
	require.NoError(t, err)
	require.Contains(t, string(status), "NSpid:\t"+strconv.Itoa(i.PID)+"\t1\n",
		"the first process of its own namespace")
	root, err := os.Readlink("/proc/" + strconv.Itoa(i.PID) + "/root")
	require.NoError(t, err)
	require.Equal(t, "/", root, "pivot_root, not chroot")
	if os.Geteuid() == 0 {
		require.Contains(t, string(status), "Uid:\t1234\t1234\t1234\t1234")
	}

	again, err := r.Start(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, i, again, "a second start of the same changes nothing")

	r = open(t, dir)
	require.Equal(t, []instance.Instance{i}, r.List())
	require.NoError(t, r.Stop(t.Context(), spec.ID))
	require.False(t, i.Alive())
	require.Empty(t, r.List())
	require.NoDirExists(t, filepath.Join(dir, spec.ID))
	require.ErrorIs(t, r.Stop(t.Context(), spec.ID), instance.ErrNotFound)
}

func TestRunStartsAgainWhatHasEnded(t *testing.T) {
	t.Parallel()
	dir, image := t.TempDir(), push(t, nil)
	r := open(t, dir)
	i, err := r.Start(t.Context(), instance.Spec{ID: "one", Image: image})
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Stop(context.Background(), "one") })
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1) // one result
	go func() { ran <- r.Run(ctx) }()

	require.NoError(t, syscall.Kill(i.PID, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		now := r.List()[0]
		return now.PID != i.PID && now.Restarts == 1
	}, 2*time.Minute, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		response, err := http.Get("http://" + r.List()[0].Addr.String())
		return err == nil && response.Body.Close() == nil
	}, 2*time.Minute, 20*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ran, context.Canceled)
	require.Equal(t, "v9", ask(t, r.List()[0])["version"], "it goes on after Run has returned")
}

// TestRestartsAreThoseOfTheInstance ends the runtime with its instance: the next one starts the
// instance again, and does not count that start, but the later ones.
func TestRestartsAreThoseOfTheInstance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := open(t, dir)
	i, err := r.Start(t.Context(), instance.Spec{ID: "one", Image: push(t, nil)})
	require.NoError(t, err)
	require.NoError(t, r.End(t.Context(), "one"))

	r = open(t, dir)
	t.Cleanup(func() { _ = r.Stop(context.Background(), "one") })
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1) // one result
	go func() { ran <- r.Run(ctx) }()
	defer func() {
		cancel()
		require.ErrorIs(t, <-ran, context.Canceled)
	}()
	answers := func() bool {
		response, err := http.Get("http://" + r.List()[0].Addr.String())
		return err == nil && response.Body.Close() == nil
	}
	require.Eventually(t, func() bool {
		return r.List()[0].PID != i.PID && answers()
	}, 2*time.Minute, 20*time.Millisecond)
	i = r.List()[0]
	require.Zero(t, i.Restarts)
	require.NoError(t, syscall.Kill(i.PID, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		return r.List()[0].Restarts == 1 && answers()
	}, 2*time.Minute, 20*time.Millisecond)
}

func TestStartLeavesNothingWhenItDoesNotSucceed(t *testing.T) {
	t.Parallel()
	good := push(t, nil)
	for name, tc := range map[string]struct{ id, image, want string }{
		"id":  {"No/Good", good, "want 1 to 128 letters, digits"},
		"tag": {"a", strings.Split(good, "@")[0] + ":v9", "by digest"},
		"unknown": {"a", strings.Split(good, "@")[0] + "@sha256:" + strings.Repeat("0", 64),
			"pull"},
		"no entry": {"a", push(t, func(c *v1.Config) {
			c.Entrypoint = nil
		}), "neither ENTRYPOINT nor CMD"},
		"no user": {"a", push(t, func(c *v1.Config) {
			c.User = "nobody"
		}), `"nobody" is not in the image's /etc/passwd`},
		"no binary": {"a", push(t, func(c *v1.Config) {
			c.Entrypoint = []string{"none"}
		}), "not in PATH"},
		"links out": {"a", push(t, nil, tar.Header{Name: "dev", Linkname: "/tmp",
			Typeflag: tar.TypeSymlink}), "/dev/null"},
		"ends": {"a", push(t, func(c *v1.Config) {
			c.Env = append(c.Env, "HELLO_CONFIG=/none")
		}), "was it activated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "no user" && os.Geteuid() != 0 {
				tc.want = "" // the namespace's one user runs it
			}
			dir := t.TempDir()
			r := open(t, dir)
			i, err := r.Start(t.Context(), instance.Spec{ID: tc.id, Image: tc.image})
			if tc.want == "" {
				require.NoError(t, err)
				require.NoError(t, r.Stop(t.Context(), i.ID))
				return
			}
			require.ErrorContains(t, err, tc.want)
			require.Empty(t, r.List())
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
}

func TestStartIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := open(t, t.TempDir())
	_, err := r.Start(ctx, instance.Spec{ID: "one", Image: push(t, nil)})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, r.List())
}

func TestBadConfigIsNamed(t *testing.T) {
	t.Parallel()
	_, err := instance.Open(t.Context(), instance.Config{Ready: -1, Grace: -1})
	require.ErrorIs(t, err, instance.ErrInvalid)
	for _, field := range []string{"Dir", "Ready", "Grace"} {
		require.ErrorContains(t, err, "instance: Config."+field+": ")
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = instance.Open(t.Context(), instance.Config{Dir: file})
	require.ErrorContains(t, err, file)
}
