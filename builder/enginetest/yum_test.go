//go:build linux

package enginetest_test

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed/buildkit"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
	"github.com/sluice-deploy/sluice/internal/testbed/rsync"
)

// TestTomcatTemplate builds the template with BuildKit, yum and rsync for two build machines at
// once, which serve under the same name: each image has the code of its own. dnf takes minutes, so
// that make soak alone builds; otherwise the test checks the requests.
func TestTomcatTemplate(t *testing.T) {
	t.Parallel()
	addr := "127.0.0.1:5000"
	base := addr + "/yum@sha256:" + strings.Repeat("0", 64)
	build := func(ctx context.Context, r builder.Request) (builder.Result, error) {
		_, err := builder.Check(ctx, r)
		return builder.Result{}, err
	}
	serve := func(string) string { return "127.0.0.1" }
	if soak.Whole() {
		addr = registry.Start(t).Addr
		base = image.Yum(t, addr)
		build = (&engine{daemon: buildkit.Start(t, addr)}).Build
		serve = func(code string) string {
			host, _, err := net.SplitHostPort(rsync.StartStandard(t, code).Addr)
			require.NoError(t, err)
			return host
		}
	}
	type end struct {
		id, want string
		result   builder.Result
		err      error
	}
	ends := make(chan end, 3)
	for m, version := range []string{"tomcat@1", "tomcat@1", "tomcat@2"} {
		code := t.TempDir()
		want := fmt.Sprintf("the code of machine %d for %s", m, version)
		path := filepath.Join(code, "root", "output") // as version 1 has it
		if version == "tomcat@2" {
			path = filepath.Join(code, "builds", "b1")
		}
		require.NoError(t, os.MkdirAll(path, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(path, "app.war"), []byte(want), 0o644))
		r := tomcat(t, version, base, serve(code))
		r.Repository = fmt.Sprintf("%s/car_detail%d", addr, m)
		go func() {
			result, err := build(t.Context(), r)
			ends <- end{version, want, result, err}
		}()
	}
	for range cap(ends) {
		e := <-ends
		if !assert.NoError(t, e.err, e.id) || !soak.Whole() {
			continue
		}
		files := filesOf(t, e.result.Reference, "home/work/service/", "usr/bin/rsync")
		require.Contains(t, files, "usr/bin/rsync", "yum installed it")
		delete(files, "usr/bin/rsync")
		require.Equal(t, map[string]string{"home/work/service/app.war": e.want}, files)
	}
}

// tomcat is a request without a repository for a version of the template, with the code of the
// rsync daemon at host. The cluster has one name, so that BuildKit makes the layers before the
// code once.
func tomcat(t *testing.T, version, base, host string) builder.Request {
	t.Helper()
	values := map[string]string{"CLUSTER_NAME": "car_detail", "BASE_IMAGE": base, "BUILD_IP": host}
	if version == "tomcat@2" {
		values["SOURCE"] = "code/builds/b1"
	}
	template, err := builder.Default().Template(version)
	require.NoError(t, err)
	dockerfile, err := template.Render(values)
	require.NoError(t, err)
	return builder.Request{Dockerfile: dockerfile, Args: map[string]string{"CACHE": "7"},
		Tag: "v" + version[len("tomcat@"):],
		Context: fstest.MapFS{
			"envconfig":         {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
			"startup.sh":        {Data: []byte("exec catalina.sh run\n"), Mode: 0o755},
			"envs/test/app.ini": {Data: []byte("a=1\n"), Mode: 0o644},
			"manifest.json":     {Data: []byte("{}\n"), Mode: 0o644},
		}}
}

// filesOf reads the files of an image that begin with one of the prefixes.
func filesOf(t *testing.T, reference string, prefixes ...string) map[string]string {
	t.Helper()
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	img, err := remote.Image(ref, remote.WithContext(t.Context()))
	require.NoError(t, err)
	r := mutate.Extract(img)
	defer r.Close()
	files := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files
		}
		require.NoError(t, err)
		for _, p := range prefixes {
			if h.Typeflag == tar.TypeReg && strings.HasPrefix(strings.TrimPrefix(h.Name, "/"), p) {
				data, err := io.ReadAll(tr)
				require.NoError(t, err)
				files[strings.TrimPrefix(h.Name, "/")] = string(data)
			}
		}
	}
}
