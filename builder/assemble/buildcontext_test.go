//go:build unix

package assemble_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

const copyAll = "FROM scratch\nCOPY . /c/\n"

// contextDir writes files into a new directory and opens it as a build context.
func contextDir(t testing.TB, files map[string]string, mode fs.FileMode) (string, fs.FS) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(at, mode); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root.FS()
}

func TestDigestIgnoresTimesAndUmask(t *testing.T) {
	t.Parallel()
	host := serve(t)
	files := map[string]string{"a": "A", "d/b": "B"}
	digests := map[string]bool{}
	for _, mode := range []fs.FileMode{0o644, 0o600, 0o664, 0o400} {
		dir, fsys := contextDir(t, files, mode)
		at := time.Unix(rand.Int64N(1<<31), 0)
		if err := os.Chtimes(filepath.Join(dir, "a"), at, at); err != nil {
			t.Fatal(err)
		}
		// An engine of its own each time, so that nothing remembered makes them equal.
		res, err := newEngine(t, assemble.Config{}).Build(t.Context(), builder.Request{
			Dockerfile: []byte(copyAll), Context: fsys, Repository: host + "/app"})
		if err != nil {
			t.Fatal(err)
		}
		digests[res.Digest] = true
	}
	if len(digests) != 1 {
		t.Errorf("modes and times gave %d digests", len(digests))
	}
}

func TestContextOnDisk(t *testing.T) {
	t.Parallel()
	host := serve(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("S"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, instruction string
		prepare           func(dir string) error
		says              string // "" is a build that succeeds
	}{
		{"link out, relative", "COPY l /l", func(dir string) error {
			return os.Symlink("../../secret", filepath.Join(dir, "l"))
		}, "leaves the build context"},
		{"link out, absolute", "COPY l /l", func(dir string) error {
			return os.Symlink(outside, filepath.Join(dir, "l"))
		}, "leaves the build context"},
		{"directory link out", "COPY l/secret /l", func(dir string) error {
			return os.Symlink(filepath.Dir(outside), filepath.Join(dir, "l"))
		}, "leaves the build context"},
		{"link kept inside a directory", "COPY d /d", func(dir string) error {
			return os.Symlink(outside, filepath.Join(dir, "d/l"))
		}, ""},
		{"named pipe", "COPY d /d", func(dir string) error {
			return unix.Mkfifo(filepath.Join(dir, "d/p"), 0o600)
		}, "d/p is a named pipe"},
		{"archive in name alone", "ADD a.tar.gz /", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "a.tar.gz"), []byte{0x1f, 0x8b, 8}, 0o600)
		}, ""},
		{"archive copied", "COPY a.tar.gz /", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "a.tar.gz"), []byte{0x1f, 0x8b, 8}, 0o600)
		}, ""},
		{"ignore file is no pattern", "COPY d /d", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("[a\n"), 0o600)
		}, ".dockerignore"},
		{"owner by name", "COPY --chown=work d /d", nil, "uid:gid"},
		{"mode in letters", "COPY --chmod=u+q d /d", nil, "in octal"},
		{"from its own stage", "COPY --from=0 d /d", nil, "no stage before this one"},
		{"with parents", "FROM scratch\nCOPY --parents d /d", nil, "COPY --parents"},
		{"nothing matches", "COPY *.none /d/", nil, "no file of the build context matches"},
		{"workdir of a named user", "USER work\nWORKDIR /w", nil, "make /w for user work"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, fsys := contextDir(t, map[string]string{"d/f": "F"}, 0o644)
			if c.prepare != nil {
				if err := c.prepare(dir); err != nil {
					t.Fatal(err)
				}
			}
			_, err := newEngine(t, assemble.Config{}).Build(t.Context(), builder.Request{
				Dockerfile: []byte("FROM scratch\n" + c.instruction + "\n"), Context: fsys,
				Repository: host + "/app"})
			if c.says == "" && err != nil {
				t.Errorf("build: %v", err)
			}
			if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error is %v, want %q in it", err, c.says)
			}
		})
	}
}

// growing claims a size of its file that is smaller or larger than the content that it then reads.
type growing struct {
	fstest.MapFS
	claim int64
}

func (g growing) Lstat(name string) (fs.FileInfo, error) {
	info, err := g.MapFS.Lstat(name)
	if err == nil && !info.IsDir() {
		info = claimed{info, g.claim}
	}
	return info, err
}

type claimed struct {
	fs.FileInfo
	size int64
}

func (c claimed) Size() int64 { return c.size }

func TestFileChangesDuringBuild(t *testing.T) {
	t.Parallel()
	host := serve(t)
	for claim, says := range map[int64]string{2: "has grown over the 2 bytes",
		9: "has 5 bytes, had 9"} {
		temp := t.TempDir()
		_, err := newEngine(t, assemble.Config{TempDir: temp}).Build(t.Context(), builder.Request{
			Dockerfile: []byte("FROM scratch\nCOPY f /f\n"), Repository: host + "/app",
			Context: growing{fstest.MapFS{"f": {Data: []byte("12345")}}, claim}})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("file that claims %d bytes: %v", claim, err)
		}
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("the build left %v", left)
		}
	}
}

func TestTemplateWithoutRun(t *testing.T) {
	t.Parallel()
	host := serve(t)
	tmpl, err := builder.Default().Template("go-static")
	if err != nil {
		t.Fatal(err)
	}
	dockerfile, err := tmpl.Render(map[string]string{"CLUSTER_NAME": "hello_web"})
	if err != nil {
		t.Fatal(err)
	}
	_, fsys := contextDir(t, map[string]string{
		"envconfig": "elf", "app": "elf", "manifest.json": "{}", "envs/_base/app/conf/a": "1",
		"envs/production/app/conf/b": "2",
	}, 0o600)
	res, err := newEngine(t, assemble.Config{}).Build(t.Context(), builder.Request{
		Dockerfile: dockerfile, Context: fsys, Repository: host + "/hello_web", Tag: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	img := fetch(t, res.Reference)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config; strings.Join(got.Entrypoint, " ") != "/sbin/envconfig -- /app/app" ||
		got.User != "65532:65532" ||
		got.Labels["org.opencontainers.image.title"] != "hello_web" {
		t.Errorf("configuration is %+v", got)
	}
	if len(res.Layers) != 6 || res.Layers[1].CreatedBy != "WORKDIR /app" {
		t.Errorf("layers are %+v", res.Layers)
	}
}

func TestTemplateWithRun(t *testing.T) {
	t.Parallel()
	tmpl, err := builder.Default().Template("node")
	if err != nil {
		t.Fatal(err)
	}
	dockerfile, err := tmpl.Render(tmpl.Examples())
	if err != nil {
		t.Fatal(err)
	}
	_, err = newEngine(t, assemble.Config{}).Build(t.Context(),
		builder.Request{Dockerfile: dockerfile, Repository: serve(t) + "/app"})
	var unsupported *builder.UnsupportedError
	if !errors.As(err, &unsupported) || unsupported.Line != 11 || !strings.Contains(err.Error(),
		"BuildKit, kaniko or buildah") {
		t.Errorf("error is %v", err)
	}
}
