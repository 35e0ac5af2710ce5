//go:build linux

package assemble_test

import (
	"math/rand/v2"
	"net/url"
	"strconv"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/internal/testbed/buildkit"
	"github.com/sluice-deploy/sluice/internal/testbed/faultproxy"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

// goStatic is a Go service by the template go-static: a binary of size bytes over the 4 MB of
// envconfig.
func goStatic(t testing.TB, size int) (dockerfile []byte, files fstest.MapFS) {
	t.Helper()
	tmpl, err := builder.Default().Template("go-static")
	require.NoError(t, err)
	dockerfile, err = tmpl.Render(map[string]string{"CLUSTER_NAME": "hello_web"})
	require.NoError(t, err)
	// Half noise, half zeros compress about as well as machine code does.
	random := rand.New(rand.NewPCG(1, 2))
	binary := func(size int) *fstest.MapFile {
		code := make([]byte, size)
		for i := range size / 2 {
			code[i*2] = byte(random.Uint32())
		}
		return &fstest.MapFile{Data: code, Mode: 0o755}
	}
	return dockerfile, fstest.MapFS{"envconfig": binary(4 << 20), "app": binary(size),
		"manifest.json": text("{}\n"), "envs/_base/a": text("a\n")}
}

// BenchmarkChangedImage builds and pushes a Go service whose 8 MB binary changes each time, over
// the 4 MB of envconfig, which does not: with this package, and beside it with buildctl and a
// daemon that has built it before. Both push to one registry.
func BenchmarkChangedImage(b *testing.B) {
	oci := registry.Start(b)
	daemon := buildkit.Start(b, oci.Addr)
	dockerfile, files := goStatic(b, 8<<20)
	dir := b.TempDir()
	engine := newEngine(b, assemble.Config{})
	var sent int64
	ours := func(n int) {
		res, err := engine.Build(b.Context(), builder.Request{Dockerfile: dockerfile,
			Context: files, Repository: oci.Addr + "/ours", Tag: "v" + strconv.Itoa(n)})
		require.NoError(b, err)
		sent = res.Uploaded
	}
	theirs := func(int) {
		_, err := daemon.Build(b.Context(), buildkit.Build{Dockerfile: string(dockerfile),
			Context: dir, Repository: oci.Addr + "/theirs"})
		require.NoError(b, err)
	}
	var taken [2]time.Duration
	for n := 0; n == 0 || b.Loop(); n++ { // the first is no part of the figures
		copy(files["app"].Data, strconv.Itoa(n))
		writeContext(b, dir, files)
		for i, build := range []func(int){ours, theirs} {
			start := time.Now()
			build(n)
			if n > 0 {
				taken[i] += time.Since(start)
			}
		}
	}
	for i, name := range []string{"assemble-ms", "buildctl-ms"} {
		b.ReportMetric(taken[i].Seconds()*1000/float64(b.N), name)
	}
	b.ReportMetric(taken[0].Seconds()/taken[1].Seconds(), "ratio")
	b.ReportMetric(float64(sent), "sent-B")
}

// TestBytesAfterAChange counts the bytes that reach a registry after a change of one line: the
// layer with the line, the configuration, which names the layer, and the manifest, under its digest
// and under the tag.
func TestBytesAfterAChange(t *testing.T) {
	t.Parallel()
	oci := registry.Start(t)
	proxy := faultproxy.Start(t, "127.0.0.1", &url.URL{Scheme: "http", Host: oci.Addr}, nil)
	dockerfile, files := goStatic(t, 1<<20)
	engine := newEngine(t, assemble.Config{})
	known := map[string]bool{}
	build := func(tag string) (sent, want int64, layers int) {
		before := len(proxy.Requests())
		res, err := engine.Build(t.Context(), builder.Request{Dockerfile: dockerfile,
			Context: files, Repository: proxy.Addr + "/hello_web", Tag: tag})
		require.NoError(t, err)
		for _, r := range proxy.Requests()[before:] {
			sent += r.Sent
		}
		img := fetch(t, res.Reference)
		raw, err := img.RawManifest()
		require.NoError(t, err)
		manifest, err := img.Manifest()
		require.NoError(t, err)
		want = 2*int64(len(raw)) + manifest.Config.Size
		for _, l := range manifest.Layers {
			if digest := l.Digest.String(); !known[digest] {
				known[digest] = true
				want += l.Size
				layers++
			}
		}
		return sent, want, layers
	}
	sent, want, layers := build("v1")
	require.Equal(t, want, sent)
	copy(files["app"].Data[1<<19:], "another line\n")
	changedSent, changedWant, changed := build("v2")
	require.Equal(t, changedWant, changedSent)
	require.Equal(t, 1, changed)
	require.Less(t, changedSent, sent)
	t.Logf("%d bytes in %d layers at first, %d bytes after a change", sent, layers, changedSent)
}
