//go:build linux

package image_test

import (
	"archive/tar"
	"io"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
	"github.com/stretchr/testify/require"
)

func TestBase(t *testing.T) {
	t.Parallel()
	server := registry.Start(t)
	ref, err := name.NewDigest(image.Base(t, server.Addr))
	require.NoError(t, err)
	got, err := remote.Image(ref)
	require.NoError(t, err)
	config, err := got.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, []string{"/bin/sh"}, config.Config.Cmd)
}

// The layer that Debian writes is the one that its digests name, and the program is in it.
func TestDebian(t *testing.T) {
	t.Parallel()
	server := registry.Start(t)
	ref, err := name.NewDigest(image.Debian(t, server.Addr, "shell", image.DebianSpec{
		Programs: []string{"dash=dash"}, Files: map[string]string{"srv/a": "b"}}))
	require.NoError(t, err)
	got, err := remote.Image(ref)
	require.NoError(t, err)
	manifest, err := got.Manifest()
	require.NoError(t, err)
	config, err := got.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, []v1.Hash{manifest.Layers[0].Digest}, config.RootFS.DiffIDs)
	r := mutate.Extract(got)
	defer r.Close()
	files := map[string]bool{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		files[h.Name] = true
	}
	require.True(t, files["usr/bin/dash"])
	require.True(t, files["srv/a"])
}
