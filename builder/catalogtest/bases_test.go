//go:build linux

package catalogtest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed/image"
)

// goBase has the Go that runs this test.
func (b *bed) goBase(t *testing.T) string {
	return b.base(t, "go", func() image.DebianSpec {
		out, err := exec.Command("go", "env", "GOROOT").Output()
		require.NoError(t, err)
		root, trees := strings.TrimSpace(string(out)), map[string]string{}
		for _, dir := range []string{"bin", "pkg", "src"} {
			trees["usr/local/go/"+dir] = filepath.Join(root, dir)
		}
		version, err := os.ReadFile(filepath.Join(root, "VERSION"))
		require.NoError(t, err)
		return image.DebianSpec{Trees: trees, Env: []string{"GOFLAGS=-mod=mod", "GOPROXY=off",
			"GOTOOLCHAIN=local"}, Files: map[string]string{
			"usr/local/go/VERSION": string(version), "usr/local/go/go.env": "GOSUMDB=off\n"}}
	})
}

// nodeBase has node and npm, whose registry is one of the test.
func (b *bed) nodeBase(t *testing.T) string {
	return b.base(t, "node", func() image.DebianSpec {
		trees := map[string]string{}
		const ownNPM = "/usr/lib/node_modules/npm" // of nodejs.org's package; npm may renew itself
		if _, err := os.Stat(ownNPM); err == nil {
			trees[ownNPM[1:]] = ownNPM
		}
		return image.DebianSpec{
			Programs: []string{"node=nodejs", "npm=npm"}, Trees: trees,
			Env: []string{"npm_config_update_notifier=false", "npm_config_audit=false"},
		}
	})
}

// npm makes a package that needs another, of a registry of the test.
func (s *site) npm(t *testing.T, more string) {
	t.Helper()
	var archive bytes.Buffer
	zw := gzip.NewWriter(&archive)
	tw := tar.NewWriter(zw)
	for name, content := range map[string]string{
		"package/package.json": `{"name": "greeting", "version": "1.0.0"}`,
		"package/index.js":     `module.exports = 'whole'`,
	} {
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644,
			Size: int64(len(content))}))
		_, err := io.WriteString(tw, content)
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	require.NoError(t, zw.Close())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(archive.Bytes())
	}))
	t.Cleanup(server.Close)
	sum := sha512.Sum512(archive.Bytes())
	const needs = `"dependencies": {"greeting": "1.0.0"}`
	s.files["app/package.json"] = `{"name": "web", "version": "1.0.0", ` + needs + `, ` + more + `}`
	s.files["app/package-lock.json"] = fmt.Sprintf(`{"name": "web", "version": "1.0.0",
"lockfileVersion": 3, "requires": true, "packages": {"": {"name": "web", "version": "1.0.0", %s},
"node_modules/greeting": {"version": "1.0.0", "resolved": "%s/greeting-1.0.0.tgz",
"integrity": "sha512-%s"}}}`, needs, server.URL, base64.StdEncoding.EncodeToString(sum[:]))
}

// pythonBase has Python with pip, which may install outside of a virtual environment, as in the
// official images, and gunicorn.
func (b *bed) pythonBase(t *testing.T) string {
	return b.base(t, "python", func() image.DebianSpec {
		closed, err := filepath.Glob("/usr/lib/python3*/EXTERNALLY-MANAGED")
		require.NoError(t, err)
		return image.DebianSpec{
			Programs: []string{"/usr/bin/python3=python3", "/usr/bin/pip3=python3-pip",
				"gunicorn=gunicorn"},
			Links: map[string]string{"usr/bin/python": "python3"}, Leave: closed,
		}
	})
}

// wheel serves a package from an index of the test and returns the requirements that name it.
func (s *site) wheel(t *testing.T) string {
	t.Helper()
	const file, info = "greeting-1.0-py3-none-any.whl", "greeting-1.0.dist-info/"
	var wheel bytes.Buffer
	zw := zip.NewWriter(&wheel)
	for name, content := range map[string]string{
		"greeting.py": "text = b'whole'\n", info + "METADATA": "Metadata-Version: 2.1\nName: " +
			"greeting\nVersion: 1.0\n", info + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\n" +
			"Root-Is-Purelib: true\nTag: py3-none-any\n",
		info + "RECORD": "greeting.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info +
			"RECORD,,\n",
	} {
		w, err := zw.Create(name)
		require.NoError(t, err)
		_, err = io.WriteString(w, content)
		require.NoError(t, err)
	}
	require.NoError(t, zw.Close())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/simple/greeting/":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<a href="/%s">%s</a>`, file, file)
		case "/" + file:
			_, _ = w.Write(wheel.Bytes())
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return fmt.Sprintf("--index-url %s/simple\ngreeting==1.0 --hash=sha256:%x\n", server.URL,
		sha256.Sum256(wheel.Bytes()))
}
