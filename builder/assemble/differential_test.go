//go:build linux

package assemble_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/internal/testbed/buildkit"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

// peer builds the same request with this package and with BuildKit.
type peer struct {
	daemon   *buildkit.Daemon
	engine   *assemble.Engine
	registry string
	base     string // reference by digest; "BASE" in a Dockerfile stands for it
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	oci := registry.Start(t)
	return &peer{daemon: buildkit.Start(t, oci.Addr), registry: oci.Addr,
		engine: newEngine(t, assemble.Config{}), base: differentialBase(t, oci.Addr)}
}

// differentialBase is a base image with the links, users and settings that builds trip over.
func differentialBase(t *testing.T, registry string) string {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range []struct {
		tar.Header
		content string
	}{
		{Header: tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "etc/passwd", Mode: 0o644}, content: "root:x:0:0::/root:/bin/sh\n" +
			"work:x:1000:1001::/home/work:/bin/sh\nbroken\nwww:x:33:33::/:/bin/false\n"},
		{Header: tar.Header{Name: "etc/group", Mode: 0o644}, content: "root:x:0:\nwork:x:1001:\n" +
			"staff:x:50:work\n"},
		{Header: tar.Header{Name: "etc/target", Mode: 0o640, Uid: 7, Gid: 8}, content: "target\n"},
		{Header: tar.Header{Name: "etc/hard", Typeflag: tar.TypeLink, Linkname: "etc/target",
			Mode: 0o640, Uid: 7, Gid: 8}},
		{Header: tar.Header{Name: "etc/link", Typeflag: tar.TypeSymlink, Linkname: "target"}},
		{Header: tar.Header{Name: "etc/absolute", Typeflag: tar.TypeSymlink, Linkname: "/etc/target"}},
		{Header: tar.Header{Name: "etc/chain", Typeflag: tar.TypeSymlink, Linkname: "link"}},
		{Header: tar.Header{Name: "etc/dangling", Typeflag: tar.TypeSymlink,
			Linkname: "../usr/share/zone"}},
		{Header: tar.Header{Name: "etc/lost", Typeflag: tar.TypeSymlink,
			Linkname: "/no/such/directory/file"}},
		{Header: tar.Header{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "usr/bin/tool", Mode: 0o4755}, content: "tool\n"},
		{Header: tar.Header{Name: "usr/share/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"}},
		{Header: tar.Header{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 5, Gid: 6}},
		{Header: tar.Header{Name: "data/old", Mode: 0o600, Uid: 5}, content: "old\n"},
		{Header: tar.Header{Name: "var/data", Typeflag: tar.TypeSymlink, Linkname: "../data"}},
	} {
		h.Size = int64(len(h.content))
		require.NoError(t, tw.WriteHeader(&h.Header))
		_, err := tw.Write([]byte(h.content))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
	require.NoError(t, err)
	img, err := mutate.AppendLayers(empty.Image, layer)
	require.NoError(t, err)
	config, err := img.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Env: []string{"PATH=/usr/bin", "E=base"}, Cmd: []string{"base"}, WorkingDir: "/data",
		Labels: map[string]string{"base": "yes"}, StopSignal: "SIGQUIT",
	}
	img, err = mutate.ConfigFile(img, config)
	require.NoError(t, err)
	digest, err := img.Digest()
	require.NoError(t, err)
	ref, err := name.NewDigest(registry + "/base@" + digest.String())
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img))
	return ref.String()
}

// built is an image, or the error in its place.
type built struct {
	config map[string]any
	files  map[string]string
	err    error
}

// both builds c with both engines.
func (p *peer) both(t *testing.T, name string, c difference) (ours, theirs built) {
	t.Helper()
	dockerfile := strings.ReplaceAll(c.dockerfile, "BASE", p.base)
	dir := t.TempDir()
	writeContext(t, dir, c.files)
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	repository := p.registry + "/" + name
	res, err := p.engine.Build(t.Context(), builder.Request{Dockerfile: []byte(dockerfile),
		Context: builder.RootFS(root), Repository: repository + "/ours", Args: c.args})
	if ours.err = err; err == nil {
		ours = read(t, res.Reference)
	}
	var options []string
	for _, k := range slices.Sorted(maps.Keys(c.args)) {
		options = append(options, "build-arg:"+k+"="+c.args[k])
	}
	digest, err := p.daemon.Build(t.Context(), buildkit.Build{Dockerfile: dockerfile, Context: dir,
		Repository: repository + "/theirs", Options: options})
	if theirs.err = err; err == nil {
		theirs = read(t, repository+"/theirs@"+digest)
	}
	require.NotErrorIs(t, ours.err, context.Canceled)
	return ours, theirs
}

func writeContext(t testing.TB, dir string, files fstest.MapFS) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, at := files[name], filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		switch f.Mode.Type() {
		case fs.ModeSymlink:
			require.NoError(t, os.Symlink(string(f.Data), at))
			continue
		case fs.ModeDir:
			require.NoError(t, os.MkdirAll(at, 0o755))
		default:
			require.NoError(t, os.WriteFile(at, f.Data, 0o644))
		}
		mode := f.Mode.Perm() | f.Mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)
		require.NoError(t, os.Chmod(at, mode))
	}
}

// read reads an image as a set of facts that two engines may be compared by.
func read(t *testing.T, reference string) built {
	t.Helper()
	img := fetch(t, reference)
	raw, err := img.RawConfigFile()
	require.NoError(t, err)
	var config struct {
		Author string
		Config map[string]any
	}
	require.NoError(t, json.Unmarshal(raw, &config))
	b := built{config: config.Config, files: map[string]string{}}
	b.config["Author"] = config.Author
	for k, v := range b.config {
		if v == nil || v == "" || v == false {
			delete(b.config, k)
		}
	}
	flat := mutate.Extract(img)
	defer flat.Close()
	for tr := tar.NewReader(flat); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return b
		}
		require.NoError(t, err)
		sum := sha256.New()
		_, err = io.Copy(sum, tr)
		require.NoError(t, err)
		name := strings.Trim(h.Name, "/")
		fact := fmt.Sprintf("%c %04o %d:%d", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid)
		switch h.Typeflag {
		case tar.TypeSymlink:
			fact = fmt.Sprintf("-> %s %d:%d", h.Linkname, h.Uid, h.Gid)
		case tar.TypeLink: // another name of a file is a file of its own here
			fact = b.files[strings.Trim(h.Linkname, "/")]
		case tar.TypeReg:
			fact += fmt.Sprintf(" %d %x", h.Size, sum.Sum(nil)[:4])
		}
		b.files[name] = fact
	}
}

// compare names the difference: "config" or "files" with a report, "refused" if this package alone
// refuses, "built" if BuildKit alone refuses, "" for none.
func compare(ours, theirs built) (kind, report string) {
	switch {
	case ours.err != nil && theirs.err != nil:
		return "", ""
	case ours.err != nil:
		return "refused", ours.err.Error()
	case theirs.err != nil:
		return "built", lastLine(theirs.err)
	}
	labels, _ := ours.config["Labels"].(map[string]any)
	delete(labels, "org.opencontainers.image.base.name") // this package's own
	delete(labels, "org.opencontainers.image.base.digest")
	if len(labels) == 0 {
		delete(ours.config, "Labels")
	}
	delete(theirs.config, "ArgsEscaped") // BuildKit's note for Windows
	if d := cmp.Diff(theirs.config, ours.config); d != "" {
		return "config", "config (-BuildKit +assemble):\n" + d
	}
	if d := cmp.Diff(theirs.files, ours.files); d != "" {
		return "files", "files (-BuildKit +assemble):\n" + d
	}
	return "", ""
}

// lastLine is the end of buildctl's error, which starts with the whole progress.
func lastLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return lines[len(lines)-1]
}

// TestDifferencesAreDocumented looks for the reason of each accepted difference in the document.
func TestDifferencesAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/assemble.md")
	require.NoError(t, err)
	for _, c := range differences {
		if !strings.Contains(string(text), c.why) {
			t.Errorf("docs/assemble.md does not have %q, of the case %q", c.why, c.name)
		}
	}
}

// TestAsBuildKit builds each of the differences with this package and with BuildKit.
func TestAsBuildKit(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	for i, c := range differences {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := p.both(t, fmt.Sprintf("case%d", i), c)
			kind, report := compare(ours, theirs)
			if kind != c.differs {
				t.Errorf("differs in %q, want %q\n%s", kind, c.differs, report)
			}
			if c.why == "" != (c.differs == "") {
				t.Error("a difference needs its reason")
			}
			if kind == "refused" && !errors.Is(ours.err, builder.ErrInvalid) &&
				!errors.Is(ours.err, builder.ErrUnsupported) {
				t.Errorf("refused with %v, want ErrInvalid or ErrUnsupported", ours.err)
			}
		})
	}
}
