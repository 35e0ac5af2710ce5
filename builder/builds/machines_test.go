//go:build linux

package builds_test

import (
	"archive/tar"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/rsyncsource"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
	"github.com/sluice-deploy/sluice/internal/testbed/rsync"
)

// TestTwoBuildMachines builds many clusters at once from two rsync daemons that serve under the
// same module and paths on the port of the protocol, each on an address of its own: every image has
// the code of its own machine and path.
func TestTwoBuildMachines(t *testing.T) {
	t.Parallel()
	const clusters = 6
	oci := registry.Start(t)
	files, err := rsyncsource.New(rsyncsource.Config{})
	require.NoError(t, err)
	fetch, dir := fetches(t, source.Set{Rsync: files})
	assembler, err := assemble.New(assemble.Config{TempDir: t.TempDir()})
	require.NoError(t, err)
	b := open(t, builds.NewMemory(), "one", assembler.Build, fetch, func(c *builds.Config) {
		c.Builders = 4
	})
	want := map[string]string{} // the code of each build
	for m := range 2 {
		code := t.TempDir()
		host, port, err := net.SplitHostPort(rsync.StartStandard(t, code).Addr)
		require.NoError(t, err)
		require.Equal(t, "873", port)
		for c := range clusters {
			path := fmt.Sprintf("cluster%d/output", c)
			o := order(fmt.Sprintf("m%d-c%d", m, c))
			want[o.ID] = fmt.Sprintf("cluster %d of machine %d", c, m)
			require.NoError(t, os.MkdirAll(filepath.Join(code, path), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(code, path, "app"), []byte(want[o.ID]),
				0o644))
			o.Dockerfile = "FROM scratch\nCOPY . /srv/\n"
			o.Repository = fmt.Sprintf("%s/cluster%d", oci.Addr, c)
			o.Source.Rsync = &source.Rsync{Host: host, Module: "code", Path: path}
			_, err := b.Submit(t.Context(), o)
			require.NoError(t, err)
		}
	}
	run(t, b)
	ids := map[string]bool{}
	for id, code := range want {
		got := wait(t, b, id)
		require.Equal(t, builds.StateSucceeded, got.State, "%+v", got.Failure)
		require.Equal(t, map[string]string{"srv/app": code}, content(t, got.Result.Reference), id)
		require.EqualValues(t, len(code), got.Identity.Bytes)
		ids[got.Identity.ID] = true
	}
	require.Len(t, ids, len(want), "each content has an identity of its own")
	left, err := filepath.Glob(filepath.Join(dir, "spool-*", "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// content reads the files of an image.
func content(t *testing.T, reference string) map[string]string {
	t.Helper()
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	img, err := remote.Image(ref, remote.WithContext(t.Context()))
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	files := map[string]string{}
	for _, l := range layers {
		r, err := l.Uncompressed()
		require.NoError(t, err)
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			if h.Typeflag == tar.TypeReg {
				data, err := io.ReadAll(tr)
				require.NoError(t, err)
				files[h.Name] = string(data)
			}
		}
		require.NoError(t, r.Close())
	}
	return files
}
